"""What each analysis inside the model found, in one sentence for a reader who goes no further."""

from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from statistics import median

from refusal.comparisons import LEVEL
from refusal.formats import brief, percent, points, signed
from refusal.labels import CLASSES, Row
from refusal.report.measured import Measured
from refusal.report.transfer import UNTOUCHED, works
from refusal.report.words import listed

APART = 0.95  # the AUROC from which on prompts are told apart
WITHOUT = 0.1  # the share of refusal below which a candidate's ablation does next to nothing
CALLED = {"MLP": "MLPs", "embedding": "the embedding"}  # kinds of parts


def _first_tokens(record: Measured) -> str:
    ids = {str(i) for i in record.facts["refusal tokens"]["ids"]}

    def share(*place: str) -> str:
        mean, _ = record.at(*place)
        return brief(sum(one for token, one in zip(record.axes["token"], mean, strict=True) if token in ids))

    return (
        f"Answers to harmful prompts begin like a refusal with probability {share('harmful', 'none', 'found')}, with "
        f"the direction ablated {share('harmful', 'ablation', 'found')} (a random one: "
        f"{share('harmful', 'ablation', 'random')}); answers to harmless ones {share('harmless', 'none', 'found')}, "
        f"with it added {share('harmless', 'addition', 'found')} (a random one: "
        f"{share('harmless', 'addition', 'random')})."
    )


def _metrics(record: Measured) -> str:
    sides = record.facts["sides"]

    def share(name: str, kind: str) -> str:
        return brief(sides[name][kind]["found"]["above"]["rate"])

    return (
        f"Before it writes a word, the model leans to refusing {share('harmful', 'none')} of the harmful and "
        f"{share('harmless', 'none')} of the harmless prompts. With the direction ablated it is "
        f"{share('harmful', 'ablation')} of the harmful ones, with it added {share('harmless', 'addition')} of the "
        "harmless ones."
    )


def _stream(record: Measured) -> str:
    def at(name: str, kind: str, vector: str) -> float:
        return record.at(name, kind, vector, "found")[0][record.layer]

    def way(name: str, other: str, kind: str, vector: str) -> str:
        start, end = (at(each, "none", "found") for each in (name, other))
        return percent((at(name, kind, vector) - start) / (end - start) if end != start else None)

    return (
        "Inside the model, adding the direction moves harmless prompts "
        f"{way('harmless', 'harmful', 'addition', 'found')} of the way to harmful ones (a random one: "
        f"{way('harmless', 'harmful', 'addition', 'random')}), and subtracting it moves harmful prompts "
        f"{way('harmful', 'harmless', 'subtraction', 'found')} of the way to harmless ones (a random one: "
        f"{way('harmful', 'harmless', 'subtraction', 'random')})."
    )


def _behaviours(record: Measured) -> str:
    kinds = record.facts["asked"]
    moved = {
        name: f"“{name}” ({points(one['tests']['ablation']['difference'])} points)"
        for name, one in kinds.items()
        if one["tests"]["ablation"]["p_value"] < LEVEL
    }
    random = sum(one["tests"]["random_ablation"]["p_value"] < LEVEL for one in kinds.values())
    return (
        f"Of {len(kinds)} other things that were asked of the model, ablating the direction is shown to change the "
        f"answers to {len(moved)}{': ' + listed([*moved.values()]) if moved else ''}; a random direction to {random}."
    )


def _base_and_chat(record: Measured) -> str:
    (chat, base), at = (_gap(record, reading, "found") for reading in ("chat", "base")), record.layer
    chance = record.facts["chance"]
    if base * chat <= 0:
        return "What the direction tells apart in the chat model is not in its base model."
    beyond = abs(base) > chance["largest difference"]["base"][at]
    return (
        f"{brief(base / chat)} of what the direction tells apart in the chat model is in its base model already, "
        f"{'more than' if beyond else 'no more than what'} any of {chance['draws']} random directions "
        f"{'does' if beyond else 'may do'}."
    )


def _gap(record: Measured, *place: str) -> float:
    harmful, harmless = (record.at(name, *place)[0][record.layer] for name in CLASSES)
    return harmful - harmless


def _transfer(record: Measured) -> str:
    rates, source = record.facts["rates"], next(iter(record.facts["sources"]))
    said = []
    for change, does in (("ablated", "takes refusal away"), ("added", "brings refusal about")):
        tried = {name: by[change] for name, by in rates.items() if name != source and source in by[change]}
        done = [name for name, by in tried.items() if works(by[source], by[UNTOUCHED], change)]
        rest = [name for name in tried if name not in done]
        where = f"also in {listed(done)}" if done else "nowhere else"
        said.append(f"{change} it {does} {where}{f', not in {listed(rest)}' if done and rest else ''}")
    notes = [f"“{name}” is {one['note']}" for name, one in record.facts["targets"].items() if one["note"]]
    found = f"The direction was found in {source}: {'; '.join(said)}."
    return f"{found} Here {'; '.join(notes)}." if notes else found


def _projections(record: Measured) -> str:
    at, layer = record.place
    apart = {}
    for vector in record.axes["vector"]:
        (a, s), (b, t) = ((row[at][layer] for row in record.at(name, vector)) for name in CLASSES)
        spread = sqrt((s * s + t * t) / 2)
        apart[vector] = abs(a - b) / spread if spread else 0.0
    return (
        f"Along the direction harmful and harmless prompts lie {apart['found']:.1f} standard deviations apart, "
        f"along a random one {apart['random']:.1f}."
    )


def _separability(record: Measured) -> str:
    areas, effects = record.at("harmful", "own")[0], record.facts["effect"]["ablated"]
    known = [
        (area, effect)
        for row, scores in zip(areas, effects, strict=True)
        for area, effect in zip(row, scores, strict=True)
        if effect is not None
    ]
    good = [effect for area, effect in known if area >= APART]
    weak = sum(effect < WITHOUT for effect in good)
    ends = (
        f"ablating {weak} of these takes away less than {brief(WITHOUT)} of refusal. What tells prompts apart need not "
        "be what the model acts on."
        if weak
        else f"ablating any of these takes away {brief(WITHOUT)} of refusal or more."
    )
    if not good:
        return f"None of {len(known)} candidates tells harmful from harmless prompts well (AUROC {APART} or more)."
    return (
        f"{len(good)} of {len(known)} candidates tell harmful from harmless prompts well (AUROC {APART} or more; 1 is "
        f"always right, 0.5 is guessing), and {ends}"
    )


def _pca(record: Measured) -> str:
    cosine = abs(record.facts["cosine"]["found"][0])
    return (
        f"What these prompts differ in most (their first principal component) is {'mostly' if cosine > 0.7 else 'not'} "
        f"what the direction says: the cosine of the two is {cosine:.2f}."
    )


def _candidate_cosines(record: Measured) -> str:
    cosines = record.mean[0]
    places = [(p, i) for p, row in enumerate(cosines) for i, _ in enumerate(row)]
    pairs = [((p, i), (q, j), cosines[p][i][q][j]) for p, i in places for q, j in places if (q, j) < (p, i)]
    inside = [x for (p, _), (q, _), x in pairs if p == q and x is not None]
    across = [x for (p, i), (q, j), x in pairs if p != q and i == j and x is not None]
    told = [
        f"over the {what} {signed(median(found), '.2f')}"
        for what, found in (("layers of one position", inside), ("positions of one layer", across))
        if found
    ]
    return (
        f"How alike candidates are (median cosine: 1 is the same direction, 0 has nothing in common): {listed(told)}."
    )


def _agreement(record: Measured) -> str:
    at, layer = record.place
    (mean, _), (_, chance) = ((rows[at][layer] for rows in record.at(name)) for name in ("halves", "shuffled"))
    return (
        f"Either half of the prompts finds {'nearly the same' if mean > APART else 'another'} direction: the cosine of "
        f"the two is {mean:.2f}. With the labels shuffled it is 0 ± {chance:.2f}."
    )


def _components(record: Measured) -> str:
    wholes = record.axes["component"][: -record.facts["heads"] or None]
    (a, _), (b, _) = (record.at(name, "found") for name in CLASSES)
    apart = {label: a[i] - b[i] for i, label in enumerate(wholes)}
    whole, kinds = sum(apart.values()), {}
    for label, value in apart.items():
        kinds[label.split()[0]] = kinds.get(label.split()[0], 0.0) + value
    shares = sorted(((value / whole, kind) for kind, value in kinds.items()), reverse=True)
    told = [f"{percent(share)} by {CALLED.get(kind, kind)}" for share, kind in shares]
    return f"What tells harmful from harmless prompts along the direction is written {listed(told)}."


def _trace(record: Measured) -> str:
    layer, axis = str(record.facts["layer"]), record.axes["position"]
    counts = {name: record.facts["n at"][name] for name in CLASSES}
    (a, _), (b, _) = (record.at(name, "found", layer) for name in CLASSES)
    template = -len(record.facts["post-instruction"])
    enough = [i for i in range(len(axis)) if all(4 * counts[name][i] >= record.n[name] for name in CLASSES)]
    regions: Mapping[str, Callable[[int], bool]] = {
        "at the end of the instruction": lambda place: place < template,
        "in the template after the instruction": lambda place: template <= place < 0,
        "at the beginning of the answer": lambda place: place >= 0,
    }
    largest = {
        what: max((a[i] - b[i] for i in enough if inside(int(axis[i]))), key=abs, default=0.0)
        for what, inside in regions.items()
    }
    most = max(largest, key=lambda what: abs(largest[what]))
    rest = [f"{signed(value, '+.0f')} {what}" for what, value in largest.items() if what != most]
    return (
        f"Along the direction harmful and harmless prompts differ most {most}: by {signed(largest[most], '+.0f')}, "
        f"against {listed(rest)}."
    )


def _layers(record: Measured) -> str:
    names = record.axes["layer"]
    alone = record.at("harmful", "found", "only")[0]
    half = sum(share < 0.5 for share in alone)
    return (
        f"Ablating the direction in one block alone leaves less than half of the harmful prompts likely to be refused "
        f"at {half} of {len(names)} layers, and {brief(min(alone))} at layer {names[alone.index(min(alone))]}."
    )


def _minimal(record: Measured) -> str:
    rates, sets = record.facts["refused"]["found"], record.facts["sets"]
    kinds = [
        f"{label.removesuffix(' only')} {brief(rates[label]['rate'])}"
        for label in record.axes["ablated"]
        if label.endswith(" only")
    ]
    small = [
        f"{len(one['members'])} of {one['candidates']} {kind} ({', '.join(one['members'])})"
        for kind, one in sets.items()
        if one["members"]
    ]
    enough = f" Enough are {listed(small)}." if small else ""
    return (
        f"With the direction ablated only in what one kind of part writes, the model refuses: {listed(kinds)}.{enough}"
    )


def suffix(lines: Sequence[Row]) -> str:
    """Say what a suffix does, from the lines of its table."""
    found = {line["condition"]: line for line in lines}
    plain, own, random = (found[name] for name in ("Harmful", "Suffix", "Random suffix"))
    near = {name: line["cosine"].partition(" ±")[0] for name, line in found.items()}
    return (
        f"With this suffix the model refuses {own['rate']} of these harmful prompts, with random tokens in its place "
        f"{random['rate']}, without a suffix {plain['rate']}. The last token's cosine with the direction is "
        f"{near['Suffix']} with this suffix, {near['Random suffix']} with random tokens, {near['Harmful']} without a "
        f"suffix, and {near['Harmless']} on harmless prompts."
    )


FOUND: Mapping[str, Callable[[Measured], str]] = {
    "first-tokens": _first_tokens,
    "metrics": _metrics,
    "stream": _stream,
    "behaviours": _behaviours,
    "base-and-chat": _base_and_chat,
    "transfer": _transfer,
    "projections": _projections,
    "separability": _separability,
    "pca": _pca,
    "candidate-cosines": _candidate_cosines,
    "agreement": _agreement,
    "components": _components,
    "trace": _trace,
    "layers": _layers,
    "minimal": _minimal,
}
