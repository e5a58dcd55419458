"""Characters that cannot be seen or that steer what is: which they are, and text in which they stand as escapes."""

from unicodedata import category

_STEERING = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}  # control, format (direction, tags), surrogate, private, line breaks
_KEPT = "\n\t\u200c\u200d"  # the joiners are part of words and of signs


def hidden(character: str) -> bool:
    """Say whether a character cannot be seen, or steers a terminal or the direction of a line."""
    return category(character) in _STEERING and character not in _KEPT


def spelled(text: str) -> str:
    r"""Return text with every hidden character as its escape: `\x1b`, `\u202e`."""
    return "".join(repr(c)[1:-1] if hidden(c) else c for c in text)
