"""What of a bucket is here, too: whole blobs in the store of the folder, parts of large ones beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final, TypeVar

from aioiroh import _native
from aioiroh.aio import fan_out

from ...errors import StorageError
from ...hash import Hash
from ...ranges import ChunkRanges
from ..file.store import FileStore
from ..interface import Pieces
from .cache import Cache
from .deleting import Deletions
from .objects import Bucket
from .parts import Parts
from .streaming import Streamed

__all__ = ["Copies"]

T = TypeVar("T")

LARGE: Final = 8 * 1024 * 1024
"""Blobs up to this many bytes come whole, and are kept here for a while."""
AT_ONCE: Final = 32
"""Blobs that are brought at once."""


class Copies:
    """Brings blobs from the bucket, and lets go of those that were not used for long."""

    def __init__(
        self,
        bucket: Bucket,
        local: FileStore,
        parts: Parts,
        limit: int,
        deletions: Deletions,
        writing: Counter[Hash],
    ) -> None:
        """`limit`: bytes of whole blobs. `writing`: how many write each blob; those stay."""
        self._bucket = bucket
        self._local = local
        self._parts = parts
        self._cache = Cache(limit)
        self._deletions = deletions
        self._writing = writing

    async def handles(self, hashes: Sequence[Hash]) -> list[_native.Blob | None]:
        """What is only in the bucket is brought here first."""
        found = await self._local.handles(hashes)

        async def one(index: int) -> None:
            await self.bring(hashes[index])
            found[index] = await self._local.handle(hashes[index])

        await fan_out(AT_ONCE, _absent(found), one)
        return self._used(hashes, found)

    async def outgoing(
        self, hashes: Sequence[Hash], ranges: Sequence[ChunkRanges]
    ) -> list[_native.Blob | Pieces | None]:
        """Of large blobs only what is wanted leaves the bucket: into the folder if that is little, else
        piece by piece while it is sent. Others are brought here.
        """
        local = await self._local.handles(hashes)
        found: list[_native.Blob | Pieces | None] = [*local]

        async def one(index: int) -> None:
            hash, wanted = hashes[index], ranges[index]
            size = await self._bucket.size(hash)
            if size is None:
                return
            if size > LARGE and 2 * wanted.selected_bytes(size) < size:
                found[index] = await self._parts.bring(hash, size, wanted)
            elif size > LARGE and Streamed.fits(size, wanted):
                found[index] = Streamed(self._bucket, hash, size)
            else:
                await self.bring(hash)
                found[index] = await self._local.handle(hash)

        await fan_out(AT_ONCE, _absent(local), one)
        return self._used(hashes, found)

    def _used(self, hashes: Sequence[Hash], found: Sequence[T]) -> list[T | None]:
        """Notes that these are used, except what is being deleted, which is not there any more."""
        for hash in hashes:
            self._cache.use(hash)
        return [
            None if hash in self._deletions else one
            for hash, one in zip(hashes, found, strict=True)
        ]

    async def bring(self, hash: Hash) -> None:
        """Copies a blob from the bucket to the folder, if it is there and only there."""
        async with self._deletions.lock(hash):
            if hash in self._deletions or (await self._local.status(hash)).is_complete:
                return
            size = await self._bucket.size(hash)
            if size is None:
                return
            added = await self._local.add_stream(self._bucket.read(hash))
            added.tag.release()
            if added.hash != hash:
                await self._local.delete([added.hash])
                raise StorageError(
                    f"the bucket's object of blob {hash} is damaged; repair the store"
                )
            self._cache.add(hash, size)
            await self.evict()

    async def evict(self) -> None:
        for hash in self._cache.overflow():
            if not self._writing[hash]:
                await self._local.delete([hash])

    def made(self, hash: Hash, size: int) -> None:
        """What is here is in the bucket now."""
        self._cache.add(hash, size)

    def forget(self, hash: Hash) -> None:
        """The blob is deleted."""
        self._cache.forget(hash)
        self._parts.forget(hash)

    def close(self) -> None:
        self._parts.close()


def _absent(handles: Sequence[_native.Blob | None]) -> list[int]:
    """Which of these are not, or not all, here."""
    return [at for at, handle in enumerate(handles) if handle is None or not handle.is_complete]
