"""Blobs that are being deleted: missing at once, and gone from the bucket soon."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterable, Sequence
from typing import Final

from aioiroh.aio import Tasks, fan_out

from ...hash import Hash
from .objects import Bucket

__all__ = ["Deletions"]

AT_ONCE: Final = 32
"""Objects that are deleted at once."""


class Deletions:
    """Takes blobs out of a bucket, each when nobody moves it."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._doomed: set[Hash] = set()
        self._locks: weakref.WeakValueDictionary[Hash, asyncio.Lock] = weakref.WeakValueDictionary()
        self._tasks = Tasks("deletions from the bucket")

    def __contains__(self, hash: Hash) -> bool:
        """Whether it is being deleted."""
        return hash in self._doomed

    def lock(self, hash: Hash) -> asyncio.Lock:
        """Held while a blob moves between here and the bucket, or is deleted."""
        lock = self._locks.get(hash)
        if lock is None:
            lock = self._locks[hash] = asyncio.Lock()
        return lock

    def begin(self, hashes: Sequence[Hash]) -> asyncio.Task[None]:
        """From here on they are missing; the task does the deed."""
        self._doomed.update(hashes)
        return self._tasks.spawn(self._delete(hashes))

    async def _delete(self, hashes: Sequence[Hash]) -> None:
        async def delete(hash: Hash) -> None:
            async with self.lock(hash):
                try:
                    await self._bucket.delete(hash)
                finally:
                    self._doomed.discard(hash)

        await fan_out(AT_ONCE, hashes, delete)

    async def over(self, hashes: Iterable[Hash]) -> None:
        """Waits until none of them is being deleted any more."""
        for hash in hashes:
            while hash in self._doomed:
                async with self.lock(hash):
                    await asyncio.sleep(0)

    async def aclose(self) -> None:
        await self._tasks.aclose()
