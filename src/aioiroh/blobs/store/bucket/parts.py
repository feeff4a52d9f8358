"""Parts of large blobs that were brought from the bucket to be sent: sparse files."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

from aioiroh import _native

from ...hash import Hash
from ...ranges import GROUP_SIZE, ChunkRanges, chunk_count
from .cache import Cache
from .objects import Bucket, Groups
from .proof import CHUNKS
from .streaming import steps

__all__ = ["Parts"]


class _Part:
    """The groups of one blob that are here."""

    def __init__(self, folder: Path, hash: Hash) -> None:
        self.data = folder / f"{hash}.data"
        self.outboard = folder / f"{hash}.outboard"
        self.present = ChunkRanges.empty()
        self.lock = asyncio.Lock()

    def put(self, first: int, groups: Groups) -> None:
        _write(self.data, first * GROUP_SIZE, groups.data)
        for offset, pairs in groups.pairs:
            _write(self.outboard, offset, pairs)

    def delete(self) -> None:
        self.data.unlink(missing_ok=True)
        self.outboard.unlink(missing_ok=True)


class Parts:
    """Bounded by bytes; the least recently used go first."""

    def __init__(self, folder: Path, bucket: Bucket, limit: int) -> None:
        """`folder` is emptied: what is in it is from a process that has ended."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self._folder = folder
        self._bucket = bucket
        self._cache = Cache(limit)
        self._parts: dict[Hash, _Part] = {}

    async def bring(self, hash: Hash, size: int, ranges: ChunkRanges) -> _native.Blob:
        """A handle with these chunks of a blob of `size` bytes, and the last, which proves the size."""
        part = self._parts.setdefault(hash, _Part(self._folder, hash))
        exists = ChunkRanges.chunks(0, chunk_count(size))
        wanted = ranges.select(size) | ChunkRanges.bytes(size - 1, size)
        async with part.lock:
            missing = (wanted.whole_groups() & exists) - part.present
            for first, end in steps(missing):
                part.put(first, await self._bucket.groups(hash, size, first, end))
                part.present |= ChunkRanges.chunks(first * CHUNKS, end * CHUNKS) & exists
            present = part.present
        self._cache.add(hash, present.byte_count(size))
        for old in self._cache.overflow():
            self._parts.pop(old).delete()
        return _native.Blob.open(bytes(hash), part.data, size, part.outboard, present.boundaries)

    def forget(self, hash: Hash) -> None:
        """The blob is deleted."""
        self._cache.forget(hash)
        part = self._parts.pop(hash, None)
        if part is not None:
            part.delete()

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def _write(path: Path, offset: int, data: bytes) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        left = memoryview(data)
        while left:
            written = os.pwrite(file, left, offset)
            offset += written
            left = left[written:]
    finally:
        os.close(file)
