"""What the memory store and the file store share: a table of blobs in this process.

A subclass says where received data go and how a blob becomes a file.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from aioiroh import _native
from aioiroh.aio import Watch
from aioiroh.errors import DecodeError

from ..errors import BlobTooLargeError, IncompleteBlobError, NotFoundError
from ..hash import BlobFormat, Hash, HashAndFormat
from ..hashseq import MAX_HASH_SEQ_SIZE, HashSeq
from ..ranges import ChunkRanges, chunk_count
from .hashing import hash_paths
from .interface import Added, BlobState, BlobStatus, OnHashed, Protect
from .reader import PIECE, LocalReader, read_slowly
from .tags import Tags, TempTag, TempTags
from .worker import DiskWorker

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Entry", "LocalStore", "LocalWriter", "write_file"]


@dataclass(slots=True)
class Entry:
    """One blob: a handle, or for complete ones in files what it takes to make one."""

    handle: _native.Blob | None = None
    path: Path | None = None
    size: int = 0
    outboard: bytes | Path = b""
    owned: bool = False
    """Whether the file at `path` is the store's own, to be moved or deleted."""
    writers: int = 0

    @property
    def is_complete(self) -> bool:
        return self.handle is None or self.handle.is_complete

    def opened(self, hash: Hash) -> _native.Blob:
        if self.handle is not None:
            return self.handle
        outboard = self.outboard
        return _native.Blob.open(
            bytes(hash),
            str(self.path),
            self.size,
            str(outboard) if isinstance(outboard, Path) else outboard,
        )


class LocalStore(ABC):
    """See `Store` for the methods."""

    def __init__(self) -> None:
        self.tags = Tags()
        self._temp = TempTags()
        self._entries: dict[Hash, Entry] = {}
        self._watches: dict[Hash, tuple[Watch[BlobStatus], int]] = {}
        self._worker: DiskWorker | None = None

    # --- what a subclass decides -----------------------------------------------------------------

    @abstractmethod
    def _create(self, hash: Hash, max_size: int) -> Entry:
        """An entry with a writable handle, for a blob that is about to arrive."""

    @abstractmethod
    def _outboard_path(self, size: int) -> Path | None:
        """Where the outboard of an imported file of `size` bytes goes; None: into memory."""

    @abstractmethod
    def _completed(self, entry: Entry) -> None:
        """All of an entry has arrived, and nobody writes any more."""

    @abstractmethod
    def _discard(self, entry: Entry) -> None:
        """Frees what the store owns of a deleted entry."""

    @abstractmethod
    async def stage(self, hash: Hash, directory: Path) -> Path: ...

    @abstractmethod
    async def settle(self, hash: Hash, path: Path) -> None: ...

    # --- looking ----------------------------------------------------------------------------------

    @property
    def worker(self) -> DiskWorker:
        if self._worker is None:
            self._worker = DiskWorker.acquire()
        return self._worker

    async def status(self, hash: Hash) -> BlobStatus:
        return self._status(hash)

    async def statuses(self, hashes: Sequence[Hash]) -> list[BlobStatus]:
        return [self._status(hash) for hash in hashes]

    def _status(self, hash: Hash) -> BlobStatus:
        if hash == Hash.EMPTY:
            return BlobStatus.complete(0)
        entry = self._entries.get(hash)
        if entry is None:
            return BlobStatus.missing()
        if entry.handle is None:
            return BlobStatus.complete(entry.size)
        return handle_status(entry.handle)

    async def observe(self, hash: Hash) -> AsyncIterator[BlobStatus]:
        watch, users = self._watches.get(hash) or (Watch(self._status(hash)), 0)
        self._watches[hash] = watch, users + 1
        try:
            async for status in watch:
                yield status
        finally:
            users = self._watches[hash][1] - 1
            if users:
                self._watches[hash] = watch, users
            else:
                del self._watches[hash]

    def _publish(self, hash: Hash) -> None:
        watched = self._watches.get(hash)
        if watched is not None:
            watched[0].set(self._status(hash))

    async def handle(self, hash: Hash) -> _native.Blob | None:
        if hash == Hash.EMPTY:
            return _native.Blob.from_bytes(b"")
        entry = self._entries.get(hash)
        return None if entry is None else entry.opened(hash)

    def reader(self, hash: Hash) -> LocalReader:
        return LocalReader(self, hash)

    async def read_bytes(self, hash: Hash, *, limit: int) -> bytes:
        handle = await self.handle(hash)
        if handle is None:
            raise NotFoundError(f"the store has no blob {hash}; get or add it first")
        status = handle_status(handle)
        if not status.is_complete or status.size is None:
            raise IncompleteBlobError(f"the store has only a part of blob {hash}; get the rest")
        if status.size > limit:
            raise BlobTooLargeError(
                f"blob {hash} has {status.size} bytes, over the limit of {limit}"
            )
        return await read_slowly(handle, 0, status.size)

    # --- writing ----------------------------------------------------------------------------------

    async def writer(self, hash: Hash, *, max_size: int) -> LocalWriter:
        if hash == Hash.EMPTY:
            return LocalWriter(self, hash, Entry(_native.Blob.memory(bytes(hash), 0)))
        entry = self._entries.get(hash)
        if entry is None:
            entry = self._entries[hash] = self._create(hash, max_size)
        elif entry.is_complete:
            raise ValueError(f"blob {hash} is complete; there is nothing to write")
        return LocalWriter(self, hash, entry)

    def _committed(self, hash: Hash, entry: Entry) -> None:
        """A writer left. What holds nothing is forgotten, so that a failed get leaves no trace."""
        handle = entry.handle
        if entry.writers or handle is None or self._entries.get(hash) is not entry:
            return
        if handle.is_complete:
            entry.size = handle.size or 0
            self._completed(entry)
        elif not handle.present:
            del self._entries[hash]
            self._discard(entry)
        self._publish(hash)

    async def add_bytes(self, data: Buffer, format: BlobFormat = BlobFormat.RAW) -> Added:
        handle = _native.Blob.from_bytes(data)
        hash = Hash(handle.hash)
        size = handle.size or 0
        return self._added(hash, Entry(handle, size=size), size, format)

    async def add_file(self, path: Path, on_hashed: OnHashed | None = None) -> Added:
        return (await self.add_many([path], on_hashed))[0]

    async def add_many(
        self, paths: Sequence[Path], on_hashed: OnHashed | None = None
    ) -> list[Added]:
        absolute = [path.absolute() for path in paths]
        files = await hash_paths(self.worker, absolute, self._outboard_path, on_hashed)
        return [
            self._added(
                file.hash,
                Entry(path=path, size=file.size, outboard=file.outboard),
                file.size,
                BlobFormat.RAW,
            )
            for path, file in zip(absolute, files, strict=True)
        ]

    def _added(self, hash: Hash, entry: Entry, size: int, format: BlobFormat) -> Added:
        tag = self._temp.add(HashAndFormat(hash, format))
        old = self._entries.get(hash)
        if hash != Hash.EMPTY and (old is None or not (old.is_complete or old.writers)):
            self._entries[hash] = entry
            self._publish(hash)
            if old is not None:
                self._discard(old)
        return Added(hash, size, tag)

    # --- keeping and deleting ---------------------------------------------------------------------

    def hold(self, content: HashAndFormat) -> TempTag:
        return self._temp.add(content)

    async def collect_garbage(self, protect: Protect | None = None) -> int:
        live: set[Hash] = set() if protect is None else set(await protect())
        for content in (*(content for _, content in self.tags.list()), *self._temp):
            live.add(content.hash)
            if content.format is BlobFormat.HASH_SEQ:
                live.update(await self._children(content.hash))
        dead = [
            hash for hash, entry in self._entries.items() if hash not in live and not entry.writers
        ]
        for hash in dead:
            entry = self._entries.pop(hash)
            self._discard(entry)
            self._publish(hash)
        return len(dead)

    async def _children(self, hash: Hash) -> HashSeq:
        """What a hash sequence names, as far as it is here and is one."""
        if not (await self.status(hash)).is_complete:
            return HashSeq()
        try:
            return HashSeq.from_bytes(await self.read_bytes(hash, limit=MAX_HASH_SEQ_SIZE))
        except (DecodeError, BlobTooLargeError):
            return HashSeq()

    async def aclose(self) -> None:
        self._entries.clear()
        for watch, _ in list(self._watches.values()):
            watch.close()
        if self._worker is not None:
            worker, self._worker = self._worker, None
            worker.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


class LocalWriter:
    """See `BlobWriter`."""

    def __init__(self, store: LocalStore, hash: Hash, entry: Entry) -> None:
        assert entry.handle is not None
        self._store = store
        self._hash = hash
        self._entry = entry
        self.handle = entry.handle
        entry.writers += 1

    def advanced(self) -> None:
        self._store._publish(self._hash)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._entry.writers -= 1
        self._store._committed(self._hash, self._entry)


def handle_status(handle: _native.Blob) -> BlobStatus:
    """What a native handle holds."""
    size = handle.size
    if handle.is_complete and size is not None:
        return BlobStatus.complete(size)
    present = ChunkRanges(handle.present)
    if handle.size_verified and size is not None:
        # With the last chunk the size is proved: nothing can lie behind it.
        last = chunk_count(size) - 1
        if last in present:
            present = present | ChunkRanges.chunks(last)
    state = BlobState.PARTIAL if present else BlobState.MISSING
    return BlobStatus(state, size, handle.size_verified, present)


async def write_file(handle: _native.Blob, size: int, path: Path) -> None:
    """Writes a complete blob to a new file."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    file = os.open(path, flags, 0o666)
    try:
        for offset in range(0, size, PIECE):
            left = memoryview(await read_slowly(handle, offset, min(PIECE, size - offset)))
            while left:
                left = left[os.write(file, left) :]
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(file)
