"""One of the parties that fill a blob on its way to a bucket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from aioiroh import _native

from ..interface import BlobWriter

__all__ = ["StagedWriter"]


class StagedWriter:
    """See `BlobWriter`. Writes into the staging folder; `on_left` is awaited at the end."""

    def __init__(self, writer: BlobWriter, on_left: Callable[[], Awaitable[None]]) -> None:
        self._writer = writer
        self._on_left = on_left

    @property
    def handle(self) -> _native.Blob:
        return self._writer.handle

    def advanced(self) -> None:
        self._writer.advanced()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._writer.__aexit__(kind, error, traceback)
        finally:
            await self._on_left()
