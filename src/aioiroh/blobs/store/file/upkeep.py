"""What a file store does in the background: sync what was written, delete what is dropped."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from ..worker import DiskWorker
from .disk import Disk
from .layout import Layout
from .metadata import Metadata
from .rows import Kind, Row

__all__ = ["Upkeep"]

logger = logging.getLogger("aioiroh.blobs.store")

DELAY: Final = 0.005
"""Seconds until changes that are too few for a transaction get one anyway."""
LATEST: Final = 1.0
"""Seconds until transactions are synced."""
LOG: Final = 8 * 1024 * 1024
"""Bytes in the log that are synced at once, if anything is to be."""
MOST_LOG: Final = 64 * 1024 * 1024
"""Bytes in the log from which on whoever adds something waits."""
FREED_TOGETHER: Final = 16
"""Names of files that are taken away in one turn of the loop."""
SYNCED_TOGETHER: Final = 64
"""Blobs whose files are synced in one job."""


class Upkeep:
    """The chores of one store, done by one task one after the other."""

    def __init__(
        self, layout: Layout, metadata: Metadata, disk: Disk, worker: DiskWorker, durable: bool
    ) -> None:
        self._layout = layout
        self._metadata = metadata
        self._disk = disk
        self._worker = worker
        self._durable = durable
        self._to_sync: dict[bytes, Kind] = {}
        self._to_delete: list[Path] = []
        self._to_free: dict[bytes, None] = {}
        self._log = 0
        self._wake = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._timer: asyncio.TimerHandle | None = None
        self._due: asyncio.TimerHandle | None = None
        self._checkpoint_due = False
        self.failure: OSError | None = None
        self.on_durable: Callable[[Sequence[bytes]], None] = lambda hashes: None
        metadata.on_commit = self._committed
        if durable:
            # What a process has left that was killed, or that did not care.
            self._to_sync.update(metadata.unsynced(disk.boot()))
            self._rouse()

    # --- what is to be done -----------------------------------------------------------------------

    def flush_soon(self) -> None:
        """Rows wait for a transaction."""
        if self._timer is None and self._metadata.waiting:
            self._timer = asyncio.get_running_loop().call_later(DELAY, self.flush_now)

    def sync_soon(self, row: Row) -> None:
        """The data of a complete blob are to be made durable."""
        if self._durable and row.kind in (Kind.FILE, Kind.REFERENCE, Kind.PARTIAL):
            self._to_sync[row.hash] = row.kind
            self._rouse()

    def delete_soon(self, *paths: Path) -> None:
        """Files that the database, with what waits for it, does not name any more."""
        self._to_delete += paths
        self._rouse()

    def free_later(self, row: Row) -> None:
        """The store's own file of a blob is not needed once what the row says is on the disk."""
        self._to_free[row.hash] = None
        self._rouse()

    def flush(self) -> None:
        """Makes the changes that wait. Raises OSError; then they wait on."""
        try:
            self._metadata.flush()
        except OSError as error:
            self.failure = error
            raise
        self.failure = None

    async def room(self) -> None:
        """Waits while too much of the log is not synced. Raises OSError if that fails."""
        while self._log > MOST_LOG and self.failure is None:
            self._checkpoint_due = True
            self._rouse()
            await self._quiet.wait()
        self.check()

    def check(self) -> None:
        """Raises OSError if changes could not be written, and still cannot."""
        if self.failure is not None:
            self.flush()

    async def quiet(self) -> None:
        """Waits until all that was written is on the disk, if it is to be. Raises OSError."""
        self.flush()
        while self._has_work or self._log > 0:
            self._checkpoint_due = True
            self._rouse()
            await self._quiet.wait()
            if self.failure is not None:
                failure, self.failure = self.failure, None
                raise failure

    # --- how it is done ---------------------------------------------------------------------------

    async def run(self) -> None:
        """Does what is to be done, until it is cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while self._has_work:
                    await self._delete()
                    await self._sync()
                    await self._checkpoint()
            except OSError as error:
                logger.warning("the store in %s: %s", self._layout.folder, error)
                self.failure = error
            except Exception as error:
                # Whoever waits for this must not wait for ever.
                logger.exception("the store in %s: its upkeep failed", self._layout.folder)
                self.failure = OSError(errno.EIO, f"the upkeep of the store failed: {error!r}")
            self._quiet.set()

    @property
    def _has_work(self) -> bool:
        return bool(self._to_sync or self._to_delete or self._to_free or self._checkpoint_due)

    def stop(self) -> None:
        """Nothing is done by itself any more."""
        for timer in (self._timer, self._due):
            if timer is not None:
                timer.cancel()
        self._timer = self._due = None

    async def finish(self) -> None:
        """Does what is left, after `run` was cancelled."""
        self._metadata.flush()
        while self._to_sync:
            await self._sync()
        if self._to_free:
            self._checkpoint_due = True
            await self._checkpoint()
        await self._delete()

    def _rouse(self) -> None:
        self._quiet.clear()
        self._wake.set()

    def flush_now(self) -> None:
        """As `flush`, for who cannot do anything about an error: the next to write hears of it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            self.flush()
        except OSError as error:
            logger.warning("the store in %s: %s", self._layout.folder, error)

    def _committed(self, size: int) -> None:
        self._disk.committed(self._layout.database)
        self._log += size
        if self._log > (LOG if self._durable else MOST_LOG // 2):
            self._due_now()
        elif self._due is None and self._durable:
            self._due = asyncio.get_running_loop().call_later(LATEST, self._due_now)

    def _due_now(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        self._checkpoint_due = True
        self._rouse()

    async def _checkpoint(self) -> None:
        if self._to_free and not self._durable:
            # The system will remember it in any case.
            self._metadata.flush()
            await self._free(self._to_free)
        if self._checkpoint_due or (self._to_free and self._durable):
            self._metadata.flush()
            self._checkpoint_due = False
            size = self._log
            free = [hash for hash in self._to_free if hash not in self._to_sync]
            await self._worker.call(self._metadata.checkpoint)
            self._disk.checkpointed(self._layout.database)
            self._log -= size
            await self._free(free)

    async def _free(self, hashes: Iterable[bytes]) -> None:
        waiting = tuple(hashes)
        for start in range(0, len(waiting), FREED_TOGETHER):
            some = waiting[start : start + FREED_TOGETHER]
            for hash in some:
                del self._to_free[hash]
            self.on_durable(some)
            await asyncio.sleep(0)

    async def _delete(self) -> None:
        paths, self._to_delete = self._to_delete, []
        if paths:
            self._metadata.flush()
            await self._worker.call(lambda: self._disk.unlink(*paths))

    async def _sync(self) -> None:
        batch = dict(list(self._to_sync.items())[:SYNCED_TOGETHER])
        for hash in batch:
            del self._to_sync[hash]
        if not batch:
            return
        done: list[tuple[bytes, Kind]] = []
        for hash, kind in batch.items():
            try:
                await self._worker.sync_files(self._files(hash, kind))
            except OSError as error:
                # It stays what it is: not known to be on the disk.
                logger.debug("blob %s could not be synced: %s", hash.hex(), error)
            except asyncio.CancelledError:
                self._to_sync = batch | self._to_sync
                raise
            else:
                if hash not in self._to_sync:  # or it was written again meanwhile
                    done.append((hash, kind))
        self._metadata.synced(done)

    def _files(self, hash: bytes, kind: Kind) -> list[Path]:
        if kind is Kind.REFERENCE:
            files: list[Path] = []
            for reference in self._metadata.references((hash,))[hash]:
                path = Path(os.fsdecode(reference.path))
                files += (path, path.parent)
        else:
            data = self._layout.data(hash)
            # The names are in the folder.
            files = [data, data.parent]
        outboard = self._layout.outboard(hash)
        if outboard.exists():
            files.append(outboard)
            if outboard.parent not in files:
                files.append(outboard.parent)
        return files
