"""What the memory store and the file store share: blobs as native handles in this process.

A subclass says where blobs are kept between their uses, where received data go and how a blob
becomes a file.
"""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from aioiroh import _native
from aioiroh.aio import Closing, Watch

from ..errors import BlobTooLargeError, IncompleteBlobError, NotFoundError
from ..hash import BlobFormat, Hash, HashAndFormat
from ..ranges import ChunkRanges, chunk_count
from .garbage import Marking, sweep
from .interface import (
    Added,
    BlobState,
    BlobStatus,
    Finding,
    ImportMode,
    OnCopied,
    OnHashed,
    Pieces,
    Protect,
)
from .reader import LocalReader, read_slowly
from .tags import Tags, TempTag, TempTags
from .worker import DiskWorker

if TYPE_CHECKING:
    from collections.abc import AsyncIterable

    from typing_extensions import Buffer

__all__ = ["Entry", "LocalStore", "LocalWriter", "handle_status"]


@dataclass(slots=True)
class Entry:
    """A blob that is in use: the handle that all its users share, and how many write."""

    handle: _native.Blob
    writers: int = 0


class LocalStore(Closing, ABC):
    """See `Store` for the methods."""

    def __init__(self, tags: Tags) -> None:
        self.tags = tags
        self._temp = TempTags()
        self._watches: dict[Hash, tuple[Watch[BlobStatus], int]] = {}
        self._worker: DiskWorker | None = None
        self._collecting = asyncio.Lock()
        self._marking: Marking | None = None

    # --- what a subclass decides -----------------------------------------------------------------

    @abstractmethod
    async def statuses(self, hashes: Sequence[Hash]) -> list[BlobStatus]: ...

    @abstractmethod
    async def handles(self, hashes: Sequence[Hash]) -> list[_native.Blob | None]: ...

    @abstractmethod
    async def writers(
        self, hashes: Sequence[Hash], *, max_size: int
    ) -> list[LocalWriter | None]: ...

    @abstractmethod
    async def put_verified(self, blobs: Sequence[tuple[Hash, bytes]]) -> None: ...

    @abstractmethod
    async def add_many(self, blobs: Iterable[Buffer]) -> list[Added]: ...

    @abstractmethod
    async def add_stream(
        self, pieces: AsyncIterable[Buffer], format: BlobFormat = BlobFormat.RAW
    ) -> Added: ...

    @abstractmethod
    async def add_files(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        mode: ImportMode = ImportMode.REFERENCE,
        on_hashed: OnHashed | None = None,
    ) -> list[Added]: ...

    @abstractmethod
    async def stage(
        self,
        hashes: Sequence[Hash],
        directory: Path,
        *,
        keep: bool = False,
        places: Sequence[Path] | None = None,
        on_copied: OnCopied | None = None,
    ) -> list[Path]: ...

    @abstractmethod
    async def settle(self, files: Sequence[tuple[Hash, Path]]) -> None: ...

    @abstractmethod
    def blobs(self) -> AsyncIterator[tuple[Hash, BlobStatus]]: ...

    @abstractmethod
    def verify(self, hashes: Iterable[Hash] | None = None) -> AsyncIterator[Finding]: ...

    @abstractmethod
    def repair(self, hashes: Iterable[Hash] | None = None) -> AsyncIterator[Finding]: ...

    @abstractmethod
    def _drop(self, hashes: Sequence[Hash]) -> int:
        """Deletes blobs, at once, except those that are being written; gives their number."""

    @abstractmethod
    def _progressed(self, hash: Hash, entry: Entry) -> None:
        """Verified pieces have arrived."""

    @abstractmethod
    def _left(self, hash: Hash, entry: Entry) -> None:
        """The last writer of an entry has left."""

    # --- looking ----------------------------------------------------------------------------------

    @property
    def worker(self) -> DiskWorker:
        if self._worker is None:
            self._worker = DiskWorker.acquire()
        return self._worker

    async def status(self, hash: Hash) -> BlobStatus:
        return (await self.statuses((hash,)))[0]

    async def observe(self, hash: Hash) -> AsyncIterator[BlobStatus]:
        status = await self.status(hash)
        watch, users = self._watches.get(hash) or (Watch(status), 0)
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

    def _publish(self, hash: Hash, handle: _native.Blob | None) -> None:
        """Tells observers of a change; no handle: there is nothing any more."""
        watched = self._watches.get(hash)
        if watched is not None:
            watched[0].set(BlobStatus.missing() if handle is None else handle_status(handle))

    async def handle(self, hash: Hash) -> _native.Blob | None:
        return (await self.handles((hash,)))[0]

    async def outgoing(
        self, hashes: Sequence[Hash], ranges: Sequence[ChunkRanges]
    ) -> list[_native.Blob | Pieces | None]:
        return [*await self.handles(hashes)]

    def reader(self, hash: Hash, *, wait: bool = False) -> LocalReader:
        return LocalReader(self, hash, wait)

    async def read_bytes(self, hash: Hash, *, limit: int) -> bytes:
        [handle] = await self._complete((hash,))
        size = handle.size or 0
        if size > limit:
            raise BlobTooLargeError(f"blob {hash} has {size} bytes, over the limit of {limit}")
        return await read_slowly(handle, 0, size, self.worker)

    async def _complete(self, hashes: Sequence[Hash]) -> list[_native.Blob]:
        """The handles of complete blobs. NotFoundError or IncompleteBlobError: one is not."""
        handles: list[_native.Blob] = []
        for hash, handle in zip(hashes, await self.handles(hashes), strict=True):
            if handle is None:
                raise NotFoundError(f"the store has no blob {hash}; get or add it first")
            if not handle.is_complete:
                raise IncompleteBlobError(f"the store has only a part of blob {hash}; get the rest")
            handles.append(handle)
        return handles

    # --- adding -----------------------------------------------------------------------------------

    async def writer(self, hash: Hash, *, max_size: int) -> LocalWriter:
        [writer] = await self.writers((hash,), max_size=max_size)
        if writer is None:
            raise ValueError(f"blob {hash} is complete; there is nothing to write")
        return writer

    async def add_bytes(self, data: Buffer, format: BlobFormat = BlobFormat.RAW) -> Added:
        [added] = await self.add_many((data,))
        return self._as(added, format)

    def _as(self, added: Added, format: BlobFormat) -> Added:
        if format is BlobFormat.RAW:
            return added
        held = Added(added.hash, added.size, self.hold(HashAndFormat(added.hash, format)))
        added.tag.release()
        return held

    async def add_file(
        self,
        path: str | os.PathLike[str],
        *,
        mode: ImportMode = ImportMode.REFERENCE,
        on_hashed: OnHashed | None = None,
    ) -> Added:
        return (await self.add_files([path], mode=mode, on_hashed=on_hashed))[0]

    def _added(self, hash: Hash, size: int) -> Added:
        return Added(hash, size, self.hold(HashAndFormat(hash)))

    # --- keeping and deleting ---------------------------------------------------------------------

    def hold(self, content: HashAndFormat) -> TempTag:
        if self._marking is not None:
            self._marking.spare(content)
        return self._temp.add(content)

    def _arrived(self, hash: Hash) -> None:
        """A blob is complete: garbage collection that runs has not counted on it."""
        if self._marking is not None:
            whole = HashAndFormat(hash, BlobFormat.HASH_SEQ)
            self._marking.spare(whole if whole in self._temp else HashAndFormat(hash))

    def _spare_named(self, changes: dict[bytes, HashAndFormat | None]) -> None:
        """Tags were set or deleted."""
        if self._marking is not None:
            for content in changes.values():
                if content is not None:
                    self._marking.spare(content)

    async def delete(self, hashes: Iterable[Hash]) -> int:
        return self._drop(tuple(hashes))

    async def collect_garbage(self, protect: Protect | None = None) -> int:
        async with self._collecting:
            self._marking = Marking()
            try:
                if protect is not None:
                    self._marking.live.update(await protect())
                for content in (*(content for _, content in self.tags.list()), *self._temp):
                    self._marking.spare(content)
                return await sweep(self, self._marking, self._drop)
            finally:
                self._marking = None

    async def aclose(self) -> None:
        for watch, _ in list(self._watches.values()):
            watch.close()
        if self._worker is not None:
            worker, self._worker = self._worker, None
            worker.release()


class LocalWriter:
    """See `BlobWriter`."""

    __slots__ = ("_entry", "_hash", "_store", "handle")

    def __init__(self, store: LocalStore, hash: Hash, entry: Entry) -> None:
        self._store = store
        self._hash = hash
        self._entry = entry
        self.handle = entry.handle
        entry.writers += 1

    def advanced(self) -> None:
        self._store._progressed(self._hash, self._entry)
        self._store._publish(self._hash, self.handle)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._entry.writers -= 1
        if not self._entry.writers:
            self._store._left(self._hash, self._entry)


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
