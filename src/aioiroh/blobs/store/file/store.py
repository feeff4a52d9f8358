"""A store in a folder that outlives the process."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, cast

from aioiroh import _native

from ...hash import BlobFormat, Hash
from ..interface import Added, BlobStatus, Finding, ImportMode, OnCopied, OnHashed
from ..local import handle_status
from ..worker import DiskWorker
from .checking import Damage, look_through, mend, recorded, strays
from .disk import Disk
from .entries import FileEntry, New
from .layout import Layout
from .metadata import Metadata
from .receiving import ReceivingStore
from .rows import Kind, Row

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["FileStore"]

logger = logging.getLogger("aioiroh.blobs.store")

PAGE: Final = 20
"""Blobs that are listed, or looked at, in one turn of the loop."""


class FileStore(ReceivingStore):
    """Blobs in a folder. Make it with `await FileStore.open(path)`; use it in `async with`.

    One process at a time. After a kill at most what was under way is fetched again; after a loss of
    power, blobs that were not yet synced are looked through when they are first used. docs/store.md
    has the details.
    """

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        durable: bool = True,
        transit: bool = False,
        disk: Disk | None = None,
    ) -> Self:
        """The store in the folder `path`, which is made if need be.

        `durable`: complete blobs are synced in the background, and so survive a loss of power; a store
        that is not needed for long can do without. `transit`: what comes is to leave it soon, by `stage`:
        it is not durable, and small blobs get files, too, which are given away themselves. `disk` is for
        tests.
        BusyError: another store uses the folder. StoreFormatError: something else is in it, or a
        store of a newer program. OSError: it cannot be read or written.
        """
        disk = disk or Disk()
        layout = Layout.take(Path(path).absolute(), transit=transit)
        try:
            # The log of a process that died may be long.
            metadata = await DiskWorker.call_once(partial(Metadata.open, layout.database))
            try:
                layout.prepare()
                return cls(layout, metadata, disk, durable, transit)
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
            rows = self._at_hand.rows(batch, data=False)
            known = {hash for hash in batch if hash in self._entries or hash == Hash.EMPTY}
            for hash in batch:
                row = rows.get(bytes(hash))
                if row is not None and row.size is not None and self._loader.is_whole(row):
                    found.append(BlobStatus.complete(row.size))
                elif row is None and hash not in known:
                    found.append(missing)
                else:
                    handle = await self._at_hand.find(hash, row)
                    found.append(missing if handle is None else handle_status(handle))
        return found

    async def handles(self, hashes: Sequence[Hash]) -> list[_native.Blob | None]:
        rows = self._at_hand.rows(hashes)
        return [await self._at_hand.find(hash, rows.get(bytes(hash))) for hash in hashes]

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

    # --- keeping and deleting ---------------------------------------------------------------------

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
            if damage is not None and await mend(
                damage, self._metadata, self._loader, self._at_hand
            ):
                self._publish(finding.hash, await self.handle(finding.hash))
            yield finding
        if hashes is None:
            async for path in strays(self._layout, self._metadata, self._entries):
                logger.info("%s belongs to no blob and is deleted", path)
                self._giver.trash(path)

    async def _look_through(
        self, hashes: Iterable[Hash] | None
    ) -> AsyncIterator[tuple[Finding, Damage | None]]:
        self._metadata.flush()
        if hashes is None:
            hashes = [hash async for hash, _ in self.blobs()]
        for hash in hashes:
            row = self._at_hand.row(hash)
            if row is not None and not self._at_hand.written(hash):
                yield await look_through(row, self._metadata, self._loader)

    # --- where data leave -------------------------------------------------------------------------

    async def stage(
        self,
        hashes: Sequence[Hash],
        directory: Path,
        *,
        keep: bool = False,
        places: Sequence[Path] | None = None,
        on_copied: OnCopied | None = None,
    ) -> list[Path]:
        own: dict[Hash, Path] = {}
        if self._landing is not None and places is not None and not keep:
            await self._landing.all_down()
            own = self._giver.let_go(dict(zip(hashes, places, strict=True)), Counter(hashes))
            for hash in own:
                self._entries.pop(hash, None)
        handles = await self._complete([hash for hash in hashes if hash not in own])
        staged = iter(await self._giver.stage(handles, directory, keep=keep, on_copied=on_copied))
        return [own.get(hash) or next(staged) for hash in hashes]

    async def settle(self, files: Sequence[tuple[Hash, Path]]) -> None:
        if self._landing is not None:
            return  # it was noted before
        for hash in self._giver.settle(files):
            self._entries.pop(hash, None)

    # --- the end ----------------------------------------------------------------------------------

    async def sync(self) -> None:
        """Waits until all that is complete, and all tags, are on the disk. Raises OSError."""
        if self._landing is not None:
            await self._landing.all_down()
        await self._upkeep.quiet()

    async def aclose(self) -> None:
        """Ends the store; everything stays in the folder. Raises OSError."""
        if self._closed:
            return
        self._closed = True
        if self._landing is not None:
            await self._landing.all_down()
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
            if self._landing is not None:
                await self._landing.all_down()
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
