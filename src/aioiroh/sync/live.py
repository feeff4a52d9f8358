"""Which classes have a blocking face: those with anything asynchronous about them."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from enum import Enum
from typing import Any, Final

__all__ = ["PACKAGE", "is_live", "own_members"]

PACKAGE: Final = "aioiroh"
LOOP_BOUND: Final = frozenset((f"{PACKAGE}.metrics.Metrics", f"{PACKAGE}.blobs.store.tags.Tags"))
"""Classes without asynchronous methods whose objects belong to the loop all the same."""
GIVEN: Final = frozenset((f"{PACKAGE}.hooks.Hook", f"{PACKAGE}.lookup.service.LookupService"))
"""Classes, with what derives from them, whose objects a program makes for the loop to use."""

_ASYNC_SPECIALS: Final = ("__await__", "__aenter__", "__aiter__", "__anext__")
_ASYNC_RESULT = re.compile(r"(Coroutine|Awaitable|AsyncIterator|AsyncGenerator|Pending|Opening)\[")

_known: dict[type, bool] = {}
"""Without a bound: it has as many entries as the package has classes."""


def is_live(cls: type) -> bool:
    """Whether objects of the class get a face."""
    found = _known.get(cls)
    if found is None:
        found = _known[cls] = _is_live(cls)
    return found


def _is_live(cls: type) -> bool:
    if _path(cls) in LOOP_BOUND:
        return True
    if issubclass(cls, (BaseException, Enum)) or any(
        map(GIVEN.__contains__, map(_path, cls.__mro__))
    ):
        return False
    if cls.__module__.partition(".")[0] != PACKAGE:
        return issubclass(cls, (AsyncIterator, AbstractAsyncContextManager))
    return any(
        name in _ASYNC_SPECIALS or _is_asynchronous(value)
        for name, value in own_members(cls).items()
        if name in _ASYNC_SPECIALS or not name.startswith("_")
    )


def _path(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def own_members(cls: type) -> dict[str, Any]:
    """Attributes that the class and its bases in this package define."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        if base.__module__.partition(".")[0] == PACKAGE:
            found |= vars(base)
    return found


def _is_asynchronous(value: object) -> bool:
    function = getattr(value, "__func__", value)
    if not inspect.isfunction(function):
        return False
    return (
        inspect.iscoroutinefunction(function)
        or inspect.isasyncgenfunction(function)
        or _ASYNC_RESULT.match(str(function.__annotations__.get("return", ""))) is not None
    )
