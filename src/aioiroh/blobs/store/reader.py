"""Reading blobs of a local store at any place."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from ..errors import IncompleteBlobError, NotFoundError
from ..hash import Hash

if TYPE_CHECKING:
    from aioiroh._native import Blob

    from .local import LocalStore
    from .worker import DiskWorker

__all__ = ["PIECE", "LocalReader", "read_slowly"]

PIECE: Final = 256 * 1024
"""Bytes read before the loop gets its turn."""
AT_ONCE: Final = 64 * 1024
"""Bytes up to which a read takes less time than another thread would."""


async def read_slowly(handle: Blob, offset: int, n: int, worker: DiskWorker | None = None) -> bytes:
    """`n` bytes in pieces, so that a long read does not hold up the loop; with `worker` large pieces
    are read beside it, for data that may be in a file.

    IncompleteBlobError: not all of them are there.
    """
    parts: list[bytes] = []
    end = offset + n
    while offset < end:
        length = min(PIECE, end - offset)
        try:
            if worker is not None and length > AT_ONCE:
                part = await worker.call(partial(handle.read, offset, length))
            else:
                part = handle.read(offset, length)
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

    def __init__(self, store: LocalStore, hash: Hash, wait: bool) -> None:
        self._store = store
        self._hash = hash
        self._wait = wait
        self._handle: Blob | None = None
        self._position = 0

    async def __aenter__(self) -> Self:
        if self._wait:
            async for status in self._store.observe(self._hash):
                if status.size_verified:
                    break
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
        n = left if n < 0 else min(n, left)
        if not self._wait:
            return await read_slowly(self._open, offset, n, self._store.worker)
        return await self._read_when_there(offset, n)

    async def _read_when_there(self, offset: int, n: int) -> bytes:
        # The first status comes at once, the others as pieces arrive.
        async for _ in self._store.observe(self._hash):
            # The blob may have moved, from where it arrives to where it stays.
            self._handle = await self._store.handle(self._hash) or self._open
            try:
                return await read_slowly(self._open, offset, n, self._store.worker)
            except IncompleteBlobError:
                continue
        raise IncompleteBlobError(f"the store was closed while blob {self._hash} was read")
