"""Reading blobs at any place in the bucket, verified piece by piece."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Self

from ...errors import IncompleteBlobError, NotFoundError
from ...hash import Hash
from ...ranges import GROUP_SIZE
from ..reader import LocalReader
from .objects import Bucket

if TYPE_CHECKING:
    from ..local import LocalStore

__all__ = ["GROUPS", "BucketReader", "read_range"]

GROUPS: Final = 64
"""Chunk groups (1 MiB) in one request: what is verified before the loop gets its turn."""


async def read_range(bucket: Bucket, hash: Hash, size: int, offset: int, n: int) -> bytes:
    """`n` bytes of a blob of `size` bytes from `offset` on, which all exist."""
    if n <= 0:
        return b""
    parts: list[bytes] = []
    first, end = offset // GROUP_SIZE, -(-(offset + n) // GROUP_SIZE)
    for start in range(first, end, GROUPS):
        parts.append((await bucket.groups(hash, size, start, min(start + GROUPS, end))).data)
        await asyncio.sleep(0)
    skip = offset - first * GROUP_SIZE
    return b"".join(parts)[skip : skip + n]


class BucketReader(LocalReader):
    """Reads here what is here, and in the bucket what is there."""

    def __init__(self, bucket: Bucket, local: LocalStore, hash: Hash, wait: bool) -> None:
        super().__init__(local, hash, wait)
        self._bucket = bucket
        self._size: int | None = None
        """Size of the blob in the bucket, if it is read there."""

    async def __aenter__(self) -> Self:
        if not (await self._store.status(self._hash)).is_complete:
            self._size = await self._bucket.size(self._hash)
        return self if self._size is not None else await super().__aenter__()

    @property
    def size(self) -> int:
        return super().size if self._size is None else self._size

    async def read_at(self, offset: int, n: int) -> bytes:
        if self._size is None:
            try:
                return await super().read_at(offset, n)
            except (OSError, NotFoundError, IncompleteBlobError):
                # It may have moved to the bucket meanwhile.
                self._size = await self._bucket.size(self._hash)
                if self._size is None:
                    raise
        left = max(0, self._size - offset)
        n = left if n < 0 else min(n, left)
        return await read_range(self._bucket, self._hash, self._size, offset, n)
