"""What the store has of a download, and what is missing: the store is asked, not remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ..hash import BlobFormat, Hash, HashAndFormat
from ..hashseq import HashSeq
from ..ranges import ChunkRanges
from ..rangeseq import ChunkRangesSeq
from ..store.sequences import read_hash_seq
from .backlog import Part
from .count import Count
from .distinct import Distinct
from .scheduler import Scheduler

if TYPE_CHECKING:
    from ..store.interface import BlobStatus, Store

__all__ = ["Inventory", "needed"]

PLAN_STEP: Final = 200
"""Children that are looked at in one go, so that others get their turn."""


class Inventory:
    """Tells the core of a download what to want, and counts what is there."""

    def __init__(
        self,
        store: Store,
        content: HashAndFormat,
        wanted: ChunkRangesSeq,
        core: Scheduler[Any],
        count: Count,
    ) -> None:
        """`wanted`: see `needed`."""
        self._store = store
        self._content = content
        self._wanted = wanted
        self._core = core
        self._count = count
        self._children: HashSeq | None = None

    def hash(self, index: int) -> Hash:
        """Of the content itself (0), or of child `index` - 1."""
        if index == 0:
            return self._content.hash
        assert self._children is not None
        return self._children[index - 1]

    async def plan(self, time: Callable[[], float]) -> bool:
        """Tells the core what is missing; False if nothing is.

        DecodeError: it is to be a hash sequence and is none.
        """
        root = await self._store.status(self._content.hash)
        self._count.wants(0, self._wanted[0])
        self._count.settle(0, root)
        lacks_root = self._want(time(), 0, self._wanted[0], root)
        if not _has_children(self._wanted):
            self._count.blobs = 1
        elif root.is_complete:
            if self._children is None:
                self._children = await read_hash_seq(self._store, self._content.hash)
            return await self._plan_children(self._children, time)
        return lacks_root

    async def _plan_children(self, children: HashSeq, time: Callable[[], float]) -> bool:
        distinct = Distinct()
        # What of a blob is wanted that is not wanted whole, and its first index.
        parts: dict[Hash, tuple[int, ChunkRanges]] = {}
        whole: list[tuple[int, int]] = []
        found = False
        for first, last, ranges in self._wanted.runs(1 + len(children)):
            assert last is not None
            for start in range(max(1, first), last, PLAN_STEP):
                indexes = range(start, min(start + PLAN_STEP, last))
                hashes = [children[index - 1] for index in indexes]
                if not ranges.is_all:
                    for index, hash in zip(indexes, hashes, strict=True):
                        before = parts.get(hash, (index, ChunkRanges.empty()))
                        parts[hash] = before[0], before[1] | ranges
                    await asyncio.sleep(0)
                    continue
                statuses = await self._store.statuses(hashes)
                for index, hash, status in zip(indexes, hashes, statuses, strict=True):
                    if not distinct.add(bytes(hash)):
                        continue
                    self._count.settle(index, status)
                    if status.is_complete:
                        continue
                    found = True
                    if status.present:
                        self._want(time(), index, ranges, status)
                    elif whole and whole[-1][1] == index:
                        whole[-1] = whole[-1][0], index + 1
                    else:
                        whole.append((index, index + 1))
                await asyncio.sleep(0)
        for hash, (index, ranges) in parts.items():
            if distinct.add(bytes(hash)):
                status = await self._store.status(hash)
                self._count.wants(index, ranges)
                self._count.settle(index, status)
                found |= self._want(time(), index, ranges, status)
        self._count.blobs = 1 + len(distinct)
        await distinct.clear()
        if whole:
            self._core.want_whole(time(), whole)
        return found

    def _want(self, now: float, index: int, wanted: ChunkRanges, status: BlobStatus) -> bool:
        """Tells the core what of a blob is missing; whether anything is."""
        missing = wanted - status.present
        if missing:
            size = status.size if status.size_verified else None
            self._core.want(now, index, missing, size)
        return bool(missing)

    async def left(self, number: int) -> list[Part]:
        """What a request was to bring and is not here. The core learns of sizes that are proved."""
        parts = tuple(self._core.parts(number))
        statuses = await self._store.statuses([self.hash(part.index) for part in parts])
        left = []
        for part, status in zip(parts, statuses, strict=True):
            self._count.settle(part.index, status)
            if status.size is not None and status.size_verified:
                self._core.proved(part.index, status.size)
            missing = part.ranges - status.present
            if missing:
                left.append(Part(part.index, missing))
        return left


def needed(content: HashAndFormat, ranges: ChunkRangesSeq | None) -> ChunkRangesSeq:
    """What has to be fetched so that `ranges` (None: everything) are here.

    To get at children, all of the hash sequence is needed.
    """
    if content.format is not BlobFormat.HASH_SEQ:
        return ChunkRangesSeq.blob(None if ranges is None else ranges[0])
    if ranges is None:
        return ChunkRangesSeq.all()
    if not _has_children(ranges):
        return ranges
    entries = ((index, wanted) for index, wanted in ranges.entries if index > 1)
    return ChunkRangesSeq(((0, ChunkRanges.all()), (1, ranges[1]), *entries))


def _has_children(ranges: ChunkRangesSeq) -> bool:
    return any(end is None or end > 1 for _, end, _ in ranges.runs())
