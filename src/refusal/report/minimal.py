"""What has to be ablated, drawn and said: which blocks, which parts, which tokens, and the smallest sets."""

from collections.abc import Mapping, Sequence
from statistics import median

from refusal import svg
from refusal.formats import percent, rate_text, share_text
from refusal.labels import Row
from refusal.report.drawing import Bar, bars, bars_key
from refusal.report.measured import Measured
from refusal.report.section import Section, Table
from refusal.statistics import Rate
from refusal.svg import Axes

WAYS = {"only": ("only this block", 2), "from": ("this block and all later ones", 3), "up to": ("all up to it", 4)}
VECTORS = {"found": "the direction", "random": "a random direction"}
COLOURS = {"the direction": 2, "a random direction": svg.GREY}
LEFT = 150  # points, of the labels
ONLY = " only"  # ends the names of ablations that are told apart by what writes


def layers(record: Measured) -> Section:
    """Say in which blocks the ablation is enough, and draw it for every block alone, from it on, and up to it."""
    n, names = record.n["harmful"], record.axes["layer"]
    shares = {(vector, way): record.at("harmful", vector, way)[0] for vector in VECTORS for way in WAYS}
    alone = shares["found", "only"]
    best, half = min(alone), [name for name, share in zip(names, alone, strict=True) if share < 0.5]
    later = [name for name, share in zip(names, shares["found", "from"], strict=True) if share < 0.5]
    least = min(share for (vector, _), row in shares.items() if vector == "random" for share in row)
    said = [
        f"Without ablation {_share(record.facts['nothing'], n)} of {n} held-out harmful prompts are likely to be "
        f"refused: a refusal token is likelier to come first than not. With what one block reads and writes ablated, "
        f"and no other, it is {_share(best, n)} at best, at layer {names[alone.index(best)]}, and less than half at "
        f"{len(half)} of {len(names)} layers{_listed(half)}.",
        (
            f"Ablated from some layer on, less than half are left as late as from layer {later[-1]} on."
            if later
            else "Ablated from some layer on, less than half are left nowhere."
        ),
        f"A random direction leaves at least {_share(least, n)}, whichever blocks it is ablated in. A block that is "
        "enough alone is not where the direction is written: what it reads holds what all blocks before it wrote.",
    ]
    key = svg.key(
        [
            *((svg.dot(colour, svg.SHAPES[i]), told) for i, (told, colour) in enumerate(WAYS.values())),
            (svg.stroke("line", svg.GREY), "a random direction, all three"),
            (svg.stroke("base"), "no ablation"),
        ]
    )
    return Section("In which layers ablation is enough", said, figures=[_over_layers(record, shares)], key=key)


def minimal(record: Measured) -> Section:
    """Say what is left of refusal while less is ablated, and which small sets are enough."""
    refused, facts, n = record.facts["refused"], record.facts, record.n["harmful"]
    found, labels = refused["found"], record.axes["ablated"]
    parts = [f"{label.removesuffix(ONLY)} {share_text(found[label])}" for label in labels if label.endswith(ONLY)]
    heads = [f"{label} {share_text(found[label])}" for label in labels if label.endswith("heads")]
    where = [f"{label} {share_text(found[label])}" for label in labels if label.endswith(("tokens", "later"))]
    chance = min(refused["random"].values(), key=lambda one: one["rate"])
    said = [
        f"Of {n} held-out harmful prompts the model refuses {share_text(found['nothing'])}, and with everything "
        f"ablated {share_text(found['everything'])}. With only what one kind of part writes ablated, it refuses: "
        f"{', '.join(parts)}.",
        *(
            [f"With only what heads write, those that write most more on harmful prompts first: {', '.join(heads)}."]
            * bool(heads)
        ),
        f"With only some places ablated: {', '.join(where)}.",
        *(_said_of_set(kind, one, found, facts) for kind, one in facts["sets"].items()),
        f"With a random direction in its place, at least {share_text(chance)} are refused, whatever is ablated.",
        "A set that is enough is not the only one, and not shown to be needed: sets are grown greedily, and other "
        "parts may do the same. Refusals are those of the substring judge in answers of at most "
        f"{facts['max_new_tokens']} tokens.",
    ]
    rows = [(label, {told: _bar(refused[vector][label]) for vector, told in VECTORS.items()}) for label in labels]
    figures = [_bars(rows, "What is left of refusal", f"refused of n = {n}, 95 % interval; ablated is only this")]
    figures += [_growth(kind, one) for kind, one in facts["sets"].items() if len(one.get("grown", ())) > 1]
    key = bars_key(COLOURS)
    return Section("How much has to be ablated", said, figures=figures, key=key, table=_sets(facts["sets"], refused))


def _said_of_set(kind: str, one: Row, found: Mapping[str, Row], facts: Row) -> str:
    searched, limit = f"{one['n']} other prompts", percent(facts["limit"])
    if not one["members"]:
        return (
            f"No set of {kind} is enough: all {one['candidates']} together leave {share_text(one)} of {searched} "
            f"likely to be refused, and fewer than {limit} would be asked for."
        )
    held_out = found[f"smallest set of {kind}"]
    surely = "" if held_out["high"] < facts["limit"] else f", which is not surely below {limit}"
    said = (
        f"The smallest set of {kind} that was found has {len(one['members'])} of {one['candidates']}: "
        f"{', '.join(one['members'])}. On the {searched} on which it was searched for, {share_text(one)} are likely to "
        f"be refused; of the held-out ones {share_text(held_out)} are refused{surely}."
    )
    if not one["others"]:
        return said
    return (
        f"{said} {len(one['others'])} other sets of that size leave {_range(one['others'])} likely to be refused "
        f"(median {percent(median(one['others']))})."
    )


def _sets(sets: Mapping[str, Row], refused: Mapping[str, Mapping[str, Row]]) -> Table:
    rows = []
    for kind, one in sets.items():
        if one["members"]:
            answers = [share_text(refused[vector][f"smallest set of {kind}"]) for vector in VECTORS]
            rest = _range(one["others"]) if one["others"] else "–"
            rows.append([kind, ", ".join(one["members"]), share_text(one), share_text(one["held out"]), rest, *answers])
    head = [
        "Smallest set of",
        "members",
        "likely refused where it was searched for",
        "held out",
        "others of its size, held out",
    ]
    return Table([*head, "answers that refuse", "a random direction"], rows)


def _over_layers(record: Measured, shares: Mapping[tuple[str, str], Sequence[float]]) -> str:
    names, n = [*map(int, record.axes["layer"])], record.n["harmful"]
    axes = Axes((names[0] - 0.4, names[-1] + 0.4), (-0.04, 1.04), height=290)
    marks = [axes.scales(svg.whole_ticks(names[-1]), svg.SHARES, x_name="layer", share=True)]
    marks.append(axes.horizontal(record.facts["nothing"], "base", "no ablation"))
    marks += [axes.line([*zip(names, shares["random", way], strict=True)], svg.GREY) for way in WAYS]
    for i, (way, (told, colour)) in enumerate(WAYS.items()):
        aside = 0.12 * (i - 1)
        marks.append(axes.line([(x + aside, y) for x, y in zip(names, shares["found", way], strict=True)], colour))
        for x, share in zip(names, shares["found", way], strict=True):
            rate = Rate(round(share * n), n).record("refused")
            marks.append(axes.segment((x + aside, rate["low"]), (x + aside, rate["high"]), "whisker"))
            marks.append(
                axes.mark(
                    (x + aside, share), f"{told}, layer {x}: {rate_text(rate, 'refused')}", colour, shape=svg.SHAPES[i]
                )
            )
    note = f"share of n = {n} harmful prompts, 95 % interval"
    return axes.picture("Likely to be refused, ablated only there", note, marks)


def _growth(kind: str, one: Row) -> str:
    """Draw how a set grew: what was left once each member had joined."""
    rows = [
        (("+ " if i else "") + step["member"], {VECTORS["found"]: _bar(step)}) for i, step in enumerate(one["grown"])
    ]
    note = f"likely to be refused, searched on n = {one['grown'][0]['n']}, confirmed on n = {one['n']}"
    return _bars(rows, f"How the set of {kind} grew", note)


def _bars(rows: Sequence[tuple[str, Mapping[str, Bar]]], title: str, note: str) -> str:
    return bars(rows, title, note, colours=COLOURS, share=True, left=LEFT)


def _bar(rate: Row) -> Bar:
    return Bar(rate["rate"], rate["low"], rate["high"], share_text(rate))


def _share(share: float, n: int) -> str:
    return share_text(Rate(round(share * n), n).record("refused"))


def _range(shares: Sequence[float]) -> str:
    return f"{percent(min(shares))} to {percent(max(shares))}"


def _listed(names: Sequence[str]) -> str:
    return f" ({', '.join(names)})" if names else ""
