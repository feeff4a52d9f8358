"""Sending large blobs from the bucket, range by range: nothing of them is kept here."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from typing import Final

from aioiroh.aio import Tasks

from ...hash import Hash
from ...ranges import GROUP_SIZE, ChunkRanges, chunk_count
from .objects import Bucket, Groups
from .proof import CHUNKS, answered
from .reader import GROUPS

__all__ = ["Streamed", "steps"]

AT_ONCE: Final = 3
"""Requests for pieces of one blob (1 MiB each) that are under way, or wait to be sent."""


class Streamed:
    """See `Pieces`."""

    def __init__(self, bucket: Bucket, hash: Hash, size: int) -> None:
        self._bucket = bucket
        self._hash = hash
        self.size = size

    @staticmethod
    def fits(size: int, ranges: ChunkRanges) -> bool:
        """Whether whole chunk groups are wanted: what is inside one is proved by hashes that no bucket has."""
        wanted = ranges.select(size)
        return wanted == wanted.whole_groups() & ChunkRanges.chunks(0, chunk_count(size))

    async def answer(self, ranges: ChunkRanges) -> AsyncGenerator[tuple[int, bytes], None]:
        """See `Pieces`. `ranges` have to fit."""
        hash, size = self._hash, self.size
        before = -1
        # Whoever awaits a piece hears of its failure.
        async with Tasks(f"sending {hash.short()}", on_error=lambda task, error: None) as tasks:
            waiting: deque[tuple[int, int, asyncio.Task[Groups]]] = deque()
            left = steps(ranges.select(size))
            yield 0, size.to_bytes(8, "little")
            while True:
                while len(waiting) < AT_ONCE and (step := next(left, None)) is not None:
                    fetch = tasks.spawn(self._bucket.groups(hash, size, *step))
                    waiting.append((*step, fetch))
                if not waiting:
                    return
                first, end, task = waiting.popleft()
                groups = await task
                pairs = [run for _, run in groups.pairs]
                yield (
                    min(end * GROUP_SIZE, size),
                    answered(size, first, end, before, groups.data, pairs),
                )
                before = end - 1


def steps(chunks: ChunkRanges) -> Iterator[tuple[int, int]]:
    """The chunk groups of these chunks, from and to, as many as are fetched at once."""
    for start, stop in chunks.spans():
        assert stop is not None
        first, end = start // CHUNKS, -(-stop // CHUNKS)
        for at in range(first, end, GROUPS):
            yield at, min(at + GROUPS, end)
