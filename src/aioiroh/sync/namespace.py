"""The names of an asynchronous module, each in its blocking form."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from .facade import blocking, facade_class
from .live import is_live

__all__ = ["blocking_module"]


def blocking_module(
    module: str, *, without: Sequence[str] = (), rooms: Sequence[str] = (), own: Sequence[str] = ()
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """`__all__`, `__getattr__` and `__dir__` of the blocking form of `module`.

    `without`: names that have none. `rooms`: modules that have one in this package. `own`: names that
    the blocking form has besides.
    """
    source = import_module(module)
    names = [name for name in source.__all__ if name not in (*without, *rooms)]

    @cache
    def get(name: str) -> Any:
        if name in rooms:
            return import_module(f"{__package__}.{name}")
        if name not in names:
            raise AttributeError(f"there is no blocking form of {module}.{name}")
        value = getattr(source, name)
        if inspect.isclass(value) and is_live(value):
            return facade_class(value)
        return blocking(value) if inspect.isfunction(value) else value

    everything = [*names, *rooms, *own]
    return everything, get, lambda: sorted(everything)
