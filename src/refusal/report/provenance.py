"""Where a run's numbers come from: what was asked, drawn and chosen, versions, hashes, and how to make it again."""

import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from refusal.findings import Findings, Row
from refusal.hidden import spelled
from refusal.report.choice import setting

HIDDEN = ("out",)  # where somebody's folder is says nothing of the run
POSITIONAL = ("model",)


def asked(findings: Findings) -> dict[str, Any]:
    """Return what the page says of how the run came about; parts that the run does not record are empty."""
    record = findings.record
    prompts, environment = record.get("prompts") or {}, record.get("environment") or {}
    facts = {"layers": record.get("n_layers"), "seed": setting(record, "seed"), "imported": record.get("imported")}
    facts |= {name: value for name, value in environment.items() if name != "packages"}
    config = record.get("config") or {}
    return {
        "facts": [(name, plain(value)) for name, value in facts.items() if value is not None],
        "sets": [
            {
                "role": role,
                **{name: plain(one.get(name)) for name in ("name", "source", "licence")},
                "counts": [one.get("counts", {}).get(split) for split in ("train", "val", "test")],
            }
            for role, one in (prompts.get("sets") or {}).items()
        ],
        "sample": list(((prompts.get("sample") or {}).get("parts") or {}).items()),
        "filtering": list((record.get("filtering") or {}).items()),
        "tokens": record.get("refusal_tokens"),
        "choices": [(what, plain(reason)) for what, reason in (record.get("choices") or {}).items()],
        "config": [
            (name, plain(entry["value"]), entry.get("given")) for name, entry in config.items() if name not in HIDDEN
        ],
        "packages": sorted((environment.get("packages") or {}).items()),
        "hashes": [*_prompt_hashes(prompts, record), *_file_hashes(record)],
        "commands": _commands(record),
    }


def plain(value: Any) -> str:
    """Return any JSON value as text for a reader, with what is hidden in it spelled out."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {plain(inner)}" for name, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(plain, value))
    if value is None or isinstance(value, bool):
        return {None: "–", True: "yes", False: "no"}[value]
    return spelled(str(value))


def _prompt_hashes(prompts: Row, record: Row) -> Iterator[tuple[str, str]]:
    for name, part in ((prompts.get("sample") or {}).get("parts") or {}).items():
        if "sha256" in part:
            yield f"prompts of {name.replace('_', ' ')}", part["sha256"]
    for one in record.get("evaluations") or []:
        if "sha256" in one:
            yield f"prompts of the set {one['name']}, as completed", one["sha256"]


def _file_hashes(record: Row) -> Iterator[tuple[str, str]]:
    for step in (record.get("steps") or {}).values():
        yield from (step.get("outputs") or {}).items()


def _commands(record: Row) -> list[tuple[str, str]]:
    """Return the commands that make the run again, check it and use its direction, each with what it does."""
    if record.get("imported") or not record.get("config"):
        return []
    config = record["config"]
    model = shlex.quote(str(record["model"]))
    row = (config.get("architecture") or {}).get("value")
    own = f" --architecture {shlex.quote(str(row))}" if row else ""
    without = " (without the run's system prompt)" if (config.get("system") or {}).get("value") else ""
    listed = [
        ("make this run again", f"refusal run {model}{_flags(config)} --out RUN"),
        ("compute every number of this page again from its records", "refusal verify RUN"),
        ("save its figures as SVG and their numbers as CSV", "refusal report RUN --figures FIGURES"),
        (
            f"ask the model yourself{without}",
            f'refusal ask {model} "PROMPT" --direction RUN/direction.safetensors{own}',
        ),
        (
            "write the model without the direction",
            f"refusal export {model} --direction RUN/direction.safetensors --as checkpoint --out EDITED{own}",
        ),
        ("see every matrix that such an edit reaches", f"refusal models {model}{own}"),
    ]
    return [(what, spelled(command)) for what, command in listed]


def _flags(config: Mapping[str, Row]) -> str:
    given = {k: e["value"] for k, e in config.items() if e.get("given") and k not in (*HIDDEN, *POSITIONAL)}
    return "".join(f" {flag}" for name, value in given.items() if (flag := _flag(name.replace("_", "-"), value)))


def _flag(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    if value is None:
        return ""
    listed = value if isinstance(value, list) else [value]
    return " ".join([f"--{name}", *(shlex.quote(str(one)) for one in listed)])
