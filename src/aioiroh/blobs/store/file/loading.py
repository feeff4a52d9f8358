"""From what the database says of a blob to a handle: what can be believed, and what is looked at.

Data that were written under this start of the system are in its memory or on the disk, whatever
happened to the process. Data that were written under another one, and not synced, may be anything:
then the blob is what of it verifies.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from aioiroh import _native

from ...hash import Hash
from ...ranges import CHUNK_SIZE, ChunkRanges, chunk_count
from ..worker import DiskWorker
from .disk import Disk
from .entries import FileEntry
from .layout import Layout
from .metadata import Metadata
from .rows import Kind, Reference, Row

__all__ = ["Loader"]

logger = logging.getLogger("aioiroh.blobs.store")

NO_LIMIT = 1 << 62


class Loader:
    """Opens the blobs of one store."""

    def __init__(self, layout: Layout, metadata: Metadata, disk: Disk, worker: DiskWorker) -> None:
        self._layout = layout
        self._metadata = metadata
        self._disk = disk
        self._worker = worker
        self._boot = disk.boot()
        self._looks: dict[bytes, asyncio.Task[FileEntry | None]] = {}

    def believes(self, row: Row) -> bool:
        """Whether what was written is there, as far as the system goes."""
        return row.written is None or (row.written == self._boot and bool(self._boot))

    async def load(self, row: Row) -> FileEntry | None:
        """A blob, to be used; None if there is nothing of it. Raises OSError."""
        entry = self.at_once(row)
        if entry is not None:
            return entry
        # Several may ask at once, and one of them may be cancelled: the look is made once, to the end.
        look = self._looks.get(row.hash)
        if look is None:
            look = asyncio.get_running_loop().create_task(self._look(row))
            self._looks[row.hash] = look
            look.add_done_callback(lambda _: self._looks.pop(row.hash, None))
        return await asyncio.shield(look)

    async def aclose(self) -> None:
        """Ends the looks that are under way."""
        looks = tuple(self._looks.values())
        for look in looks:
            look.cancel()
        if looks:
            await asyncio.wait(looks)

    # --- what needs no look -----------------------------------------------------------------------

    def is_whole(self, row: Row) -> bool:
        """Whether a blob in the store's own keeping is complete, as far as that can be said without a look."""
        if row.kind is Kind.FILE and self.believes(row):
            state = _stat(self._layout.data_name(row.hash))
            return state is not None and state.st_size == row.size
        return row.kind is Kind.INLINE

    def at_once(self, row: Row) -> FileEntry | None:
        """A blob whose row can be believed; None if its files have to be looked at."""
        if row.kind is Kind.INLINE:
            data = row.data
            if data is None:
                data = self._metadata.get((row.hash,))[row.hash].data or b""
            return FileEntry(_native.Blob.inline(row.hash, data))
        if not self.believes(row) or row.size is None:
            return None
        if row.kind is Kind.REFERENCE:
            for reference in self._references(row):
                state = _stat(reference.path)
                if state is not None and reference.is_unchanged(state):
                    return self._opened(row, reference)
            return None
        state = _stat(self._layout.data_name(row.hash))
        if row.kind is Kind.FILE:
            return None if state is None or state.st_size != row.size else self._opened(row)
        if row.writing or state is None or state.st_size < _end(row.present, row.size):
            return None
        return self._resumed(row)

    def _references(self, row: Row) -> Sequence[Reference]:
        if row.references is None:
            return self._metadata.references((row.hash,))[row.hash]
        return row.references

    def _opened(self, row: Row, reference: Reference | None = None) -> FileEntry:
        data = (
            self._layout.data_name(row.hash) if reference is None else os.fsdecode(reference.path)
        )
        outboard = row.outboard
        where = str(self._layout.outboard(row.hash)) if outboard is None else outboard
        blob = _native.Blob.open(row.hash, data, row.size or 0, where)
        return FileEntry(blob, reference=reference)

    def _resumed(self, row: Row) -> FileEntry:
        blob = _native.Blob.resume(
            row.hash,
            str(self._layout.data(row.hash)),
            str(self._layout.outboard(row.hash)),
            size=row.size,
            present=row.present,
            max_size=NO_LIMIT,
        )
        return FileEntry(blob)

    # --- what does --------------------------------------------------------------------------------

    async def _look(self, row: Row) -> FileEntry | None:
        present, reference = await self.measure(row)
        now = self._metadata.get((row.hash,)).get(row.hash)
        if now is None:
            return None
        if (now.kind, now.size, now.written) != (row.kind, row.size, row.written):
            # Somebody has added the blob meanwhile.
            return self.at_once(now) or await self._look(now)
        return await self.adopt(row, present, reference)

    async def measure(
        self, row: Row, *, believe: bool = True
    ) -> tuple[ChunkRanges, Reference | None]:
        """Reads the files of a blob: what of it verifies, and the file somebody else has it in.

        With `believe` what the row can be believed of is not read.
        """
        if row.kind is not Kind.REFERENCE:
            known = ChunkRanges(row.present)
            if not (believe and self.believes(row)):
                # A part of a group cannot be verified without the rest of it.
                known = known - _whole_groups(known, row.size or 0)
            return await self._verified(row, self._layout.data(row.hash), known), None
        for reference in self._references(row):
            path = Path(os.fsdecode(reference.path))
            now_ns = self._layout.now_ns()
            state = _stat(path)
            if state is not None and state.st_size == row.size:
                present = await self._verified(row, path, ChunkRanges.empty())
                if _is_all(present, row.size):
                    return present, Reference.of(reference.path, state, now_ns)
        # What was given away stays until it is on the disk where it went to.
        return await self._verified(row, self._layout.data(row.hash), ChunkRanges.empty()), None

    async def _verified(self, row: Row, path: Path, known: ChunkRanges) -> ChunkRanges:
        if row.size is None:
            return ChunkRanges.empty()
        outboard = self._layout.outboard(row.hash) if row.outboard is None else row.outboard
        try:
            return await self._worker.validate(Hash(row.hash), path, outboard, row.size, known)
        except FileNotFoundError:
            return ChunkRanges.empty()

    async def adopt(
        self, row: Row, present: ChunkRanges, reference: Reference | None
    ) -> FileEntry | None:
        """Makes the database say what was measured, and opens what is there."""
        logger.info("blob %s: of %s bytes verify %s", row.hash.hex(), row.size, present)
        # What was written under another start of the system was read from the disk just now.
        written = self._boot if row.written == self._boot else None
        if row.size is not None and _is_all(present, row.size):
            kind = Kind.REFERENCE if reference is not None else Kind.FILE
            row = replace(row, kind=kind, written=written, writing=False, present=())
            self._metadata.put(row, reference)
            self._metadata.flush()
            return self._opened(row, reference)
        if row.kind is Kind.REFERENCE and not present:
            files = self._references(row)
            if any(_stat(file.path) is not None for file in files):
                # Files that are merely away may come back, with the disk that they are on.
                self._metadata.delete((row.hash,))
            return None
        if not present:
            self._metadata.delete((row.hash,))
            return None
        if row.outboard is not None:
            # Whoever fetches the rest adds to the outboard.
            target, data = self._layout.outboard(row.hash), row.outboard
            await self._worker.call(lambda: self._disk.write(target, data))
        row = replace(
            row,
            kind=Kind.PARTIAL,
            written=written,
            writing=False,
            present=present.boundaries,
            outboard=None,
        )
        self._metadata.put(row)
        self._metadata.flush()
        return self._resumed(row)


def _stat(path: bytes | str | Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:
        return None


def _whole_groups(present: ChunkRanges, size: int) -> ChunkRanges:
    """The chunks that are in groups all of which is present."""
    missing = ChunkRanges.chunks(0, chunk_count(size)) - present
    return present - missing.whole_groups()


def _is_all(present: ChunkRanges, size: int) -> bool:
    return ChunkRanges.chunks(0, chunk_count(size)) <= present


def _end(present: tuple[int, ...], size: int) -> int:
    """Where the last of these chunks ends."""
    return min(present[-1] * CHUNK_SIZE, size) if present else 0
