"""How files leave a file store: given away, copied, or deleted."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Container, Sequence
from pathlib import Path

from aioiroh import _native

from ...errors import NotFoundError
from ...hash import Hash
from ..reader import write_file
from ..worker import DiskWorker
from .disk import Disk
from .layout import Layout
from .metadata import Metadata, Reference
from .rows import Kind, Row
from .upkeep import Upkeep

__all__ = ["Giver"]

logger = logging.getLogger("aioiroh.blobs.store")


class Giver:
    """Gives away what is in one store."""

    def __init__(
        self, layout: Layout, metadata: Metadata, disk: Disk, worker: DiskWorker, upkeep: Upkeep
    ) -> None:
        self._layout = layout
        self._metadata = metadata
        self._disk = disk
        self._worker = worker
        self._upkeep = upkeep
        self._boot = disk.boot()
        upkeep.on_durable = self._settled

    async def stage(
        self,
        handle: _native.Blob,
        row: Row | None,
        reference: Reference | None,
        directory: Path,
        *,
        keep: bool,
    ) -> Path:
        """See `Store.stage`. `reference`: the file that the blob is read from, if it is not ours."""
        target = directory / f"{Hash(handle.hash)}.{self._layout.number()}.staged"
        if row is None or row.kind is Kind.INLINE:
            await write_file(handle, handle.size or 0, target)
            return target
        source = self._layout.data(row.hash)
        if row.kind is Kind.FILE and not keep and _same_device(source, directory):
            try:
                # The store keeps its own name for it until it is settled, in case of a kill.
                self._disk.link(source, target)
                return target
            except OSError as error:
                logger.debug("%s can have no second name: %s", source, error)
        if row.kind is Kind.REFERENCE:
            if reference is None:
                raise NotFoundError(f"the file with blob {Hash(row.hash)} is gone; add it again")
            source = Path(os.fsdecode(reference.path))
        await self._worker.copy_file(source, target)
        return target

    def settle(self, row: Row, path: Path) -> bool:
        """Refers to a file that was given away; False if it is not the one that the store has.

        Raises OSError.
        """
        state = path.stat()
        if not os.path.samestat(self._layout.data(row.hash).stat(), state):
            return False
        row.kind, row.written = Kind.REFERENCE, self._boot
        self._metadata.put(row, Reference.of(os.fsencode(path.absolute()), state))
        self._upkeep.sync_soon(row)
        self._upkeep.free_later(row)
        return True

    def _settled(self, hash: bytes) -> None:
        """What was given away is on the disk where it is now, and so is the note of that."""
        row = self._metadata.get((hash,), data=False).get(hash)
        if row is not None and row.kind is Kind.REFERENCE:
            self.trash(self._layout.data(hash))

    def drop(self, hashes: Sequence[Hash], known: Container[Hash]) -> list[Hash]:
        """Deletes blobs, and gives those that there were: `known`, or in the database.

        Raises OSError.
        """
        rows = self._metadata.get([bytes(hash) for hash in hashes], data=False)
        gone = [hash for hash in hashes if bytes(hash) in rows or hash in known]
        raw = [bytes(hash) for hash in gone]
        try:
            self._metadata.delete(raw)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            # The note needs some of the space; a row without its file counts for nothing.
            self._disk.unlink(*(path for hash in raw for path in self._layout.files(hash)))
            self._metadata.delete(raw)
        for row in rows.values():
            if row.kind is not Kind.INLINE:
                self.trash(*self._layout.files(row.hash))
        return gone

    def trash(self, *paths: Path) -> None:
        """Takes files out of the way, so that their names are free at once, and deletes them soon."""
        for path in paths:
            trash = self._layout.temp()
            try:
                self._disk.rename(path, trash)
            except FileNotFoundError:
                continue
            self._upkeep.delete_soon(trash)


def _same_device(file: Path, directory: Path) -> bool:
    return file.stat().st_dev == directory.stat().st_dev
