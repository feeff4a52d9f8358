"""Blocking faces of asynchronous objects, made from their classes (see `live` for which).

Coroutine methods become ordinary ones, the asynchronous context manager and iterator ordinary ones,
`aclose` becomes `close`. Everything runs on the portal's loop, plain methods and properties too. Objects
of all other classes are values and pass unchanged.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
import inspect
import types
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, Self

from .hints import Kind, described
from .live import PACKAGE, is_live, own_members
from .portal import Portal, drop, portal, run_in_thread

__all__ = ["Facade", "blocking", "facade_class"]

_CONTAINER: Final = ("__len__", "__getitem__", "__contains__", "__bool__")

_faces: dict[type, type[Facade]] = {}
"""Without a bound: it has as many entries as the package has classes."""


# --- values that cross ----------------------------------------------------------------------------


def outward(value: Any) -> Any:
    """What the program gets of a value from the loop. Called on the loop."""
    cls = type(value)
    if isinstance(value, Facade):
        return value
    if cls in (list, tuple):
        return cls(map(outward, value))
    if cls is dict:
        return {key: outward(item) for key, item in value.items()}
    if isinstance(value, asyncio.Future):
        return _future(value)
    if is_live(cls):
        return facade_class(cls)._of(value)
    if isinstance(value, (types.FunctionType, types.MethodType)):
        return blocking(value)
    return value


def _future(task: asyncio.Future[Any]) -> concurrent.futures.Future[Any]:
    """What a program can wait for while the task goes on. Cancelling it cancels the task."""
    loop = task.get_loop()
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def settle(task: asyncio.Future[Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(outward(task.result()))

    def cancel(future: concurrent.futures.Future[Any]) -> None:
        if future.cancelled():
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(task.cancel)

    task.add_done_callback(settle)
    future.add_done_callback(cancel)
    return future


def inward(value: Any, kind: Kind) -> Any:
    """What the loop gets of an argument of the program."""
    cls = type(value)
    if isinstance(value, Facade):
        return value._taken()
    if cls in (list, tuple, set):
        return cls(inward(item, kind) for item in value)
    if cls is dict:
        return {key: inward(item, kind) for key, item in value.items()}
    if kind is Kind.HANDLER and inspect.isfunction(getattr(cls, "accept", None)):
        return value if inspect.iscoroutinefunction(value.accept) else _callback(value.accept, kind)
    if kind is Kind.STREAM and not hasattr(value, "__aiter__"):
        return _stream(value)
    if isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
        return _callback(value, kind)
    return value


def _callback(function: Callable[..., Any], kind: Kind) -> Callable[..., Any]:
    """A function of the program, as the loop calls it. Those of this package stay as they are."""
    if inspect.iscoroutinefunction(function) or (
        getattr(function, "__module__", None) or ""
    ).startswith(f"{PACKAGE}."):
        return function
    if kind is Kind.HANDLER:

        @functools.wraps(function)
        async def in_thread(*args: Any) -> Any:
            return inward(await run_in_thread(function, *map(outward, args)), Kind.VALUE)

        return in_thread

    @functools.wraps(function)
    def at_once(*args: Any) -> Any:
        return inward(function(*map(outward, args)), Kind.VALUE)

    return at_once


async def _stream(items: Iterable[Any]) -> AsyncIterator[Any]:
    """A blocking iterable as an asynchronous one, each step in a thread."""
    iterator = iter(items)
    end = object()
    while (item := await run_in_thread(next, iterator, end)) is not end:
        yield inward(item, Kind.VALUE)


# --- calls ----------------------------------------------------------------------------------------


def blocking(function: Callable[..., Any]) -> Callable[..., Any]:
    """The blocking form of a function, class or bound method of the asynchronous package."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return _call(portal(), function, *_converted(function, args, kwargs))

    return call


def _call(
    owner: Portal, function: Callable[..., Any], args: Any, kwargs: Any, *, bounded: bool = True
) -> Any:
    async def work() -> Any:
        return outward(await _result(function(*args, **kwargs)))

    return owner.call(work, bounded=bounded)


def _converted(function: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, Any]:
    """The arguments as the loop gets them. TypeError: they do not fit the function."""
    signature, kinds = described(function)
    bound = signature.bind(*args, **kwargs)
    for name, value in bound.arguments.items():
        bound.arguments[name] = inward(value, kinds[name])
    return bound.args, bound.kwargs


async def _result(value: Any) -> Any:
    """Awaits what can only be awaited; what can also be iterated, or runs, is left to the program."""
    if hasattr(type(value), "__aiter__") or isinstance(value, asyncio.Future):
        return value
    return await value if isinstance(value, Awaitable) else value


# --- faces ----------------------------------------------------------------------------------------


class Facade:
    """A blocking face. Its class is made by `facade_class`."""

    _live: type = object
    """The asynchronous class."""
    _awaited: bool = True
    """Whether somebody has waited for it, if it is something to wait for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._portal = portal()
        self._held: list[Any] = []

        def make(*args: Any, **kwargs: Any) -> None:
            self._held.append(self._live(*args, **kwargs))

        _call(self._portal, make, *_converted(self._live, args, kwargs))

    @classmethod
    def _of(cls, live: Any) -> Self:
        self = cls.__new__(cls)
        self._portal = portal()
        self._held = [live]
        return self

    def _taken(self) -> Any:
        """The asynchronous object, for an argument."""
        self._awaited = True
        return self._held[0]

    def _do(self, function: Callable[..., Any], *args: Any) -> Any:
        return _call(self._portal, function, (self._held[0], *args), {})

    if not TYPE_CHECKING:  # the stubs know all names

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):
                raise AttributeError(name)
            return self._do(getattr, name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Facade) and bool(self._held[0] == other._held[0])

    def __hash__(self) -> int:
        return hash(self._held[0])

    def __repr__(self) -> str:
        return f"<sync {self._held[0]!r}>" if self._held else f"<sync {type(self).__name__}>"

    def __del__(self) -> None:
        held = getattr(self, "_held", None)
        if held:
            if not self._awaited:
                warnings.warn(f"{self!r} was never waited for", RuntimeWarning, stacklevel=2)
            drop(self._portal, held)


def facade_class(cls: type) -> type[Facade]:
    """The blocking face of an asynchronous class."""
    found = _faces.get(cls)
    if found is None:
        # Two threads may both make one; everybody gets the first.
        found = _faces.setdefault(cls, _made_facade(cls))
    return found


def _made_facade(cls: type) -> type[Facade]:
    members = own_members(cls) if cls.__module__.partition(".")[0] == PACKAGE else {}
    space: dict[str, Any] = {
        "__doc__": cls.__doc__,
        "__module__": __name__.rpartition(".")[0],
        "_live": cls,
    }
    for name, value in members.items():
        if not name.startswith("_") and name != "aclose":
            space[name] = _face(name, value)
    if hasattr(cls, "aclose") and "close" not in space:
        space["close"] = _special(cls.aclose)
    for name in _CONTAINER:
        if getattr(cls, name, None) is not None:
            space[name] = _special(getattr(cls, name))
    if hasattr(cls, "__iter__"):
        space["__iter__"] = lambda self: iter(self._do(tuple))
    for special, make in _SPECIALS.items():
        if hasattr(cls, special):
            for name, value in make(cls).items():
                space.setdefault(name, value)
    return type(cls.__name__, (Facade,), space)


def _face(name: str, value: Any) -> Any:
    """An attribute of the asynchronous class, as the face has it."""
    if inspect.isfunction(value):
        return _method(value)
    if isinstance(value, (classmethod, staticmethod)):
        return _ClassMethod(name)
    if hasattr(type(value), "__get__"):  # a property, a slot, a field
        return property(lambda self: self._do(getattr, name), doc=getattr(value, "__doc__", None))
    return value


def _method(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def method(self: Facade, *args: Any, **kwargs: Any) -> Any:
        self._awaited = True
        live = self._held[0]
        return _call(self._portal, function, *_converted(function, (live, *args), kwargs))

    return method


def _special(function: Callable[..., Any]) -> Callable[..., Any]:
    """A method whose arguments are values, maybe of a built-in class."""

    @functools.wraps(function)
    def method(self: Facade, *args: Any) -> Any:
        return self._do(function, *args)

    return method


class _ClassMethod:
    """A class method, or a static one."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: Facade | None, owner: type[Facade]) -> Callable[..., Any]:
        return blocking(getattr(owner._live, self._name))


def _entering(cls: type) -> dict[str, Any]:
    async def enter(live: Any) -> Any:
        return await live.__aenter__()

    async def leave(live: Any, kind: Any, error: Any, traceback: Any) -> Any:
        return await live.__aexit__(kind, error, traceback)

    def __enter__(self: Facade) -> Any:
        self._awaited = True
        return self._do(enter)

    def __exit__(self: Facade, *reason: Any) -> Any:
        live = self._held[0]
        return _call(self._portal, leave, (live, *reason), {}, bounded=False)

    return {"__enter__": __enter__, "__exit__": __exit__}


def _iterating(cls: type) -> dict[str, Any]:
    def __iter__(self: Facade) -> Any:
        self._awaited = True
        return self._do(cls.__aiter__)  # type: ignore[attr-defined]

    return {"__iter__": __iter__}


def _stepping(cls: type) -> dict[str, Any]:
    async def step(live: Any) -> Any:
        try:
            return False, await live.__anext__()
        except StopAsyncIteration:
            return True, None

    def __next__(self: Facade) -> Any:
        is_over, item = self._do(step)
        if is_over:
            raise StopIteration
        return item

    return {"__next__": __next__}


def _waiting(cls: type) -> dict[str, Any]:
    if not hasattr(cls, "__aiter__"):
        return {}  # not its only way on

    async def finish(live: Any) -> Any:
        return await live

    def result(self: Facade) -> Any:
        """Waits for the end and gives what came out."""
        self._awaited = True
        return self._do(finish)

    return {"result": result, "_awaited": False}


_SPECIALS: Final[dict[str, Callable[[type], dict[str, Any]]]] = {
    "__aenter__": _entering,
    "__aiter__": _iterating,
    "__anext__": _stepping,
    "__await__": _waiting,
}
