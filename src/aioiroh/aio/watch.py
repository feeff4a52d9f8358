"""A value that changes, and waiting for its changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar

from aioiroh.errors import AioirohError

__all__ = ["Watch"]

T = TypeVar("T")


class Watch(Generic[T]):
    """The latest value of something.

    A watcher sees the latest value, not every value: changes that come faster than it looks
    coalesce, so a slow watcher costs nothing. Belongs to one event loop.
    """

    __slots__ = ("_error", "_value", "_version", "_waiting")

    def __init__(self, initial: T) -> None:
        self._value = initial
        self._version = 0
        self._error: Exception | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def value(self) -> T:
        """The latest value."""
        return self._value

    @property
    def version(self) -> int:
        """Counts the changes; for `changed`."""
        return self._version

    @property
    def closed(self) -> bool:
        """Whether the value can change no more."""
        return self._error is not None

    def set(self, value: T) -> None:
        """Put a new value in place. Nobody wakes if it equals the old one; ignored once closed."""
        if self._error is None and not (value is self._value or value == self._value):
            self._value = value
            self._version += 1
            self._wake()

    def close(self, error: Exception | None = None) -> None:
        """No change will come: iteration ends, waiting raises `error` (default AioirohError)."""
        if self._error is None:
            self._error = error or AioirohError("nothing changes any more: what was watched closed")
            self._wake()

    async def changed(self, since: int) -> T:
        """The value as soon as its version is not `since`. Raises what `close` was given."""
        while self._version == since:
            if self._error is not None:
                raise self._error
            await self._wait()
        return self._value

    async def wait_for(self, predicate: Callable[[T], object]) -> T:
        """The first value seen for which `predicate` holds. Raises what `close` was given."""
        while not predicate(self._value):
            await self.changed(self._version)
        return self._value

    async def __aiter__(self) -> AsyncIterator[T]:
        """The value now, then the latest value after each change; ends when closed."""
        seen = self._version
        yield self._value
        while True:
            while self._version == seen:
                if self._error is not None:
                    return
                await self._wait()
            seen = self._version
            yield self._value

    async def _wait(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)

    def __repr__(self) -> str:
        return f"Watch({self._value!r})"
