"""What a parameter of an asynchronous function expects, read from its annotation."""

from __future__ import annotations

import builtins
import inspect
import types
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any, Union, get_args, get_origin

__all__ = ["Kind", "described"]


class Kind(Enum):
    """How an argument is handed over."""

    VALUE = "value"
    HANDLER = "handler"
    """A function whose result is awaited."""
    STREAM = "stream"
    """An asynchronous iterable."""


class _Unknown:
    """Stands for a name that only type checkers know."""

    def __class_getitem__(cls, _: object) -> type[_Unknown]:
        return cls


class _Names(Mapping[str, Any]):
    """The names that an annotation may use."""

    def __init__(self, module: Mapping[str, Any]) -> None:
        self._module = module

    def __getitem__(self, name: str) -> Any:
        if name in self._module:
            return self._module[name]
        return getattr(builtins, name, _Unknown)

    def __iter__(self) -> Any:
        return iter(self._module)

    def __len__(self) -> int:
        return len(self._module)


def described(function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, Kind]]:
    """The signature of a function or class, and how each argument is handed over."""
    if inspect.ismethod(function) or getattr(function, "__closure__", None):
        return _read(function)  # kept in a table, it would keep what it is bound to
    return _known(function)


def _read(function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, Kind]]:
    signature = inspect.signature(function)
    made = isinstance(function, type)
    definition = inspect.getattr_static(function, "__init__") if made else inspect.unwrap(function)
    module = getattr(getattr(definition, "__func__", definition), "__globals__", {})
    names = _Names(module)
    kinds = {
        name: _kind(_evaluated(parameter.annotation, names))
        for name, parameter in signature.parameters.items()
    }
    return signature, kinds


_known = lru_cache(maxsize=None)(_read)  # as many entries as the package has functions


def _evaluated(annotation: object, names: _Names) -> object:
    if isinstance(annotation, str):
        return eval(annotation, {}, names)  # our own source, which has no other side effects
    return annotation


def _kind(hint: object) -> Kind:
    origin = get_origin(hint)
    if origin is Callable:
        return Kind.HANDLER if _is_awaitable(get_args(hint)[-1]) else Kind.VALUE
    if origin in (AsyncIterable, AsyncIterator):
        return Kind.STREAM
    for part in get_args(hint):
        kind = _kind(part)
        if kind is not Kind.VALUE:
            return kind
    return Kind.VALUE


def _is_awaitable(hint: object) -> bool:
    if get_origin(hint) in (Union, types.UnionType):
        return any(map(_is_awaitable, get_args(hint)))
    return get_origin(hint) in (Awaitable, Coroutine)
