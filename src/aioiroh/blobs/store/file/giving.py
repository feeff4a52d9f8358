"""How files leave a file store: given away, copied, or deleted."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Container, Mapping, Sequence
from pathlib import Path

from aioiroh import _native

from ...hash import Hash
from ..interface import OnCopied
from ..staging import copy_blobs, staged
from ..worker import DiskWorker
from .disk import Disk
from .layout import Layout
from .metadata import Metadata
from .rows import Kind, Reference
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

    def let_go(self, places: Mapping[Hash, Path], times: Mapping[Hash, int]) -> dict[Hash, Path]:
        """The store's own files of these blobs, for good, as far as it has them; they go to `places`.

        That is noted before they do: after a kill they are found where they were, or where they went. A
        blob that is wanted several `times` is not among them: two files must not be one. Raises OSError.
        """
        rows = self._metadata.get([bytes(hash) for hash in places], data=False)
        own: dict[Hash, Path] = {}
        for hash, place in places.items():
            row = rows.get(bytes(hash))
            if row is None or row.kind is not Kind.FILE or times[hash] > 1:
                continue
            name = self._layout.data_name(row.hash)
            try:
                state = os.stat(name)
            except FileNotFoundError:
                continue
            row.kind, row.written = Kind.REFERENCE, self._boot
            self._metadata.put(row, Reference.of(os.fsencode(place), state))
            own[hash] = Path(name)
        self._upkeep.flush()
        return own

    async def stage(
        self,
        handles: Sequence[_native.Blob],
        directory: Path,
        *,
        keep: bool,
        on_copied: OnCopied | None,
    ) -> list[Path]:
        """See `Store.stage`."""
        rows = {} if keep else self._metadata.get([handle.hash for handle in handles], data=False)
        paths: list[Path] = []
        copied: list[tuple[_native.Blob, Path]] = []
        try:
            for handle in handles:
                path = staged(Hash(handle.hash), directory)
                row = rows.get(handle.hash)
                if row is None or row.kind is not Kind.FILE or not self._give(row.hash, path):
                    copied.append((handle, path))
                paths.append(path)
            await copy_blobs(self._worker, copied, on_copied)
        except BaseException:
            self._disk.unlink(*paths)
            raise
        return paths

    def _give(self, hash: bytes, path: Path) -> bool:
        """Gives the store's own file a second name; False if it can have none there.

        The store keeps its name until that is settled, in case of a kill; until then it is given to nobody
        else: two files must not be one.
        """
        ours = self._layout.data(hash)
        try:
            if ours.stat().st_nlink > 1:
                return False
            self._disk.link(ours, path)
        except OSError as error:
            logger.debug("blob %s can have no second name: %s", hash.hex(), error)
            return False
        return True

    def settle(self, files: Sequence[tuple[Hash, Path]]) -> list[Hash]:
        """Refers to files that were given away; gives the blobs for which those are what the store has.

        Raises OSError.
        """
        rows = self._metadata.get([bytes(hash) for hash, _ in files], data=False)
        settled: list[Hash] = []
        for hash, path in files:
            row = rows.get(bytes(hash))
            if row is None or row.kind is not Kind.FILE:
                continue
            state = path.stat()
            if not os.path.samestat(self._layout.data(row.hash).stat(), state):
                continue
            row.kind, row.written = Kind.REFERENCE, self._boot
            self._metadata.put(row, Reference.of(os.fsencode(path.absolute()), state))
            self._upkeep.sync_soon(row)
            self._upkeep.free_later(row)
            settled.append(hash)
        return settled

    def _settled(self, hashes: Sequence[bytes]) -> None:
        """What was given away is on the disk where it is now, and so is the note of that."""
        for row in self._metadata.get(hashes, data=False).values():
            if row.kind is Kind.REFERENCE:
                self._disk.unlink(self._layout.data(row.hash))

    def drop(self, hashes: Sequence[Hash], known: Container[Hash]) -> list[Hash]:
        """Deletes blobs, and gives those that there were: `known`, or in the database.

        Raises OSError.
        """
        rows = self._metadata.get([bytes(hash) for hash in hashes], data=False)
        gone = [hash for hash in hashes if bytes(hash) in rows or hash in known]
        if not gone:
            return []
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
