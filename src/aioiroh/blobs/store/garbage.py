"""Garbage collection: mark what is named, sweep the rest, while everything else goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from aioiroh.errors import DecodeError

from ..errors import BlobTooLargeError, IncompleteBlobError, NotFoundError
from ..hash import BlobFormat, Hash, HashAndFormat
from ..hashseq import HashSeq
from .sequences import read_hash_seq

if TYPE_CHECKING:
    from .interface import Protect, Store

__all__ = ["BATCH", "Marking", "collect_every", "sweep"]

logger = logging.getLogger("aioiroh.blobs.store")

BATCH: Final = 10
"""Blobs deleted in one turn of the loop."""


class Marking:
    """What a run of the collection spares. Whatever is held or arrives while it runs is added."""

    def __init__(self) -> None:
        self.live: set[Hash] = set()
        self._to_follow: list[HashAndFormat] = []

    def spare(self, content: HashAndFormat) -> None:
        self._to_follow.append(content)

    async def follow(self, store: Store) -> None:
        """Marks what is to be spared, with the children of hash sequences.

        When it returns, nothing is left to be marked, until the loop has its next turn.
        """
        while self._to_follow:
            content = self._to_follow.pop()
            self.live.add(content.hash)
            if content.format is BlobFormat.HASH_SEQ:
                self.live.update(await _children(store, content.hash))


async def _children(store: Store, hash: Hash) -> HashSeq:
    """What a hash sequence names, as far as it is here and is one."""
    try:
        return await read_hash_seq(store, hash)
    except (NotFoundError, IncompleteBlobError, DecodeError, BlobTooLargeError):
        return HashSeq()


async def sweep(store: Store, marking: Marking, drop: Callable[[Sequence[Hash]], int]) -> int:
    """Drops what is not marked; gives the number of blobs."""
    dropped = 0
    batch: list[Hash] = []

    async def drop_batch() -> int:
        await marking.follow(store)
        # No turn of the loop between the look and the deed: nothing can come to need these.
        number = drop([hash for hash in batch if hash not in marking.live])
        batch.clear()
        await asyncio.sleep(0)
        return number

    async for hash, _ in store.blobs():
        batch.append(hash)
        if len(batch) == BATCH:
            dropped += await drop_batch()
    return dropped + await drop_batch()


async def collect_every(store: Store, seconds: float, protect: Protect | None = None) -> None:
    """Collects the garbage of a store again and again, `seconds` apart, until it is cancelled.

    A run that fails is logged, and the next one takes place. Run it as a task next to what uses the
    store. ValueError: no time between runs.
    """
    if not seconds > 0:
        raise ValueError("give the seconds between two runs of the garbage collection")
    while True:
        await asyncio.sleep(seconds)
        try:
            number = await store.collect_garbage(protect)
        except Exception:
            logger.exception("the garbage collection failed; the next one is in %s s", seconds)
        else:
            logger.debug("the garbage collection deleted %d blobs", number)
