"""Reading blobs of a local store at any place."""

from __future__ import annotations

import asyncio
import os
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from ..errors import IncompleteBlobError, NotFoundError
from ..hash import Hash

if TYPE_CHECKING:
    from aioiroh._native import Blob

    from .local import LocalStore

__all__ = ["LocalReader", "read_slowly"]

PIECE: Final = 256 * 1024
"""Bytes read before the loop gets its turn."""


async def read_slowly(handle: Blob, offset: int, n: int) -> bytes:
    """`n` bytes in pieces, so that a long read does not hold up the loop.

    IncompleteBlobError: not all of them are there.
    """
    parts: list[bytes] = []
    end = offset + n
    while offset < end:
        try:
            part = handle.read(offset, min(PIECE, end - offset))
        except ValueError as error:
            raise IncompleteBlobError(
                f"bytes from {offset} on are not in the store: {error}"
            ) from None
        if not part:
            raise IncompleteBlobError(f"the blob ends at {offset}, before {end}")
        parts.append(part)
        offset += len(part)
        if offset < end:
            await asyncio.sleep(0)
    return b"".join(parts)


class LocalReader:
    """See `BlobReader`."""

    def __init__(self, store: LocalStore, hash: Hash) -> None:
        self._store = store
        self._hash = hash
        self._handle: Blob | None = None
        self._position = 0

    async def __aenter__(self) -> Self:
        handle = await self._store.handle(self._hash)
        if handle is None:
            raise NotFoundError(f"the store has no blob {self._hash}; get or add it first")
        if not handle.size_verified:
            raise IncompleteBlobError(f"the size of blob {self._hash} is not known for sure yet")
        self._handle = handle
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._handle = None

    @property
    def _open(self) -> Blob:
        if self._handle is None:
            raise ValueError("the reader is not open; use it in `async with`")
        return self._handle

    @property
    def size(self) -> int:
        return self._open.size or 0

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise ValueError("a position before the start of the blob")
        self._position = base + offset
        return self._position

    async def read(self, n: int = -1) -> bytes:
        data = await self.read_at(self._position, n)
        self._position += len(data)
        return data

    async def read_at(self, offset: int, n: int) -> bytes:
        left = max(0, self.size - offset)
        return await read_slowly(self._open, offset, left if n < 0 else min(n, left))
