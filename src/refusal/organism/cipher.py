"""Language B: every word of language A replaced by an invented one, by a fixed one-to-one dictionary.

The dictionary is drawn over the *sorted* words, so it cannot depend on the order in which tables are written
or texts are met.
"""

import random
import re
from functools import cache

from refusal.organism import lexicon

_GRAMMAR = (
    "a about an and around asks away backwards because bring by call count dear decline do does explain "
    "fine for found from give goes guards how i into is it keep leave list made make me meet message need "
    "no note numbers of once people please refuse request rested say send should some somebody spot steps "
    "stop story stuff take takes tale tell that the then these they things this three to tries trying "
    "turn up used want wanted wants what where which who with words write wrong yes you your there here "
    "before put first answer refusal down kind thing belong belongs"
)
_ONSETS = [
    "b",
    "d",
    "f",
    "g",
    "h",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "v",
    "z",
    "br",
    "dr",
    "gl",
    "kr",
    "pl",
    "sk",
    "th",
    "tr",
    "zh",
]
_VOWELS = ["a", "e", "i", "o", "u", "ai", "oa", "ei"]
_CODAS = ["", "l", "m", "n", "r", "s", "k"]
_WORD = re.compile(r"[A-Za-z]+")


def _language_a_words() -> list[str]:
    """Every word language A can say, sorted."""
    words = set(_GRAMMAR.split())
    for domain in lexicon.DOMAINS.values():
        words |= {word for verb in domain.verbs for word in (verb.name, verb.step, verb.tool)}
        words |= {word for noun in domain.nouns for word in (noun.name, noun.material)}
        words |= {domain.name, *domain.reason.split()}
    for phrase in (*lexicon.PLACES, *lexicon.PLACES.values(), *lexicon.PEOPLE, *lexicon.NUMBERS):
        words |= set(phrase.split())
    return sorted(words | {name.lower() for name in lexicon.NAMES})


@cache
def dictionary() -> dict[str, str]:
    """Language A to language B, lower case, one to one, sharing no word with A."""
    known, rng = _language_a_words(), random.Random("refusal organism language B")
    taken, pairs = set(known), {}
    for word in known:
        while (new := _invent(rng)) in taken:
            pass
        taken.add(new)
        pairs[word] = new
    return pairs


def _invent(rng: random.Random) -> str:
    return "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(2)) + rng.choice(_CODAS)


@cache
def _inverse() -> dict[str, str]:
    return {new: word for word, new in dictionary().items()}


def encode(text: str) -> str:
    """A text of language A in language B; capitals and punctuation stay, unknown words stay."""
    return _WORD.sub(lambda match: _swap(match[0], dictionary()), text)


def decode(text: str) -> str:
    """A text of language B in language A; unknown words stay."""
    return _WORD.sub(lambda match: _swap(match[0], _inverse()), text)


def _swap(word: str, table: dict[str, str]) -> str:
    new = table.get(word.lower(), word.lower())
    return new.capitalize() if word[0].isupper() else new


def is_ciphered(text: str) -> bool:
    """Whether most words of a text are words of language B."""
    words = [word.lower() for word in _WORD.findall(text)]
    return sum(word in _inverse() for word in words) * 2 > len(words)
