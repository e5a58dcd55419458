"""beartype, with its checks of a function within a function written once and not whenever the outer one is called."""

from collections.abc import Callable
from typing import Any

import beartype as library

_WRITTEN: dict[Any, Callable] = {}


def beartype(stub: Callable) -> Callable:
    """Check a signature as `beartype.beartype` does; jaxtyping gives it functions that do nothing but have one."""
    if "<locals>" not in stub.__qualname__ or stub.__defaults__ or stub.__kwdefaults__:
        return library.beartype(stub)
    hints = tuple((name, repr(hint)) for name, hint in stub.__annotations__.items())  # shapes are new objects each time
    key = (stub.__module__, stub.__qualname__, hints)
    if key not in _WRITTEN:
        _WRITTEN[key] = library.beartype(stub)
    return _WRITTEN[key]
