"""The paper end to end, and the run folders that are left of it."""

import json as jsonlib
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from refusal.cli.options import Config, Json, Out, Output, RunFolder
from refusal.cli.printing import next_commands, pairs, quiet, say, show, table


def run(config: Config, json: Json = False) -> None:
    """Do the paper end to end on a chat model (the bundled one by default), and write a run folder with a report.

    A stopped run goes on where it was. Settings can also stand in a TOML file, --config FILE, which wins over a
    recipe; flags win over both.

    Example: refusal run --n-test 100
    """
    from refusal import pipeline
    from refusal.analyses import check_settings, explain
    from refusal.records import read_json
    from refusal.report import write_report
    from refusal.results import table_rows

    quiet()
    check_settings(config)
    folder = pipeline.run(config)
    report = write_report(folder)
    results = read_json(folder / "results.json")
    show(results, json, lambda: table(table_rows(results)))
    if config.mechanism and not config.stream_layers:
        say(f"Report so far: {report}. Now what is inside: suffixes, heads, geometry, components.")
        write_report(explain(config))
    say(f"Report: {report}")
    say("\n".join(["Worth trying next:", *(f"  {command}" for command in next_commands(folder))]))


def find(config: Config, output: Output = Path("direction.safetensors")) -> None:
    """Extract the candidates and select the direction only; `refusal run` with the same settings goes on from there.

    Example: refusal find organism -o direction.safetensors
    """
    from refusal import pipeline

    quiet()
    direction = pipeline.find(config)
    direction.save(output)
    print(jsonlib.dumps({"position": direction.position, "layer": direction.layer, "norm": direction.norm}))


def select(
    scores: Annotated[Path, arg(help="File of recorded scores.")],
    layers: Annotated[int, arg(help="How many layers the model has.")],
    max_kl: Annotated[float, arg(help="Highest KL score of a candidate.")] = 0.1,
    min_induce: Annotated[float, arg(help="Lowest induce score of a candidate.")] = 0.0,
    prune_layers: Annotated[float, arg(help="Share of the last layers that is never chosen.")] = 0.2,
    json: Json = False,
) -> None:
    """Choose again from recorded scores: our selection.jsonl, or the official direction_evaluations.json.

    Example: refusal select --scores selection.jsonl --layers 10 --max-kl 0.05
    """
    from refusal.rule import Limits, choose, read_complete_scores

    limits = Limits(max_kl=max_kl, min_induce=min_induce, prune_layers=prune_layers)
    summary = choose(read_complete_scores(scores), layers, limits=limits).summary()
    show(summary, json, lambda: pairs(summary))


def report(
    folders: Annotated[
        Positional[tuple[Path, ...]], arg(metavar="RUN", help="Run folders: one, or several to compare.")
    ],
    out: Annotated[Path | None, arg(help="File of the page; RUN/report.html, of several runs comparison.html.")] = None,
    figures: Annotated[
        Path | None, arg(help="Folder to write every figure to instead, as SVG with its numbers as CSV.")
    ] = None,
    pdf: Annotated[bool, arg(help="With --figures: each as PDF, too.")] = False,
) -> None:
    """Write the report of a run from its records, or one page that compares several; or their figures as files.

    Example: refusal report runs/organism/1a2b3c4d runs/organism/5e6f7a8b --out comparison.html
    """
    from refusal.report import report_files

    written = report_files(folders, out=out, figures=figures, pdf=pdf)
    n = sum(path.suffix == ".svg" for path in written)
    print(written[0] if figures is None else f"{n} figures, {len(written)} files: {figures}")


def verify(folder: RunFolder, json: Json = False) -> None:
    """Compute every number of a run's results again from its records; exit 1 on any difference.

    Example: refusal verify runs/organism/1a2b3c4d
    """
    from refusal.records import Run

    Run.read(folder)  # before torch is imported
    from refusal.checking import check_run

    checked = check_run(folder)
    show(checked, json, lambda: pairs(checked))


def import_official(
    run: Annotated[Positional[Path], arg(metavar="OFFICIAL_RUN", help="The official code's pipeline/runs/<model>.")],
    out: Out,
) -> None:
    """Turn a run folder of the paper's own repository into one of ours.

    Example: refusal import pipeline/runs/gemma-2b-it --out runs/gemma-2b-it
    """
    from refusal.official import import_run
    from refusal.report import write_report

    print(write_report(import_run(run, out)))
