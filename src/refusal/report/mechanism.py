"""Why it works, as the page shows it: what suffixes do, in figures and in sentences made from the numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from refusal import svg
from refusal.errors import BadRunFolder
from refusal.formats import percent, signed
from refusal.labels import CLASSES, Row
from refusal.records import read_json
from refusal.report.drawing import Bar, Curve, bars, bars_key, layered, layered_key, spread
from refusal.report.inside import suffix
from refusal.report.measured import Measured
from refusal.report.words import rate_cell

NEEDED = ("suffix", "refused", "cosines", "attribution", "attention", "facts")
WROTE = ("harmful", "random suffix", "suffix")  # the paper's Figure 6a
LOOKED = ("random suffix", "suffix", "permuted suffix")
# The random suffix is a control, so grey.
COLOURS = CLASSES | {"random suffix": svg.GREY, "suffix": 2, "permuted suffix": 4, "suffix first": 6}
BANDS = ("harmful", "random suffix", "suffix", "harmless")  # of the paper's Figure 5; the others are lines only
OTHERS = 8  # of MLPs and what else is no head, shown
NOTES = {
    "harmful": "no suffix",
    "random suffix": "control: random tokens, as many, fresh for every prompt",
    "suffix": "",
    "permuted suffix": "control: its tokens in another order",
    "suffix first": "control: in front of the instruction",
    "harmless": "no suffix",
}
Rows = Sequence[tuple[str, Mapping[str, Bar]]]
CONTROLS = ("random suffix", "permuted suffix", "suffix first")


def suffixes(folder: Path) -> list[dict[str, Any]]:
    """Return what the page says of every suffix that a run folder has been studied with; empty where there is none."""
    paths = (folder / "mechanism").glob("suffix*.json")  # suffix.json, suffix-2.json, … suffix-10.json
    return [suffix_values(_read(path)) for path in sorted(paths, key=lambda path: (len(path.name), path.name))]


def _read(path: Path) -> Row:
    record = read_json(path)
    missing = [name for name in NEEDED if not isinstance(record, dict) or name not in record]
    if missing:
        raise BadRunFolder(
            f"{path} lacks {', '.join(missing)}: it is no study of a suffix. Remove it, or make it again."
        )
    return record


def suffix_values(record: Row) -> dict[str, Any]:
    """Return what the page says of one suffix's record."""
    near, wrote, looked = (Measured.read(record[name]) for name in ("cosines", "attribution", "attention"))
    heads = looked.axes["head"]
    lines = _lines(record["refused"], near)
    return {
        "said": suffix(lines),
        "suffix": record["suffix"],
        "tokens": record["facts"]["tokens"],
        "lines": lines,
        "left_out": _left_out(record["facts"]["asked and kept"]),
        "cosines": {
            "said": _said_of_cosines(near),
            "figures": [_over_layers(near)],
            "key": layered_key(_curves(near), (svg.stroke("base"), "harmful, a random direction")),
        },
        "wrote": {
            "said": _said_of_parts(wrote),
            "figures": [
                _bars(_wrote(wrote, heads), "What heads write along the direction", "those that write most"),
                _bars(_wrote(wrote, _most(wrote)), "What MLPs and the rest write", "those that write most"),
            ],
            "key": bars_key({name: COLOURS[name] for name in WROTE}),
        },
        "looked": {
            "said": _said_of_attention(looked),
            "figures": [
                _bars(_looked(looked, region), f"Attention to the {region}", "from the last token, summed over it")
                for region in ("instruction", "suffix")
            ],
            "key": bars_key({name: COLOURS[name] for name in LOOKED}),
        },
    }


def _curves(near: Measured) -> list[Curve]:
    """Return a curve a condition; those that the paper's figure does not have are lines without a band."""
    return [
        Curve(name, *near.at(name, "found"), n, COLOURS[name], svg.SHAPES[i % len(svg.SHAPES)], name in BANDS)
        for i, (name, n) in enumerate(near.n.items())
    ]


def _over_layers(near: Measured) -> str:
    """Draw the last token's cosine with the direction: mean over prompts, ± one standard deviation (Figure 5)."""
    curves, random = _curves(near), near.at("harmful", "random")[0]
    y = svg.padded([*(edge for one in curves for edge in one.edges), *random])
    title, note = "Cosine with the direction, last token", "mean ± 1 sd over prompts"
    return layered(curves[::-1], near.axes["layer"], title, note, y=y, dashed=random)


def _bars(rows: Rows, title: str, note: str) -> str:
    return bars(rows, title, note, colours=COLOURS)


def _lines(refused: Row, near: Measured) -> list[dict[str, Any]]:
    place, lines = near.layer, []
    for name in near.n:
        mean, sd = near.at(name, "found")
        words = {"condition": name.capitalize(), "note": NOTES[name], "control": name in CONTROLS}
        cosine = f"{signed(mean[place], '.3f')} ± {sd[place]:.3f}"
        lines.append({**words, **rate_cell(refused[name], "refused"), "cosine": cosine})
    return lines


def _left_out(counts: Mapping[str, Sequence[int]]) -> str:
    kept = {name: f"{kept} of {asked} {name} prompts" for name, (asked, kept) in counts.items()}
    return (
        f"Counted are the {kept['harmful']} that the model refuses and the {kept['harmless']} that it answers: the "
        "first and the last row say no more than that."
    )


def _said_of_cosines(record: Measured) -> str:
    at = record.layer
    mean = {name: record.at(name, "found")[0][at] for name in record.n}
    chance = record.at("harmful", "random")[0][at]
    told = {name: signed(value, ".2f") for name, value in mean.items()}
    gap = mean["harmful"] - mean["harmless"]
    shares = [(mean["harmful"] - mean[name]) / gap for name in ("suffix", "random suffix")]
    beyond = " (more than all: it ends beyond harmless prompts)" if shares[0] > 1 else ""
    taken, control = map(percent, shares)
    return (
        f"At layer {record.facts['layer']}, where the direction was read, the last token's cosine with it is "
        f"{told['harmful']} on harmful prompts, {told['random suffix']} with random suffixes, {told['suffix']} "
        f"with this one and {told['harmless']} on harmless prompts. So this suffix takes away {taken} of the "
        f"difference between the two kinds{beyond}, random ones {control}. A random direction's cosine on harmful "
        f"prompts is {signed(chance, '.2f')}."
    )


def _said_of_parts(record: Measured) -> str:
    said = {}
    for name in WROTE:
        pairs = [*zip(record.axes["component"], record.at(name, "found")[0], strict=True)]
        heads = sum(value for label, value in pairs if _of_heads(label))
        whole = sum(value for _, value in pairs)
        said[name] = f"{signed(whole, '.1f')} (heads {signed(heads, '.1f')}, the rest {signed(whole - heads, '.1f')})"
    return (
        f"The final stream's component on the direction, the sum of what all parts wrote, is {said['harmful']} on "
        f"harmful prompts, {said['random suffix']} with random suffixes and {said['suffix']} with this one."
    )


def _said_of_attention(record: Measured) -> str:
    said = {}
    for name in WROTE[1:]:
        shares = (record.at(name, region)[0] for region in ("instruction", "suffix"))
        said[name] = [percent(sum(share) / len(share)) for share in shares]
    (first, second), (random_first, random_second) = said["suffix"], said["random suffix"]
    return (
        f"These {len(record.axes['head'])} heads together give the instruction {first} of the last token's "
        f"attention and this suffix {second}; with random suffixes it is {random_first} and {random_second}."
    )


def _wrote(record: Measured, labels: Sequence[str]) -> Rows:
    known = record.axes["component"]
    found = {name: record.at(name, "found") for name in WROTE}
    places = [(label, known.index(label)) for label in labels]
    return [(label, {name: spread(mean[at], sd[at]) for name, (mean, sd) in found.items()}) for label, at in places]


def _most(record: Measured) -> list[str]:
    """Return the components beside heads that write most along the direction on harmful prompts, most first."""
    listed = zip(record.axes["component"], record.at("harmful", "found")[0], strict=True)
    others = sorted(((x, label) for label, x in listed if not _of_heads(label)), key=lambda one: -one[0])
    return [label for _, label in others[:OTHERS]]


def _looked(record: Measured, region: str) -> Rows:
    found = {name: record.at(name, region) for name in LOOKED}
    heads = record.axes["head"]
    return [
        (head, {name: spread(mean[i], sd[i]) for name, (mean, sd) in found.items()}) for i, head in enumerate(heads)
    ]


def _of_heads(label: str) -> bool:
    """Tell a head and the bias behind heads from all other components."""
    return label.startswith(("H", "attention bias"))
