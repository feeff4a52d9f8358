"""What the store has of a download, and what is missing: the store is asked, not remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ..hash import BlobFormat, Hash, HashAndFormat
from ..hashseq import HashSeq
from ..ranges import ChunkRanges
from ..store.sequences import read_hash_seq
from .backlog import Part
from .count import Count
from .distinct import Distinct
from .scheduler import Scheduler

if TYPE_CHECKING:
    from ..store.interface import BlobStatus, Store

__all__ = ["Inventory"]

PLAN_STEP: Final = 200
"""Children that are looked at in one go, so that others get their turn."""


class Inventory:
    """Tells the core of a download what to want, and counts what is there."""

    def __init__(
        self, store: Store, content: HashAndFormat, core: Scheduler[Any], count: Count
    ) -> None:
        self._store = store
        self._content = content
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
        self._count.settle(0, root)
        if not root.is_complete:
            self._want(time(), 0, root)
        if self._content.format is not BlobFormat.HASH_SEQ:
            self._count.blobs = 1
        elif root.is_complete:
            if self._children is None:
                self._children = await read_hash_seq(self._store, self._content.hash)
            return await self._plan_children(self._children, time)
        return not root.is_complete

    async def _plan_children(self, children: HashSeq, time: Callable[[], float]) -> bool:
        distinct = Distinct()
        whole: list[tuple[int, int]] = []
        found = False
        for start in range(0, len(children), PLAN_STEP):
            hashes = [children[i] for i in range(start, min(start + PLAN_STEP, len(children)))]
            statuses = await self._store.statuses(hashes)
            for index, (hash, status) in enumerate(zip(hashes, statuses, strict=True), start + 1):
                if not distinct.add(bytes(hash)):
                    continue
                self._count.settle(index, status)
                if status.is_complete:
                    continue
                found = True
                if status.present:
                    self._want(time(), index, status)
                elif whole and whole[-1][1] == index:
                    whole[-1] = whole[-1][0], index + 1
                else:
                    whole.append((index, index + 1))
            await asyncio.sleep(0)
        self._count.blobs = 1 + len(distinct)
        await distinct.clear()
        if whole:
            self._core.want_whole(time(), whole)
        return found

    def _want(self, now: float, index: int, status: BlobStatus) -> None:
        size = status.size if status.size_verified else None
        self._core.want(now, index, ChunkRanges.all() - status.present, size)

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
