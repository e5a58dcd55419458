"""What adding, subtracting and ablating does to the residual stream, as the page shows it (paper Figure 22)."""

from refusal import svg
from refusal.formats import percent, signed
from refusal.labels import CLASSES
from refusal.report.drawing import Curve, layered, layered_key
from refusal.report.measured import Measured
from refusal.report.section import Section

# Class and intervention → colour; the curves of the paper's figure. Where both kinds of prompts are, interventions
# cannot have their own colours, which are the same two.
CURVES = {
    ("harmful", "none"): CLASSES["harmful"],
    ("harmless", "none"): CLASSES["harmless"],
    ("harmful", "ablation"): 2,
    ("harmful", "subtraction"): 4,
    ("harmless", "addition"): 6,
}
DONE = {"none": "", "ablation": ", ablated", "subtraction": ", subtracted", "addition": ", added"}


def section(record: Measured) -> Section:
    """Return what is said of the stream under interventions, and the figure with its control."""
    found, random = _curves(record, "found"), _curves(record, "random")
    y, layers = svg.padded(edge for one in (*found, *random) for edge in one.edges), record.axes["layer"]
    note = f"mean ± 1 sd over {' + '.join(map(str, record.n.values()))} prompts, as each block sees it"
    return Section(
        "What the interventions do to the residual stream",
        _said(record),
        figures=[
            layered(found[::-1], layers, "Cosine with the direction, last token", note, y=y),
            layered(random[::-1], layers, "The same with a random direction in its place", note, y=y),
        ],
        key=layered_key(found),
    )


def _curves(record: Measured, vector: str) -> list[Curve]:
    """Return the cosines with the direction under what is done with one vector; a random one's are grey."""
    return [
        Curve(
            name + DONE[intervention],
            *record.at(name, intervention, vector, "found"),
            record.n[name],
            colour if vector == "found" or intervention == "none" else svg.GREY,
            svg.SHAPES[i],
        )
        for i, ((name, intervention), colour) in enumerate(CURVES.items())
    ]


def _said(record: Measured) -> list[str]:
    n, layer, last = record.n, str(record.facts["layer"]), record.axes["layer"][-1]

    def at(name: str, intervention: str, vector: str, layer: str = layer) -> float:
        mean, _ = record.at(name, intervention, vector, "found")
        return mean[record.axes["layer"].index(layer)]

    def way(name: str, intervention: str, vector: str) -> str:
        """The cosine, and how much of the way to the other class that is."""
        start, end = (at(each, "none", "found") for each in (name, "harmless" if name == "harmful" else "harmful"))
        moved = at(name, intervention, vector)
        share = percent((moved - start) / (end - start) if end != start else None)
        return (
            f"{signed(moved, '.2f')} ({share} of the way to {'harmless' if name == 'harmful' else 'harmful'} prompts)"
        )

    left = max(abs(x) for x in record.at("harmful", "ablation", "found", "found")[0])
    behind = {name: signed(at(*name, "found", last), ".2f") for name in CURVES}
    return [
        f"At layer {layer}, where the direction is added, the last token's cosine with it is "
        f"{signed(at('harmful', 'none', 'found'), '.2f')} on {n['harmful']} harmful prompts and "
        f"{signed(at('harmless', 'none', 'found'), '.2f')} on {n['harmless']} harmless ones.",
        f"Addition takes harmless prompts there to {way('harmless', 'addition', 'found')}; adding a random direction "
        f"of the same length takes them to {way('harmless', 'addition', 'random')}.",
        f"Subtraction takes harmful prompts to {way('harmful', 'subtraction', 'found')}; subtracting a random "
        f"direction takes them to {way('harmful', 'subtraction', 'random')}.",
        f"Ablation leaves {left:.1g} at most in the mean, at any layer; with a random direction ablated it is "
        f"{signed(at('harmful', 'ablation', 'random'), '.2f')} on harmful prompts at layer {layer}.",
        "Ablation acts at every layer, addition and subtraction at one. After the last block the cosine is "
        f"{behind['harmful', 'subtraction']} on harmful prompts after subtraction and "
        f"{behind['harmless', 'addition']} on harmless ones after addition.",
    ]
