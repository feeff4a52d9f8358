"""Importing into a file store: from memory, streams and files to blobs that can become part of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aioiroh import _native
from aioiroh.aio import fan_out

from ..hashing import AT_ONCE, FoundFile, hash_files, look_at
from ..interface import ImportMode, OnHashed
from ..worker import DiskWorker, HashedFile
from .disk import Disk
from .entries import New
from .layout import Layout
from .loading import Loader
from .metadata import BYTES, ROWS, Metadata
from .rows import INLINE, INLINE_OUTBOARD, Kind, Reference, Row

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Importer"]

WINDOW: Final = 1024
"""Files that are looked at before they are hashed."""
TOGETHER: Final = 10
"""Small blobs that are made, or files that are looked up, in a turn of the loop."""
PIECE: Final = 1024 * 1024
"""Bytes of a stream that are written at once."""
WITH_OUTBOARD: Final = INLINE_OUTBOARD * 256
"""Blobs above this many bytes have an outboard that goes into a file."""

Numbered = list[tuple[int, New]]
"""Blobs with the indexes of the files that they were made from."""


class Importer:
    """Makes blobs for one store; nothing is part of it until the store takes it."""

    def __init__(
        self,
        layout: Layout,
        metadata: Metadata,
        disk: Disk,
        worker: DiskWorker,
        loader: Loader,
    ) -> None:
        self._layout = layout
        self._metadata = metadata
        self._disk = disk
        self._worker = worker
        self._loader = loader
        self._boot = disk.boot()

    # --- memory and streams -----------------------------------------------------------------------

    async def from_memory(self, blobs: Iterable[Buffer]) -> AsyncIterator[list[New]]:
        """In order, some at a time."""
        batch: list[bytes] = []
        size = 0
        for data in blobs:
            data = bytes(data)
            if len(data) > INLINE:
                if batch:
                    yield _inline(batch)
                    batch, size = [], 0
                yield [await self.from_stream(_once(data))]
                continue
            batch.append(data)
            size += len(data)
            if len(batch) == TOGETHER or size >= BYTES:
                yield _inline(batch)
                batch, size = [], 0
        if batch:
            yield _inline(batch)

    async def from_stream(self, pieces: AsyncIterable[Buffer]) -> New:
        """What does not fit into the database goes to a file as it comes."""
        waiting = bytearray()
        path: Path | None = None
        try:
            async for piece in pieces:
                waiting += piece
                if len(waiting) >= PIECE:
                    path = path or self._layout.temp()
                    await self._append(path, waiting)
                    waiting = bytearray()
            if path is None and len(waiting) <= INLINE:
                return _inline([bytes(waiting)])[0]
            path = path or self._layout.temp()
            await self._append(path, waiting)
            outboard = self._outboard(path.stat().st_size)
            return self._file(await self._worker.hash_file(path, outboard), path)
        except BaseException:
            if path is not None:
                self._disk.unlink(path)
            raise

    async def _append(self, path: Path, data: bytearray) -> None:
        await self._worker.call(lambda: self._disk.write(path, data, append=True))

    # --- files ------------------------------------------------------------------------------------

    async def from_files(
        self,
        paths: Sequence[str | os.PathLike[str]],
        mode: ImportMode,
        on_hashed: OnHashed | None,
    ) -> AsyncIterator[Numbered]:
        """Some at a time, in no order. Raises OSError."""
        for start in range(0, len(paths), WINDOW):
            now_ns = self._layout.now_ns()
            found = await look_at(paths[start : start + WINDOW], start)
            if mode is ImportMode.REFERENCE:
                known, new = await self._known(found, on_hashed)
                yield known
                hashed = await hash_files(self._worker, new, self._outboard, on_hashed)
                yield [
                    (file.index, self._reference(done, file, now_ns))
                    for file, done in zip(new, hashed, strict=True)
                ]
            else:
                yield await self._copy(found, on_hashed)

    async def _known(
        self, found: Sequence[FoundFile], on_hashed: OnHashed | None
    ) -> tuple[Numbered, list[FoundFile]]:
        """Files that look as they did when they were hashed, and those that do not."""
        known: Numbered = []
        new: list[FoundFile] = []
        for start in range(0, len(found), TOGETHER):
            batch = found[start : start + TOGETHER]
            paths = [os.fsencode(file.path) for file in batch]
            files = self._metadata.files(paths)
            rows = self._metadata.get([hash for hash, _ in files.values()], data=False)
            for file, path in zip(batch, paths, strict=True):
                hash, reference = files.get(path, (b"", None))
                row = rows.get(hash)
                if row and reference and reference.is_unchanged(file.state) and self._is_there(row):
                    known.append((file.index, New(row)))
                    if on_hashed is not None:
                        on_hashed(file.index, row.size or 0)
                else:
                    new.append(file)
            await asyncio.sleep(0)
        return known, new

    def _is_there(self, row: Row) -> bool:
        """Whether the store has a blob, if the file that it was made from is as it was."""
        if row.kind is Kind.REFERENCE:
            return self._loader.believes(row)
        return row.kind is not Kind.PARTIAL and self._loader.at_once(row) is not None

    def _reference(self, hashed: HashedFile, file: FoundFile, now_ns: int) -> New:
        raw = bytes(hashed.hash)
        inline, path = _split(hashed.outboard)
        row = Row(raw, Kind.REFERENCE, hashed.size, self._boot, outboard=inline)
        reference = Reference.of(os.fsencode(file.path), file.state, now_ns)
        return New(row, outboard=path, reference=reference)

    async def _copy(self, found: Sequence[FoundFile], on_hashed: OnHashed | None) -> Numbered:
        small = [file for file in found if file.size <= INLINE]
        copied: Numbered = []
        for start in range(0, len(small), ROWS):
            batch = small[start : start + ROWS]
            data = await self._worker.call(partial(_read, [file.path for file in batch]))
            # A file may have grown since.
            for file, one in zip(batch, data, strict=True):
                [new] = [await self.from_stream(_once(one))]
                copied.append((file.index, new))
                if on_hashed is not None:
                    on_hashed(file.index, len(one))

        async def work(file: FoundFile) -> None:
            path, outboard = self._layout.temp(), self._outboard(file.size)
            try:
                hashed = await self._worker.import_file(
                    file.path,
                    path,
                    outboard,
                    None if on_hashed is None else lambda done: on_hashed(file.index, done),
                )
            except BaseException:
                self._disk.unlink(path, *([] if outboard is None else [outboard]))
                raise
            copied.append((file.index, self._file(hashed, path)))
            if on_hashed is not None:
                on_hashed(file.index, hashed.size)

        await fan_out(AT_ONCE, (file for file in found if file.size > INLINE), work)
        return copied

    # --- what becomes of them ---------------------------------------------------------------------

    def _outboard(self, size: int) -> Path | None:
        return self._layout.temp() if size > WITH_OUTBOARD else None

    def _file(self, hashed: HashedFile, path: Path) -> New:
        inline, outboard = _split(hashed.outboard)
        row = Row(bytes(hashed.hash), Kind.FILE, hashed.size, self._boot, outboard=inline)
        return New(row, path, outboard)


def _inline(batch: Sequence[bytes]) -> list[New]:
    hashed = _native.hash_many(batch)
    return [
        New(Row(hash, Kind.INLINE, len(data), data=data))
        for data, (hash, _) in zip(batch, hashed, strict=True)
    ]


def _split(outboard: bytes | Path) -> tuple[bytes | None, Path | None]:
    return (None, outboard) if isinstance(outboard, Path) else (outboard, None)


def _read(paths: Sequence[Path]) -> list[bytes]:
    return [path.read_bytes() for path in paths]


async def _once(data: Buffer) -> AsyncIterator[Buffer]:
    yield data
