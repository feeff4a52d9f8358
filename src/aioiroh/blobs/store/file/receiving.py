"""A store in a folder, as far as blobs come into it from peers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from aioiroh import _native
from aioiroh.aio import Tasks

from ...hash import Hash, HashAndFormat
from ..local import Entry, LocalStore, LocalWriter
from ..tags import Tags
from .adding import Importer
from .athand import AtHand
from .disk import Disk
from .entries import FileEntry, New
from .giving import Giver
from .landing import Landing
from .layout import Layout
from .loading import Loader
from .metadata import ROWS, Metadata
from .rows import INLINE, Kind, Reference, Row
from .upkeep import Upkeep

__all__ = ["ReceivingStore"]

RECORD: Final = 0.25
"""Seconds between two notes of how far an incomplete blob is."""


class ReceivingStore(LocalStore):
    """The parts of a file store, and what is done with what arrives: see `FileStore`."""

    def __init__(
        self, layout: Layout, metadata: Metadata, disk: Disk, durable: bool, transit: bool
    ) -> None:
        """Not for direct use; see `FileStore.open`."""
        super().__init__(Tags(metadata.tags(), self._named))
        self.folder = layout.folder
        self._layout = layout
        self._metadata = metadata
        self._disk = disk
        self._boot = disk.boot()
        self._upkeep = Upkeep(layout, metadata, disk, self.worker, durable and not transit)
        self._giver = Giver(layout, metadata, disk, self.worker, self._upkeep)
        self._loader = Loader(layout, metadata, disk, self.worker)
        self._at_hand = AtHand(metadata, self._loader)
        self._entries = self._at_hand.entries
        self._importer = Importer(layout, metadata, disk, self.worker, self._loader)
        self._tasks = Tasks(f"the store in {layout.folder}")
        self._tasks.spawn(self._upkeep.run(), name="upkeep")
        self._landing = Landing(layout, self.worker, self._landed, self._tasks) if transit else None
        self._closed = False

    async def writers(self, hashes: Sequence[Hash], *, max_size: int) -> list[LocalWriter | None]:
        await self._upkeep.room()
        opened: list[LocalWriter | None] = []
        try:
            for hash in hashes:
                opened.append(await self._writer(hash, max_size))
        except BaseException:
            for writer in opened:
                if writer is not None:
                    await writer.__aexit__(None, None, None)
            raise
        return opened

    async def _writer(self, hash: Hash, max_size: int) -> LocalWriter | None:
        if hash == Hash.EMPTY:
            return LocalWriter(self, hash, FileEntry(_native.Blob.memory(bytes(hash), 0)))
        row = self._at_hand.rows((hash,), data=False).get(bytes(hash))
        if row is not None or hash in self._entries:
            handle = await self._at_hand.find(hash, row)
            if handle is not None and handle.is_complete:
                return None
        entry = self._entries.get(hash)
        if entry is None:
            data, outboard = map(str, self._layout.files(bytes(hash)))
            blob = _native.Blob.create(bytes(hash), data, outboard, max_size=max_size)
            entry = self._at_hand.remember(hash, FileEntry(blob))
        elif not entry.writers:
            # From here on there may be more than what was noted.
            self._record(hash, entry, writing=True)
        return LocalWriter(self, hash, entry)

    def _progressed(self, hash: Hash, entry: Entry) -> None:
        assert isinstance(entry, FileEntry)
        now = asyncio.get_running_loop().time()
        if now >= entry.record_at and not entry.handle.is_complete:
            is_first = not entry.record_at
            entry.record_at = now + RECORD
            self._record(hash, entry, writing=True)
            if is_first:
                # Without a note nothing of it would be found again.
                self._upkeep.flush_now()

    def _record(self, hash: Hash, entry: FileEntry, *, writing: bool) -> None:
        """Notes how far a blob is; with `writing` there will be more than that."""
        handle = entry.handle
        present = handle.present
        try:
            # What is noted is found again by its outboard.
            handle.spill()
        except OSError as error:
            self._upkeep.failure = error
            return
        row = Row(bytes(hash), Kind.PARTIAL, handle.size, self._boot, writing, present=present)
        self._put(row)
        if not writing:
            self._upkeep.sync_soon(row)

    def _left(self, hash: Hash, entry: Entry) -> None:
        assert isinstance(entry, FileEntry)
        if self._entries.get(hash) is not entry:
            return
        successor, entry.successor = entry.successor, None
        if entry.handle.is_complete:
            self._completed(hash, entry)
            if successor is not None:
                self._discard(successor)
        elif successor is not None:
            self._replace(successor)
        elif entry.handle.present:
            self._record(hash, entry, writing=False)
            self._publish(hash, entry.handle)
        else:
            # A failed get leaves no trace.
            del self._entries[hash]
            self._publish(hash, None)

    def _completed(self, hash: Hash, entry: FileEntry) -> None:
        raw, handle = bytes(hash), entry.handle
        size = handle.size or 0
        if size <= INLINE and self._landing is None:
            data = handle.read(0, size)
            row = Row(raw, Kind.INLINE, size, data=data)
            self._put(row)
            self._giver.trash(self._layout.data(raw))
            self._entries[hash] = FileEntry(_native.Blob.inline(raw, data))
        else:
            row = Row(raw, Kind.FILE, size, self._boot, outboard=handle.loose_outboard)
            self._put(row)
            del self._entries[hash]
        self._upkeep.sync_soon(row)
        self._arrived(hash)
        self._publish(hash, handle)

    async def put_verified(self, blobs: Sequence[tuple[Hash, bytes]]) -> None:
        await self._upkeep.room()
        entries, put_small = self._entries, self._metadata.put_small
        failure: OSError | None = None
        if self._landing is not None:
            await self._land(blobs)
            return
        for number, (hash, data) in enumerate(blobs, 1):
            if hash in entries or hash == Hash.EMPTY:
                self._put_known(hash, data)
            elif put_small(bytes(hash), data) and failure is None:
                try:
                    self._upkeep.flush()
                except OSError as error:
                    # The others wait with these for better times.
                    failure = error
            if number % ROWS == 0:
                await asyncio.sleep(0)
        if self._marking is not None or self._watches:
            for hash, data in blobs:
                self._arrived(hash)
                if hash in self._watches:
                    self._publish(hash, _native.Blob.inline(bytes(hash), data))
        self._upkeep.flush_soon()
        if failure is not None:
            raise failure

    async def _land(self, blobs: Sequence[tuple[Hash, bytes]]) -> None:
        """As `put_verified`, but they get files. Meanwhile they are at hand."""
        assert self._landing is not None
        fresh: list[tuple[Hash, bytes]] = []
        for hash, data in blobs:
            if hash in self._entries or hash == Hash.EMPTY:
                self._put_known(hash, data)
            else:
                self._at_hand.remember(hash, FileEntry(_native.Blob.inline(bytes(hash), data), 1))
                fresh.append((hash, data))
            self._arrived(hash)
            if hash in self._watches:
                self._publish(hash, _native.Blob.inline(bytes(hash), data))
        await self._landing.put(fresh)

    def _landed(self, blobs: Mapping[Hash, bytes], failure: OSError | None) -> None:
        for hash, data in blobs.items():
            del self._entries[hash]
            if failure is None:
                self._put(Row(bytes(hash), Kind.FILE, len(data), self._boot, outboard=b""))
            else:
                # They wait in memory as those do that the database cannot take.
                self._metadata.put_small(bytes(hash), data)
                self._giver.trash(self._layout.data(bytes(hash)))
        if failure is not None:
            self._upkeep.failure = failure
        self._upkeep.flush_soon()

    def _put_known(self, hash: Hash, data: bytes) -> None:
        entry = self._entries.get(hash)
        if entry is None or entry.handle.is_complete:
            return
        if entry.writers:
            entry.successor = New(Row(bytes(hash), Kind.INLINE, len(data), data=data))
        else:
            del self._entries[hash]
            self._metadata.put_small(bytes(hash), data)

    def _put(self, row: Row, reference: Reference | None = None) -> None:
        """Notes something, soon; what goes wrong is heard of by who wants to write next."""
        try:
            self._metadata.put(row, reference)
        except OSError as error:
            self._upkeep.failure = error
        self._upkeep.flush_soon()

    def _replace(self, new: New) -> None:
        hash, raw = Hash(new.row.hash), new.row.hash
        if new.data is not None:
            self._disk.rename(new.data, self._layout.data(raw))
        if new.outboard is not None:
            self._disk.rename(new.outboard, self._layout.outboard(raw))
        self._put(new.row, new.reference)
        self._entries.pop(hash, None)
        self._upkeep.sync_soon(new.row)
        if hash in self._watches:
            entry = self._loader.at_once(new.row)
            self._publish(hash, None if entry is None else entry.handle)

    def _discard(self, new: New) -> None:
        self._upkeep.delete_soon(*new.files)

    # --- names ------------------------------------------------------------------------------------

    def _named(self, changes: dict[bytes, HashAndFormat | None]) -> None:
        self._metadata.name(changes)
        self._spare_named(changes)
