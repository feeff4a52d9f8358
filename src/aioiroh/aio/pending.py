"""Something that is being made: awaitable, and a context manager."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

__all__ = ["Pending"]


class _Closing(Protocol):
    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> object: ...


T = TypeVar("T", bound=_Closing)


class Pending(Generic[T]):
    """Makes a thing once: `thing = await pending`, or `async with pending as thing`.

    The second form closes the thing at the end of the block. Nothing happens before one of the two.
    """

    __slots__ = ("_coroutine", "_made")

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, None, T]:
        return self._coroutine.__await__()

    async def __aenter__(self) -> T:
        self._made: T = await self._coroutine
        return await self._made.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._made.__aexit__(kind, error, traceback)
