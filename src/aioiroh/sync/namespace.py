"""The names of an asynchronous module, each in its blocking form."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

from .facade import blocking, facade_class
from .live import is_live

__all__ = ["names_of"]


def names_of(module: str, skip: frozenset[str]) -> tuple[list[str], Callable[[str], Any]]:
    """The public names of `module` but those in `skip`, and what gives the blocking form of one."""
    source = import_module(module)
    names = [name for name in source.__all__ if name not in skip]

    def get(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"there is no blocking form of {module}.{name}")
        value = getattr(source, name)
        if inspect.isclass(value) and is_live(value):
            return facade_class(value)
        if inspect.isfunction(value):
            return blocking(value)
        return value

    return names, get
