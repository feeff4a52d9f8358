"""The native disk worker as asyncio sees it: jobs that hash, import, validate, copy and sync files.

There is one worker for each event loop; stores share it. It has one thread for all work, and one
that waits for the disk to sync, so that transfers need not. A loop that watches no descriptors
(virtual time, a browser) gets an inline worker without threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from aioiroh import _native

from ..hash import Hash
from ..ranges import ChunkRanges

__all__ = ["DiskWorker", "HashedFile"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HashedFile:
    """Hash and size (bytes) of a file, and its outboard or where that is."""

    hash: Hash
    size: int
    outboard: bytes | Path


class _Job:
    """A job in progress: who waits, and who hears of events before the end."""

    __slots__ = ("done", "on_event")

    def __init__(self, on_event: Callable[[str, Any], None] | None) -> None:
        self.done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.on_event = on_event


def _progress(on_progress: Callable[[int], None] | None) -> Callable[[str, Any], None]:
    def on_event(kind: str, value: Any) -> None:
        if kind == "progress" and on_progress is not None:
            on_progress(value)

    return on_event


class DiskWorker:
    """Share of the loop's disk worker; see `acquire`."""

    keeps_journal: ClassVar[bool] = False
    """For tests: an inline worker remembers what it did to files."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # Weak, because the table of workers is keyed by loop and must not keep it alive.
        self._loop = weakref.ref(loop)
        self._inline = False
        self._native = _native.Worker()
        try:
            loop.add_reader(self._native.fileno(), self._poll)
        except (RuntimeError, NotImplementedError):
            self._native.close()
            self._inline = True
            self._native = _native.Worker(inline=True, journal=self.keeps_journal)
        self._jobs: dict[int, _Job] = {}
        self._transfers: dict[int, Callable[[], None]] = {}
        self._users = 0

    @classmethod
    def acquire(cls) -> DiskWorker:
        """The worker of the running loop, started if need be. Give it back with `release`."""
        loop = asyncio.get_running_loop()
        worker = _WORKERS.get(loop)
        if worker is None:
            worker = _WORKERS[loop] = cls(loop)
        worker._users += 1
        return worker

    def release(self) -> None:
        """Ends the worker when nobody uses it any more."""
        self._users -= 1
        if self._users > 0:
            return
        loop = self._loop()
        if loop is not None:
            _WORKERS.pop(loop, None)
            if not self._inline and not loop.is_closed():
                loop.remove_reader(self._native.fileno())
        for job in self._jobs.values():
            job.done.cancel()
        self._jobs.clear()
        self._native.close()

    @property
    def native(self) -> _native.Worker:
        """For native receivers and senders."""
        return self._native

    def touched(self) -> None:
        """After each call that gave native code something to do: an inline worker has done it."""
        loop = self._loop()
        if self._inline and loop is not None:
            loop.call_soon(self._poll)

    @contextlib.contextmanager
    def reports(
        self, transfer: _native.BlobReceiver | _native.BlobSender, on_report: Callable[[], None]
    ) -> Iterator[None]:
        """Within, `on_report` is called for reports that come after the stream is over."""
        self._transfers[transfer.id] = on_report
        try:
            yield
        finally:
            del self._transfers[transfer.id]

    async def hash_file(
        self,
        path: Path,
        outboard_path: Path | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> HashedFile:
        """Hashes a file and makes its outboard, in memory or at `outboard_path`.

        `on_progress` gets the number of bytes hashed so far. Raises OSError.
        """

        outboard = None if outboard_path is None else str(outboard_path)
        job = self._native.hash_file(str(path), outboard)
        return await self._hashed(job, path, outboard_path, on_progress)

    async def import_file(
        self,
        source: Path,
        target: Path,
        outboard_path: Path | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> HashedFile:
        """Makes a file with the content of another, and hashes it in the same pass.

        By reference where the system can. What was at `target` is overwritten; a failure or a
        cancellation leaves a part of it. Raises OSError; EBUSY: the source was changed meanwhile.
        """
        outboard = None if outboard_path is None else str(outboard_path)
        job = self._native.import_file(str(source), str(target), outboard)
        return await self._hashed(job, source, outboard_path, on_progress)

    async def _hashed(
        self,
        job: int,
        path: Path,
        outboard_path: Path | None,
        on_progress: Callable[[int], None] | None,
    ) -> HashedFile:
        digest, size, data = await self._finished(job, _progress(on_progress), str(path))
        where: bytes | Path = data if outboard_path is None else outboard_path
        return HashedFile(Hash(digest), size, where)

    async def validate(
        self,
        hash: Hash,
        data_path: Path,
        outboard: bytes | Path,
        size: int,
        trusted: ChunkRanges | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> ChunkRanges:
        """Which chunks of a blob's files are what its hash says, in whole groups.

        Whole groups of `trusted` are not read, and chunks of it in other groups are kept, too; but the
        hash pairs above them must verify and the file must reach that far. `size` may be a claim.
        Raises OSError.
        """
        boundaries = () if trusted is None else trusted.boundaries
        where = str(outboard) if isinstance(outboard, Path) else outboard
        job = self._native.validate(bytes(hash), str(data_path), where, size, boundaries)
        return ChunkRanges(await self._finished(job, _progress(on_progress), str(data_path)))

    async def hash_files(
        self,
        paths: Sequence[Path],
        on_file: Callable[[int, HashedFile], None] | None = None,
    ) -> list[HashedFile]:
        """Hashes many small files in one job, outboards in memory; in order. Raises OSError."""
        hashed: dict[int, HashedFile] = {}
        failures: list[OSError] = []

        def on_event(kind: str, value: Any) -> None:
            if kind == "file":
                index, digest, size, outboard = value
                hashed[index] = HashedFile(Hash(digest), size, outboard)
                if on_file is not None:
                    on_file(index, hashed[index])
            elif kind == "file_error":
                index, number, text = value
                failures.append(OSError(number, text, str(paths[index])))

        if paths:
            await self._finished(self._native.hash_files([str(p) for p in paths]), on_event, None)
        if failures:
            raise failures[0]
        return [hashed[index] for index in range(len(paths))]

    async def write_blobs(
        self,
        blobs: Sequence[tuple[_native.Blob, str | Path]],
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        """Writes complete blobs to files: copies of files by reference where the system can.

        What was there is overwritten; a failure or a cancellation leaves a part. Raises OSError; EBUSY:
        the file that has a blob was changed.
        """
        if blobs:
            job = self._native.write_blobs([(blob, str(path)) for blob, path in blobs])
            await self._finished(job, _progress(on_progress), None)

    async def sync_files(self, paths: Sequence[Path]) -> None:
        """Waits until the content of the files is on the disk. Raises OSError."""
        await self._finished(self._native.sync_files([str(p) for p in paths]), None, None)

    async def call(self, function: Callable[[], T]) -> T:
        """Calls what blocks: in a thread, or at once where the loop has none beside it.

        A cancellation waits for the end of the call.
        """
        if self._inline:
            return function()
        call = asyncio.ensure_future(asyncio.to_thread(function))
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            await asyncio.wait((call,))
            raise

    @classmethod
    async def call_once(cls, function: Callable[[], T]) -> T:
        """`call`, for who has no worker yet."""
        worker = cls.acquire()
        try:
            return await worker.call(function)
        finally:
            worker.release()

    async def _finished(
        self, job: int, on_event: Callable[[str, Any], None] | None, path: str | None
    ) -> Any:
        state = self._jobs[job] = _Job(on_event)
        self.touched()
        try:
            return await state.done
        except OSError as error:
            raise OSError(error.errno, error.strerror, error.filename or path) from None
        except asyncio.CancelledError:
            if self._jobs.pop(job, None) is not None:
                self._native.cancel(job)
            raise

    def _poll(self) -> None:
        for number, kind, value in self._native.poll():
            if kind == "transfer":
                on_report = self._transfers.get(number)
                if on_report is not None:
                    on_report()
                continue
            job = self._jobs.get(number)
            if job is None:
                continue  # cancelled
            if kind == "done" or kind == "error":
                del self._jobs[number]
                if job.done.done():
                    continue
                if kind == "done":
                    job.done.set_result(value)
                else:
                    job.done.set_exception(OSError(*value))
            elif job.on_event is not None:
                job.on_event(kind, value)


_WORKERS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, DiskWorker] = (
    weakref.WeakKeyDictionary()
)
