"""A store in a folder that outlives the process."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, cast

from aioiroh import _native
from aioiroh.aio import Tasks

from ...hash import BlobFormat, Hash, HashAndFormat
from ..interface import Added, BlobStatus, Finding, ImportMode, OnCopied, OnHashed
from ..local import Entry, LocalStore, LocalWriter, handle_status
from ..tags import Tags
from ..worker import DiskWorker
from .adding import Importer
from .checking import Damage, look_through, recorded, strays
from .disk import Disk
from .entries import FileEntry, New
from .giving import Giver
from .layout import Layout
from .loading import Loader
from .metadata import ROWS, Metadata
from .rows import INLINE, Kind, Reference, Row
from .upkeep import Upkeep

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["FileStore"]

logger = logging.getLogger("aioiroh.blobs.store")

REMEMBERED: Final = 2048
"""Blobs that stay at hand when nobody uses them."""
RECORD: Final = 0.25
"""Seconds between two notes of how far an incomplete blob is."""
PAGE: Final = 20
"""Blobs that are listed, or looked at, in one turn of the loop."""


class FileStore(LocalStore):
    """Blobs in a folder. Make it with `await FileStore.open(path)`; use it in `async with`.

    One process at a time. After a kill at most what was under way is fetched again; after a loss of
    power, blobs that were not yet synced are looked through when they are first used. docs/store.md
    has the details.
    """

    def __init__(self, layout: Layout, metadata: Metadata, disk: Disk, durable: bool) -> None:
        """Not for direct use; see `open`."""
        super().__init__(Tags(metadata.tags(), self._named))
        self.folder = layout.folder
        self._layout = layout
        self._metadata = metadata
        self._disk = disk
        self._boot = disk.boot()
        self._entries: OrderedDict[Hash, FileEntry] = OrderedDict()
        self._upkeep = Upkeep(layout, metadata, disk, self.worker, durable)
        self._giver = Giver(layout, metadata, disk, self.worker, self._upkeep)
        self._loader = Loader(layout, metadata, disk, self.worker)
        self._importer = Importer(layout, metadata, disk, self.worker, self._loader)
        self._tasks = Tasks(f"the store in {layout.folder}")
        self._tasks.spawn(self._upkeep.run(), name="upkeep")
        self._closed = False

    @classmethod
    async def open(
        cls, path: str | os.PathLike[str], *, durable: bool = True, disk: Disk | None = None
    ) -> Self:
        """The store in the folder `path`, which is made if need be.

        `durable`: complete blobs are synced in the background, and so survive a loss of power; a store
        that is not needed for long can do without. `disk` is for tests.
        BusyError: another store uses the folder. StoreFormatError: something else is in it, or a
        store of a newer program. OSError: it cannot be read or written.
        """
        disk = disk or Disk()
        layout = Layout.take(Path(path).absolute())
        try:
            # The log of a process that died may be long.
            metadata = await DiskWorker.call_once(partial(Metadata.open, layout.database))
            try:
                layout.prepare()
                return cls(layout, metadata, disk, durable)
            except BaseException:
                metadata.abandon()
                raise
        except BaseException:
            layout.release()
            raise

    # --- looking ----------------------------------------------------------------------------------

    async def statuses(self, hashes: Sequence[Hash]) -> list[BlobStatus]:
        found: list[BlobStatus] = []
        missing = BlobStatus.missing()
        for start in range(0, len(hashes), PAGE):
            if start:
                await asyncio.sleep(0)
            batch = hashes[start : start + PAGE]
            rows = self._rows_of(batch, data=False)
            absent = {hash for hash in batch if not self._has(hash, rows)}
            for hash in batch:
                row = rows.get(bytes(hash))
                if row is not None and row.kind is Kind.INLINE and row.size is not None:
                    found.append(BlobStatus.complete(row.size))
                elif hash in absent:
                    found.append(missing)
                else:
                    handle = await self._find(hash, row)
                    found.append(missing if handle is None else handle_status(handle))
        return found

    async def handles(self, hashes: Sequence[Hash], *_: object) -> list[_native.Blob | None]:
        rows = self._rows_of(hashes)
        return [await self._find(hash, rows.get(bytes(hash))) for hash in hashes]

    def _rows_of(self, hashes: Sequence[Hash], *, data: bool = True) -> dict[bytes, Row]:
        """What the database knows of those that are not at hand."""
        rows = self._metadata.get([bytes(h) for h in hashes if h not in self._entries], data=data)
        referring = [hash for hash, row in rows.items() if row.kind is Kind.REFERENCE]
        if referring:
            for hash, files in self._metadata.references(referring).items():
                rows[hash].references = files
        return rows

    def _has(self, hash: Hash, rows: dict[bytes, Row]) -> bool:
        return bytes(hash) in rows or hash in self._entries or hash == Hash.EMPTY

    def _row(self, hash: Hash) -> Row | None:
        return self._metadata.get((bytes(hash),), data=False).get(bytes(hash))

    async def _find(self, hash: Hash, row: Row | None) -> _native.Blob | None:
        """The handle of a blob; `row` is what the database knows if it is not at hand."""
        if hash == Hash.EMPTY:
            return _native.Blob.from_bytes(b"")
        entry = self._entries.get(hash)
        if entry is not None:
            if entry.writers or entry.is_good:
                return entry.handle
            del self._entries[hash]
            row = None
        # What was at hand a moment ago may not be any more.
        row = row or self._row(hash)
        if row is None:
            return None
        loaded = await self._loader.load(row)
        # Somebody else may have loaded it, or begun to write, meanwhile.
        entry = self._entries.get(hash)
        if entry is None and loaded is not None:
            entry = self._remember(hash, loaded)
        return None if entry is None else entry.handle

    def _remember(self, hash: Hash, entry: FileEntry) -> FileEntry:
        """Keeps a blob at hand, and lets go of those that were not used for long."""
        self._entries[hash] = entry
        # Two for one, because those that are written stay.
        for _ in range(min(2, len(self._entries) - REMEMBERED)):
            old, oldest = self._entries.popitem(last=False)
            if oldest.writers:
                self._entries[old] = oldest
        return entry

    async def blobs(self) -> AsyncIterator[tuple[Hash, BlobStatus]]:
        after = 0
        while page := self._metadata.page(after, PAGE):
            for _, row in page:
                entry = self._entries.get(Hash(row.hash))
                status = (
                    recorded(row, self._loader) if entry is None else handle_status(entry.handle)
                )
                yield Hash(row.hash), status
            after = page[-1][0]
            await asyncio.sleep(0)

    # --- receiving --------------------------------------------------------------------------------

    async def writers(self, hashes: Sequence[Hash], *, max_size: int) -> list[LocalWriter | None]:
        await self._upkeep.room()
        rows = self._rows_of(hashes)
        opened: list[LocalWriter | None] = []
        try:
            for hash in hashes:
                opened.append(await self._writer(hash, rows.get(bytes(hash)), max_size))
        except BaseException:
            for writer in opened:
                if writer is not None:
                    await writer.__aexit__(None, None, None)
            raise
        return opened

    async def _writer(self, hash: Hash, row: Row | None, max_size: int) -> LocalWriter | None:
        if hash == Hash.EMPTY:
            return LocalWriter(self, hash, FileEntry(_native.Blob.memory(bytes(hash), 0)))
        handle = await self._find(hash, row)
        if handle is not None and handle.is_complete:
            return None
        entry = self._entries.get(hash)
        if entry is None:
            data, outboard = map(str, self._layout.files(bytes(hash)))
            blob = _native.Blob.create(bytes(hash), data, outboard, max_size=max_size)
            entry = self._remember(hash, FileEntry(blob))
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
        if size <= INLINE:
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

    # --- adding -----------------------------------------------------------------------------------

    async def add_many(self, blobs: Iterable[Buffer]) -> list[Added]:
        added: list[Added] = []
        with self._committing(added):
            async for batch in self._importer.from_memory(blobs):
                await self._upkeep.room()
                added += self._take(batch)
                await asyncio.sleep(0)
        return added

    async def add_stream(
        self, pieces: AsyncIterable[Buffer], format: BlobFormat = BlobFormat.RAW
    ) -> Added:
        await self._upkeep.room()
        new = await self._importer.from_stream(pieces)
        with self._committing(added := self._take([new])):
            return self._as(added[0], format)

    async def add_files(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        mode: ImportMode = ImportMode.REFERENCE,
        on_hashed: OnHashed | None = None,
    ) -> list[Added]:
        added: list[Added] = []
        in_order: list[Added | None] = [None] * len(paths)
        with self._committing(added):
            async for batch in self._importer.from_files(paths, mode, on_hashed):
                for start in range(0, len(batch), PAGE):
                    await self._upkeep.room()
                    some = batch[start : start + PAGE]
                    added += (taken := self._take([new for _, new in some]))
                    for (index, _), one in zip(some, taken, strict=True):
                        in_order[index] = one
                    await asyncio.sleep(0)
        return cast("list[Added]", in_order)

    @contextmanager
    def _committing(self, added: list[Added]) -> Iterator[None]:
        """Notes what was added in the block when it ends. What then fails was not added."""
        try:
            yield
            self._metadata.flush()
        except OSError:
            for hash in self._metadata.withdraw([bytes(one.hash) for one in added]):
                self._giver.trash(*self._layout.files(hash))
            raise

    def _take(self, batch: Sequence[New]) -> list[Added]:
        """Makes blobs part of the store, and holds them."""
        added: list[Added] = []
        rows = self._metadata.get([new.row.hash for new in batch], data=False)
        for new in batch:
            hash = Hash(new.row.hash)
            added.append(self._added(hash, new.row.size or 0))
            if new.reference is not None:
                self._metadata.refer(new.row.hash, new.reference)
            entry, row = self._entries.get(hash), rows.get(new.row.hash)
            if hash == Hash.EMPTY or self._is_complete(row, entry, new):
                self._discard(new)
            elif entry is not None and entry.writers:
                # Their file must stay where it is until they leave.
                if entry.successor is not None:
                    self._discard(entry.successor)
                entry.successor = new
            else:
                self._replace(new)
        self._upkeep.flush_soon()
        return added

    def _is_complete(self, row: Row | None, entry: FileEntry | None, new: New) -> bool:
        """Whether the store has a blob, and as well as the new one."""
        if entry is not None:
            return entry.handle.is_complete and (entry.reference is None or new.data is None)
        if row is None or row.kind is Kind.PARTIAL:
            return False
        if row.kind is Kind.REFERENCE:
            return new.row.kind is Kind.REFERENCE and self._loader.believes(row)
        return self._loader.at_once(row) is not None

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

    # --- keeping and deleting ---------------------------------------------------------------------

    def _named(self, changes: dict[bytes, HashAndFormat | None]) -> None:
        self._metadata.name(changes)
        self._spare_named(changes)

    def _drop(self, hashes: Sequence[Hash]) -> int:
        idle = [h for h in hashes if not ((entry := self._entries.get(h)) and entry.writers)]
        gone = self._giver.drop(idle, self._entries)
        for hash in gone:
            self._entries.pop(hash, None)
            self._publish(hash, None)
        return len(gone)

    async def verify(self, hashes: Iterable[Hash] | None = None) -> AsyncIterator[Finding]:
        async for finding, _ in self._look_through(hashes):
            yield finding

    async def repair(self, hashes: Iterable[Hash] | None = None) -> AsyncIterator[Finding]:
        async for finding, damage in self._look_through(hashes):
            if damage is not None:
                await self._mend(finding.hash, damage)
            yield finding
        if hashes is None:
            async for paths in strays(self._layout, self._metadata):
                for path, named_after in paths:
                    if named_after is None or Hash(named_after) not in self._entries:
                        logger.info("%s belongs to no blob and is deleted", path)
                        self._giver.trash(path)
                await asyncio.sleep(0)

    async def _look_through(
        self, hashes: Iterable[Hash] | None
    ) -> AsyncIterator[tuple[Finding, Damage | None]]:
        self._metadata.flush()
        if hashes is None:
            hashes = [hash async for hash, _ in self.blobs()]
        for hash in hashes:
            row, entry = self._row(hash), self._entries.get(hash)
            if row is not None and not (entry is not None and entry.writers):
                yield await look_through(row, self._metadata, self._loader)

    async def _mend(self, hash: Hash, damage: Damage) -> None:
        entry = self._entries.get(hash)
        if self._row(hash) != damage.row or (entry is not None and entry.writers):
            return  # added or deleted meanwhile
        self._entries.pop(hash, None)
        if damage.row.kind is Kind.INLINE:
            self._metadata.delete((damage.row.hash,))
        else:
            await self._loader.adopt(damage.row, damage.present, damage.reference)
        self._publish(hash, await self.handle(hash))

    # --- where data leave -------------------------------------------------------------------------

    async def stage(
        self,
        hashes: Sequence[Hash],
        directory: Path,
        *,
        keep: bool = False,
        on_copied: OnCopied | None = None,
    ) -> list[Path]:
        handles = await self._complete(hashes)
        return await self._giver.stage(handles, directory, keep=keep, on_copied=on_copied)

    async def settle(self, files: Sequence[tuple[Hash, Path]]) -> None:
        for hash in self._giver.settle(files):
            self._entries.pop(hash, None)

    # --- the end ----------------------------------------------------------------------------------

    async def sync(self) -> None:
        """Waits until all that is complete, and all tags, are on the disk. Raises OSError."""
        await self._upkeep.quiet()

    async def aclose(self) -> None:
        """Ends the store; everything stays in the folder. Raises OSError."""
        if self._closed:
            return
        self._closed = True
        try:
            for hash, entry in self._entries.items():
                if entry.writers and entry.handle.present:
                    self._record(hash, entry, writing=True)
                elif entry.handle.present and not entry.handle.is_complete:
                    # Pieces may have reached the disk after their writer left.
                    self._record(hash, entry, writing=False)
            await self._stop()
            await self._upkeep.finish()
        finally:
            try:
                await self.worker.call(self._metadata.close)
            finally:
                await self._let_go()

    async def destroy(self) -> None:
        """Ends the store, and deletes what is its own in the folder, and the folder if it is empty.

        Raises OSError.
        """
        if not self._closed:
            self._closed = True
            await self._stop()
            self._metadata.abandon()
        try:
            await self.worker.call(self._layout.destroy)
        finally:
            await self._let_go()

    async def _stop(self) -> None:
        self._upkeep.stop()
        await self._tasks.aclose()
        await self._loader.aclose()

    async def _let_go(self) -> None:
        self._entries.clear()
        self._layout.release()
        await super().aclose()
