"""Where in prompt and answer the direction appears, drawn and said: mean lines, a map of layers, coloured tokens."""

from collections.abc import Iterable, Sequence
from html import escape

from refusal import svg
from refusal.formats import minus, number, signed
from refusal.labels import CLASSES, Row
from refusal.report.measured import Measured
from refusal.report.section import Section
from refusal.report.text import visible
from refusal.svg import Axes

LINES = {**CLASSES, "bypassed": 2}  # and their colours
CALLED = {
    "harmful": "harmful prompts and the model's own answers",
    "harmless": "harmless prompts and the model's own answers",
    "ablated": "harmful prompts and the answers given under ablation, measured under it",
    "bypassed": "harmful prompts and the answers given under ablation, read by the plain model",
}
FOLDED = ("harmful", "ablated", "bypassed")
LEAST = 0.25  # of the prompts have to have a token at a position for its mean to be drawn
FAINTEST = 0.03  # of the strongest colour: what is fainter has none


def section(record: Measured) -> Section:
    """Say where in the sequence the direction appears, and show it over positions, over layers and token by token."""
    layer = str(record.facts["layer"])
    key = svg.key(
        [
            *((svg.dot(colour, svg.SHAPES[colour]), CALLED[name]) for name, colour in LINES.items()),
            (svg.stroke("line", svg.GREY), "harmful, along a random direction"),
            (svg.swatch('class="shade"'), "the template after the instruction"),
        ]
    )
    return Section(
        "Where in prompt and answer it appears",
        [*_said(record, layer), _caution(record)],
        figures=[_over_positions(record, layer), _over_layers(record)],
        key=key,
        more="".join(_tokens(record, name, layer) for name in CALLED),
    )


def _said(record: Measured, layer: str) -> list[str]:
    positions, apart = _drawn(record), _apart(record, "found", layer)
    at = max(positions, key=lambda i: abs(apart[i]))
    place, counts = record.axes["position"][at], record.n
    told = {name: _told(record, name, "found", layer, at) for name in ("harmful", "harmless")}
    chance = _apart(record, "random", layer)
    regions = {
        "the last tokens of the instruction": [i for i in positions if _position(record, i) < _template(record)],
        "the tokens of the template after it": [i for i in positions if _template(record) <= _position(record, i) < 0],
        "the first tokens of the answer": [i for i in positions if _position(record, i) >= 0],
    }
    largest = [
        f"{what} {signed(max((apart[i] for i in inside), key=abs), '+.1f')}"
        for what, inside in regions.items()
        if inside
    ]
    said = [
        f"Before layer {layer}, the two kinds of prompts part most at position {_label(record, place)}: there the "
        f"component along the direction is {told['harmful']} on {counts['harmful']} harmful prompts and "
        f"{told['harmless']} on {counts['harmless']} harmless ones (mean ± standard deviation; position 0 is the "
        f"answer's first token). The largest difference of means is on {', on '.join(largest)}.",
        f"Along a random direction the difference at that place is {signed(chance[at], '+.1f')}, and the largest "
        f"anywhere {signed(max((chance[i] for i in positions), key=abs), '+.1f')}.",
    ]
    left = max(abs(value) for value in record.at("ablated", "found", layer)[0])
    if "0" in record.axes["position"]:
        first = record.axes["position"].index("0")
        own, read = (_told(record, name, "found", layer, first) for name in ("harmful", "bypassed"))
        said.append(
            f"Under ablation its mean is at most {left:.1g} at any position. When the plain model reads the answers "
            f"that were given under ablation, the component at their first token is {read}; at that of its own "
            f"answers it is {own}."
        )
    return said


def _caution(record: Measured) -> str:
    return (
        "A component says that the direction is there, not that the model acts on it there. Positions count from the "
        "answer, so late ones are means over the longer answers only; those that less than a quarter of the prompts "
        f"have are not drawn, and answers are read up to token {record.facts['max_new_tokens']}."
    )


def _over_positions(record: Measured, layer: str) -> str:
    """Draw the mean component over positions: one line a condition, its spread as a band."""
    positions = _drawn(record)
    x = {i: _position(record, i) for i in positions}
    curves = {name: record.at(name, "found", layer) for name in LINES}
    random = record.at("harmful", "random", layer)[0]
    edges = [mean[i] + side * sd[i] for mean, sd in curves.values() for i in positions for side in (-1, 1)]
    axes = _axes(record, svg.padded([*edges, *(random[i] for i in positions)]), height=300)
    marks = [_frame(record, axes, svg.ticks(*axes.y)), axes.horizontal(0, "base", "0")]
    marks.append(axes.line([(x[i], random[i]) for i in positions], svg.GREY))
    for name, colour in LINES.items():
        mean, sd = curves[name]
        marks += [axes.band([(x[i], mean[i], sd[i]) for i in positions], colour)]
        marks.append(axes.line([(x[i], mean[i]) for i in positions], colour))
        for i in positions:
            n = record.facts["n at"][name][i]
            told = f"{name}, position {_label(record, str(x[i]))}: {number(mean[i])} ± {number(sd[i])} (n = {n})"
            marks.append(axes.mark((x[i], mean[i]), told, colour, shape=svg.SHAPES[colour]))
    return axes.picture(f"Token by token, before layer {layer}", "component along it, mean ± 1 sd over prompts", marks)


def _over_layers(record: Measured) -> str:
    """Draw the difference of the two kinds of prompts at every layer and position: more is orange, less is blue."""
    positions, layers = _drawn(record), record.axes["layer"]
    apart = {layer: _apart(record, "found", layer) for layer in layers}
    most = max(abs(row[i]) for row in apart.values() for i in positions) or 1.0
    axes = _axes(record, (0.0, float(len(layers))), height=300)
    marks = [
        axes.cell(
            (_position(record, i) - 0.5, y),
            (_position(record, i) + 0.5, y + 1),
            f"layer {layer}, position {_label(record, record.axes['position'][i])}: {number(apart[layer][i])}",
            svg.fill(1 if apart[layer][i] > 0 else 0, abs(apart[layer][i]) / most),
        )
        for y, layer in enumerate(layers)
        for i in positions
    ]
    step = -(-len(layers) // 12)
    rows = [
        axes.text((axes.x[0], y + 0.5), layer, dx=-6, dy=4, anchor="end")
        for y, layer in enumerate(layers)
        if layer == layers[-1] or (y % step == 0 and len(layers) - 1 - y >= step)
    ]
    note = f"difference of means, before each layer; full colour: ±{number(round(most, 1))}"
    return axes.picture("Harmful − harmless, every layer", note, [*marks, _frame(record, axes, ()), *rows])


def _axes(record: Measured, y: tuple[float, float], *, height: int) -> Axes:
    x = [_position(record, i) for i in _drawn(record)]
    return Axes((x[0] - 0.5, x[-1] + 0.5), y, height=height)


def _frame(record: Measured, axes: Axes, ticks: Sequence[float]) -> str:
    """Draw the scales, the template behind the instruction, and where the answer begins."""
    first, last = axes.x
    shown = [x for x in range(round(first), round(last) + 1) if x % 5 == 0]
    template = axes.shade(max(first, _template(record) - 0.5), -0.5, "the template after the instruction")
    grid = axes.scales(shown, ticks, x_name="position (0: the answer's first token)")
    return grid + (template if ticks else "") + axes.vertical(-0.5, "limit")


def _tokens(record: Measured, name: str, layer: str) -> str:
    """Return the first texts of a condition with every token coloured by its component."""
    every, at = record.facts["examples"], record.axes["layer"].index(layer)
    most = max((abs(x) for texts in every.values() for text in texts for x in text["component"][at]), default=0) or 1.0
    texts = "".join(f"<p>{_coloured(text, text['component'][at], most)}</p>" for text in every[name])
    folded = "" if name in FOLDED else " open"
    return (
        f'<details class="trace"{folded}><summary>{escape(_capital(CALLED[name]))}, token by token</summary>{texts}'
        f'<p class="fine">Before layer {layer}. Orange along the direction, blue against it, in full colour '
        f"±{number(round(most, 1))}; the bar is where the answer begins.</p></details>"
    )


def _coloured(text: Row, components: Iterable[float], most: float) -> str:
    spans = []
    for i, (token, value) in enumerate(zip(text["tokens"], components, strict=True)):
        spans += ['<b class="begins"></b>'] if i == text["answer"] else []
        share = abs(value) / most
        paint = f"color-mix(in srgb, var(--c{1 if value > 0 else 0}) {100 * share:.0f}%, transparent)"
        style = f' style="background: {paint}"' if share >= FAINTEST else ""
        shown = visible(token.replace("\n", "↵")) or "∅"
        spans.append(f'<span title="{minus(f"{value:+.4g}")}"{style}>{shown}</span>')
    return "".join(spans)


def _drawn(record: Measured) -> list[int]:
    """Return which positions enough prompts of every condition have."""
    enough = {name: LEAST * n for name, n in record.n.items()}
    at = record.facts["n at"]
    return [i for i in range(len(record.axes["position"])) if all(at[name][i] >= enough[name] for name in enough)]


def _apart(record: Measured, vector: str, layer: str) -> list[float]:
    a, b = (record.at(name, vector, layer)[0] for name in ("harmful", "harmless"))
    return [x - y for x, y in zip(a, b, strict=True)]


def _told(record: Measured, name: str, vector: str, layer: str, at: int) -> str:
    mean, sd = record.at(name, vector, layer)
    return f"{signed(mean[at], '+.1f')} ± {sd[at]:.1f}"


def _position(record: Measured, at: int) -> int:
    return int(record.axes["position"][at])


def _template(record: Measured) -> int:
    """Return the position of the first token of the template behind the instruction."""
    return -len(record.facts["post-instruction"])


def _label(record: Measured, position: str) -> str:
    """Return a position, with its token where all prompts share it."""
    tokens = record.facts["post-instruction"]
    shared = f" {tokens[int(position)]!r}" if _template(record) <= int(position) < 0 else ""
    return minus(position) + shared


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
