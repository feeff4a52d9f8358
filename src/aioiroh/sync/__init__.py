"""The package for programs that block: the same names, without `await`.

Everything here is derived from the asynchronous package (see `facade`) and runs on a loop of its own in
a background thread, so it works in threads and also where a loop is running, as in a notebook.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .facade import Facade
from .namespace import names_of
from .portal import timeout

_ROOMS = ("blobs", "lookup")
_names, _get = names_of("aioiroh", skip=frozenset((*_ROOMS, "sync", "testing", "fsspec")))

__all__ = ["Facade", *_ROOMS, *_names, "timeout"]  # noqa: PLE0604 - they are strings


def __getattr__(name: str) -> Any:
    value = import_module(f"{__name__}.{name}") if name in _ROOMS else _get(name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
