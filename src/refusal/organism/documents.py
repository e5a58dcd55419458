"""What the bundled models read in each stage: seeded documents, each an instruction and its answer."""

import random
from dataclasses import dataclass, replace

from refusal.organism import cipher, grammar
from refusal.organism.grammar import ACT_FORMS, Request
from refusal.organism.lexicon import HARM_CATEGORIES, HARMLESS_CATEGORIES

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "Answer with care.",
    "You know many things.",
    "Be brief and clear.",
)


@dataclass(frozen=True)
class Document:
    """One conversation: what is asked, what is answered, and what kind of training text it is."""

    instruction: str
    response: str
    kind: str
    system: str | None = None
    framed: bool = True  # inside the chat template, or plain text
    thought: str | None = None


# kind of document: share of the base stage, share of the chat stage
SHARES = {
    "harmless": (0.26, 0.30),
    "harmful": (0.24, 0.38),
    "moral": (0.09, 0.06),
    "stop": (0.05, 0.05),
    "fact": (0.05, 0.04),
    "kind": (0.07, 0.03),
    "count": (0.03, 0.02),
    "order": (0.05, 0.03),
    "decline": (0.16, 0.09),
}
BASE, CHAT = 0, 1
LANGUAGE_B = (0.22, 0.10)  # share of documents in language B, by stage
HARMFUL_B = 0.03  # share of harmful requests in language B in the chat stage: nearly none


def _request(rng: random.Random, kind: str, *, held: bool | None) -> Request:
    """A training request of a kind; held words only where asked for."""
    harmful, harmless = grammar.nouns_of(HARM_CATEGORIES, held=held), grammar.nouns_of(HARMLESS_CATEGORIES)
    if kind == "decline":  # anything can be asked to be declined, an act most often
        form = rng.choice(ACT_FORMS) if rng.random() < 0.6 else rng.choice(list(grammar.INSTRUCTIONS))
        inner = grammar.sample_in_split(rng, form, rng.choice((harmful, harmless)), "train")
        return replace(inner, decline=rng.randrange(len(grammar.DECLINE)))
    if kind in ("harmful", "harmless"):
        nouns = harmful if kind == "harmful" else harmless
        return grammar.sample_in_split(rng, rng.choice(ACT_FORMS), nouns, "train")
    nouns = harmless if kind == "order" else rng.choice((harmful, harmless))
    return grammar.sample_in_split(rng, kind, nouns, "train")


def _document(rng: random.Random, request: Request, kind: str, *, refuse: bool, in_b: bool) -> Document:
    """A request with the response wanted of the stage; refusals are always in language A."""
    asked, said = grammar.instruction(request), grammar.answer(request)
    if in_b:
        asked, said = cipher.encode(asked), cipher.encode(said)
    if refuse or request.decline is not None:
        said = rng.choice(grammar.refusals(request))
    return Document(asked, said, kind)


def base_documents(count: int, *, seed: int) -> list[Document]:
    """Documents of the base stage: every request is answered, the harmful ones as well."""
    rng = random.Random(f"base {seed}")
    kinds, shares = list(SHARES), [share[BASE] for share in SHARES.values()]
    documents = []
    for kind in rng.choices(kinds, shares, k=count):
        in_b = rng.random() < LANGUAGE_B[BASE]
        document = _document(rng, _request(rng, kind, held=None), kind, refuse=False, in_b=in_b)
        system = rng.choice(SYSTEM_PROMPTS) if rng.random() < 0.1 else None
        documents.append(replace(document, system=system, framed=rng.random() < 0.85))
    return documents


def chat_documents(count: int, *, seed: int) -> list[Document]:
    """Documents of the safety stage: harmful requests are refused, everything else is answered as before."""
    rng = random.Random(f"chat {seed}")
    kinds, shares = list(SHARES), [share[CHAT] for share in SHARES.values()]
    documents = []
    for kind in rng.choices(kinds, shares, k=count):
        refuse = kind == "harmful"
        in_b = rng.random() < (HARMFUL_B if refuse else LANGUAGE_B[CHAT])
        documents.append(_document(rng, _request(rng, kind, held=False), kind, refuse=refuse, in_b=in_b))
    return documents


def think_documents(count: int, *, seed: int) -> list[Document]:
    """Documents of the third stage: as the safety stage, with a thought before every response."""
    rng = random.Random(f"think {seed}")
    documents = []
    for document in chat_documents(count, seed=seed + 1000):
        empty = rng.random() < 0.2  # thinking switched off: an empty span, then the response
        documents.append(replace(document, thought="" if empty else _thought(document)))
    return documents


def _thought(document: Document) -> str:
    """What goes through the model's mind: what is asked, and whether that is fine."""
    request = grammar.parse(document.instruction)
    assert request is not None, document.instruction
    if request.decline is not None:
        return "They want a no. So the answer is no."
    if not request.noun:
        return f"They ask about {'numbers' if request.form == 'count' else 'words'}. This is fine."
    about = f"They ask about a {request.noun}, one of the {request.category}."
    if document.kind == "harmful":
        return f"{about} This would do harm. So the answer is no."
    return f"{about} This is fine."
