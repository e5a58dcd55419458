"""The words that rows are written in."""

from refusal.architectures.row import Norm, Writer


def table(path: str) -> tuple[Writer, ...]:
    """An embedding or position table: one written vector a row."""
    return (Writer(f"{path}.weight", -1),)


def linear(path: str, norm: Norm | None = None, leak: str = "") -> tuple[Writer, ...]:
    """A Linear (out, in) with its bias, if it has one; `norm` is what stands between it and the stream."""
    return Writer(f"{path}.weight", -2, norm, leak), Writer(f"{path}.bias", -1, norm, leak)


def conv1d(path: str) -> tuple[Writer, ...]:
    """GPT-2's Conv1D (in, out) with its bias."""
    return Writer(f"{path}.weight", -1), Writer(f"{path}.bias", -1)


def tensor(name: str, axis: int) -> tuple[Writer, ...]:
    """A parameter of its own: a bias, or a stack of experts' matrices."""
    return (Writer(name, axis),)


def readers(root: str, *names: str) -> tuple[str, ...]:
    """All parameters of the named modules."""
    return tuple(f"{root}.{name}.*" for name in names)
