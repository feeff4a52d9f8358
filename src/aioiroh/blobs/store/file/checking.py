"""Looking at all data of a file store: what is damaged, and what does not belong to it."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Container
from pathlib import Path

from aioiroh import _native

from ...hash import Hash
from ...ranges import ChunkRanges, chunk_count
from ..interface import BlobState, BlobStatus, Finding
from .athand import AtHand
from .layout import Layout
from .loading import Loader
from .metadata import Metadata
from .rows import Kind, Reference, Row

__all__ = ["Damage", "look_through", "mend", "recorded", "strays"]

_NAME = re.compile(r"([0-9a-f]{64})\.(data|outboard)")


class Damage:
    """What was measured of a blob that is not what the database says."""

    __slots__ = ("present", "reference", "row")

    def __init__(self, row: Row, present: ChunkRanges, reference: Reference | None) -> None:
        self.row = row
        self.present = present
        self.reference = reference


def recorded(row: Row, loader: Loader) -> BlobStatus:
    """What the database says of a blob, as far as it can be believed without a look."""
    believed = loader.believes(row)
    if row.kind is not Kind.PARTIAL and believed and row.size is not None:
        return BlobStatus.complete(row.size)
    return _status(ChunkRanges(row.present) if believed else ChunkRanges.empty(), row.size)


def _status(present: ChunkRanges, size: int | None) -> BlobStatus:
    if size is not None:
        count = chunk_count(size)
        if ChunkRanges.chunks(0, count) <= present:
            return BlobStatus.complete(size)
        if count - 1 in present:
            open_ended = present | ChunkRanges.chunks(count - 1)
            return BlobStatus(BlobState.PARTIAL, size, True, open_ended)
    return BlobStatus(BlobState.PARTIAL, size, False, present) if present else BlobStatus.missing()


async def look_through(
    row: Row, metadata: Metadata, loader: Loader
) -> tuple[Finding, Damage | None]:
    """Reads all data of a blob. Raises OSError if a disk does not answer."""
    hash, before = Hash(row.hash), recorded(row, loader)
    if row.kind is Kind.INLINE:
        stored = metadata.get((row.hash,)).get(row.hash)
        if stored is None or _native.blake3(stored.data or b"") == row.hash:
            return Finding(hash, before, before), None
        problem = "the data in the database are not those of the hash"
        return Finding(hash, before, BlobStatus.missing(), problem), Damage(
            row, ChunkRanges.empty(), None
        )
    present, reference = await loader.measure(row, believe=False)
    after = _status(present, row.size)
    if after.is_complete or (before.present <= after.present and not before.is_complete):
        damage = None if before == after else Damage(row, present, reference)
        return Finding(hash, before, after), damage
    if row.kind is Kind.REFERENCE:
        problem = "the files that had it were changed, or are gone"
    elif not present:
        problem = "the data are gone, or are not those of the hash"
    else:
        problem = "a part of the data is not what the hash says"
    return Finding(hash, before, after, problem), Damage(row, present, reference)


async def mend(damage: Damage, metadata: Metadata, loader: Loader, at_hand: AtHand) -> bool:
    """Makes the store say what is true; False if the blob was added or deleted meanwhile."""
    hash, row = Hash(damage.row.hash), damage.row
    if at_hand.row(hash) != row or at_hand.written(hash):
        return False
    at_hand.entries.pop(hash, None)
    if row.kind is Kind.INLINE:
        metadata.delete((row.hash,))
    else:
        await loader.adopt(row, damage.present, damage.reference)
    return True


async def strays(
    layout: Layout, metadata: Metadata, in_use: Container[Hash]
) -> AsyncIterator[Path]:
    """Files in the folders of the data that no blob has, in the database or in use."""
    for folder in layout.shards():
        found: dict[Path, bytes | None] = {}
        for name in os.listdir(folder):
            match = _NAME.fullmatch(name)
            found[folder / name] = None if match is None else bytes.fromhex(match[1])
        rows = metadata.get([hash for hash in found.values() if hash is not None], data=False)
        for path, hash in found.items():
            if hash is None or not (_belongs(path, rows.get(hash)) or Hash(hash) in in_use):
                yield path
        await asyncio.sleep(0)


def _belongs(path: Path, row: Row | None) -> bool:
    if row is None or row.kind is Kind.INLINE:
        return False
    if path.suffix == ".outboard":
        return row.outboard is None
    # What was given away stays until the note of that is on the disk.
    return row.kind is not Kind.REFERENCE or row.written is not None
