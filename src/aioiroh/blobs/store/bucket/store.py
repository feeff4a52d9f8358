"""Blobs in object storage, with a folder where they arrive and from where they are sent."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from aioiroh import _native
from aioiroh.aio import fan_out
from aioiroh.errors import BusyError

from ...errors import BlobTooLargeError, StorageError
from ...hash import BlobFormat, Hash, HashAndFormat
from ...ranges import ChunkRanges
from ..file.store import FileStore
from ..garbage import sweep
from ..interface import (
    Added,
    BlobState,
    BlobStatus,
    BlobWriter,
    Finding,
    ImportMode,
    OnCopied,
    OnHashed,
    Pieces,
    Protect,
)
from ..tags import Tags, TempTag, TempTags
from ..worker import DiskWorker
from .checking import look_through
from .copies import Copies
from .deleting import Deletions
from .garbage import NamedMarking
from .objects import Bucket, owner_of
from .parts import Parts
from .reader import BucketReader, read_range
from .uploads import Uploads, pieces_of
from .writer import StagedWriter

if TYPE_CHECKING:
    from obstore.store import ObjectStore
    from typing_extensions import Buffer

__all__ = ["BucketStore"]

AT_ONCE: Final = 32
"""Questions to the bucket at once."""
CACHE: Final = 1 << 30
PENDING: Final = 4 << 30


class BucketStore:
    """Blobs in a bucket. Make it with `await BucketStore.open(…)`; use it in `async with`.

    What arrives is kept in a folder, the staging folder, as by a `FileStore`, with the tags; when it is
    complete it is moved to the bucket in the background. `flush` waits for that. See `Store` for the
    methods; those that need the bucket raise StorageError if it fails. docs/object-storage.md has more.
    """

    def __init__(
        self, bucket: Bucket, local: FileStore, parts: Parts, owns: bool, limits: tuple[int, int]
    ) -> None:
        """Not for direct use; see `open`."""
        self._bucket = bucket
        self._local = local
        self._owns = owns
        self._temp = TempTags()
        self._uploads = Uploads(self._upload, limits[1])
        self._deletions = Deletions(bucket)
        self._writing: Counter[Hash] = Counter()
        self._copies = Copies(bucket, local, parts, limits[0], self._deletions, self._writing)
        self._collecting = asyncio.Lock()
        self._marking: NamedMarking | None = None
        self._closed = False

    @classmethod
    async def open(
        cls,
        bucket: str | ObjectStore,
        *,
        staging: str | os.PathLike[str],
        prefix: str = "",
        cache_size: int = CACHE,
        pending_size: int = PENDING,
        **options: Any,
    ) -> Self:
        """The store in a bucket: `s3://bucket/prefix` with obstore's options, or a store of obstore.

        `staging`: a folder of its own for this process. `prefix`: begins the name of every object.
        `cache_size`: bytes of what is in the bucket that are also kept in the folder, to be sent again.
        `pending_size`: bytes that may wait for the bucket before writing and adding wait, too.

        ImportError: obstore is missing. BusyError: another process uses the folder. StoreFormatError:
        the bucket or the folder holds something else. StorageError, OSError: they cannot be used.
        """
        objects = Bucket.open(bucket, prefix, options)
        folder = Path(staging).absolute()
        local = await FileStore.open(folder / "blobs")
        try:
            owns = await objects.claim(owner_of(folder / "owner"))
            parts = Parts(folder / "parts", objects, cache_size)
            self = cls(objects, local, parts, owns, (cache_size, pending_size))
            async for hash, status in local.blobs():
                if status.is_complete and status.size is not None:
                    self._uploads.add(hash, status.size)
            return self
        except BaseException:
            await local.aclose()
            raise

    # --- looking ----------------------------------------------------------------------------------

    @property
    def worker(self) -> DiskWorker:
        return self._local.worker

    @property
    def tags(self) -> Tags:
        return self._local.tags

    @property
    def pending(self) -> int:
        """How many blobs are complete here and not in the bucket yet."""
        return len(self._uploads)

    def hold(self, content: HashAndFormat) -> TempTag:
        return self._temp.add(content)

    async def status(self, hash: Hash) -> BlobStatus:
        return (await self.statuses((hash,)))[0]

    async def statuses(self, hashes: Sequence[Hash]) -> list[BlobStatus]:
        found = await self._local.statuses(hashes)
        unsure = [index for index, status in enumerate(found) if not status.is_complete]
        sizes = await fan_out(AT_ONCE, unsure, lambda index: self._bucket.size(hashes[index]))
        for index, size in zip(unsure, sizes, strict=True):
            if size is not None:
                found[index] = BlobStatus.complete(size)
        return [
            BlobStatus.missing() if hash in self._deletions else status
            for hash, status in zip(hashes, found, strict=True)
        ]

    async def observe(self, hash: Hash) -> AsyncIterator[BlobStatus]:
        last: BlobStatus | None = None
        async for status in self._local.observe(hash):
            # What is here no more may be in the bucket.
            now = status if status.is_complete else await self.status(hash)
            if now != last:
                yield now
                last = now

    async def blobs(self) -> AsyncIterator[tuple[Hash, BlobStatus]]:
        here: set[Hash] = set()
        async for hash, status in self._local.blobs():
            if hash not in self._deletions:
                here.add(hash)
                yield hash, (status if status.is_complete else await self.status(hash))
        async for hash, size in self._bucket.blobs():
            if hash not in here and hash not in self._deletions:
                yield hash, BlobStatus.complete(size)

    # --- reading ----------------------------------------------------------------------------------

    async def handle(self, hash: Hash) -> _native.Blob | None:
        return (await self.handles((hash,)))[0]

    async def handles(self, hashes: Sequence[Hash]) -> list[_native.Blob | None]:
        return await self._copies.handles(hashes)

    async def outgoing(
        self, hashes: Sequence[Hash], ranges: Sequence[ChunkRanges]
    ) -> list[_native.Blob | Pieces | None]:
        return await self._copies.outgoing(hashes, ranges)

    def reader(self, hash: Hash, *, wait: bool = False) -> BucketReader:
        return BucketReader(self._bucket, self._local, hash, wait)

    async def read_bytes(self, hash: Hash, *, limit: int) -> bytes:
        if (await self._local.status(hash)).is_complete:
            return await self._local.read_bytes(hash, limit=limit)
        size = await self._bucket.size(hash)
        if size is None:
            return await self._local.read_bytes(hash, limit=limit)  # raises why not
        if size > limit:
            raise BlobTooLargeError(f"blob {hash} has {size} bytes, over the limit of {limit}")
        return await read_range(self._bucket, hash, size, 0, size)

    async def stage(
        self,
        hashes: Sequence[Hash],
        directory: Path,
        *,
        keep: bool = False,
        places: Sequence[Path] | None = None,
        on_copied: OnCopied | None = None,
    ) -> list[Path]:
        """Always copies: the bucket keeps the blobs."""
        paths: list[Path] = []
        try:
            # One after the other: what was brought makes room for the next.
            for hash in hashes:
                await self._copies.bring(hash)
                paths += await self._local.stage((hash,), directory, keep=True, on_copied=on_copied)
        except BaseException:
            for path in paths:
                path.unlink(missing_ok=True)
            raise
        return paths

    async def settle(self, files: Sequence[tuple[Hash, Path]]) -> None:
        """The copies are none of the store's."""

    # --- writing ----------------------------------------------------------------------------------

    async def writer(self, hash: Hash, *, max_size: int) -> BlobWriter:
        [writer] = await self.writers((hash,), max_size=max_size)
        if writer is None:
            raise ValueError(f"blob {hash} is complete; there is nothing to write")
        return writer

    async def writers(
        self, hashes: Sequence[Hash], *, max_size: int
    ) -> Sequence[BlobWriter | None]:
        await self._uploads.room()
        await self._deletions.over(hashes)
        statuses = await self.statuses(hashes)
        wanted = [hash for hash, s in zip(hashes, statuses, strict=True) if not s.is_complete]
        opened = dict(
            zip(wanted, await self._local.writers(wanted, max_size=max_size), strict=True)
        )
        return [
            None if (writer := opened.get(hash)) is None else self._staged(hash, writer)
            for hash in hashes
        ]

    def _staged(self, hash: Hash, writer: BlobWriter) -> StagedWriter:
        self._writing[hash] += 1
        return StagedWriter(writer, lambda: self._left(hash))

    async def _left(self, hash: Hash) -> None:
        """A writer left; if the blob is complete, it belongs into the bucket."""
        self._writing[hash] -= 1
        if not self._writing[hash]:
            del self._writing[hash]
        status = await self._local.status(hash)
        if status.is_complete and status.size is not None and hash != Hash.EMPTY:
            self._arrived(hash, status.size)

    def _arrived(self, hash: Hash, size: int) -> None:
        if self._marking is not None:
            whole = HashAndFormat(hash, BlobFormat.HASH_SEQ)
            self._marking.spare(whole if whole in self._temp else HashAndFormat(hash))
        if hash != Hash.EMPTY:
            self._uploads.add(hash, size)

    async def _upload(self, hash: Hash) -> None:
        async with self._deletions.lock(hash):
            handle = await self._local.handle(hash)
            if handle is None or not handle.is_complete or handle.size is None:
                return  # it was deleted
            size = handle.size
            if await self._bucket.size(hash) != size:
                try:
                    outboard = await asyncio.to_thread(handle.outboard)
                except OSError as error:
                    raise StorageError(f"blob {hash} cannot be read here: {error}") from error
                await self._bucket.write(hash, size, pieces_of(handle, size), outboard)
            self._copies.made(hash, size)
        await self._copies.evict()

    async def flush(self) -> None:
        """Waits until everything that is complete is in the bucket. StorageError: it could not be."""
        await self._uploads.flush()

    async def put_verified(self, blobs: Sequence[tuple[Hash, bytes]]) -> None:
        await self._uploads.room()
        await self._deletions.over(hash for hash, _ in blobs)
        await self._local.put_verified(blobs)
        for hash, data in blobs:
            self._arrived(hash, len(data))

    async def add_bytes(self, data: Buffer, format: BlobFormat = BlobFormat.RAW) -> Added:
        return (await self._added([await self._adding(self._local.add_bytes(data))], format))[0]

    async def add_many(self, blobs: Iterable[Buffer]) -> list[Added]:
        return await self._added(await self._adding(self._local.add_many(blobs)))

    async def add_stream(
        self, pieces: AsyncIterable[Buffer], format: BlobFormat = BlobFormat.RAW
    ) -> Added:
        return (await self._added([await self._adding(self._local.add_stream(pieces))], format))[0]

    async def add_file(
        self,
        path: str | os.PathLike[str],
        *,
        mode: ImportMode = ImportMode.COPY,
        on_hashed: OnHashed | None = None,
    ) -> Added:
        return (await self.add_files([path], mode=mode, on_hashed=on_hashed))[0]

    async def add_files(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        mode: ImportMode = ImportMode.COPY,
        on_hashed: OnHashed | None = None,
    ) -> list[Added]:
        """With either mode the bucket has a copy in the end; until then a file that is only referred
        to must not change.
        """
        return await self._added(
            await self._adding(self._local.add_files(paths, mode=mode, on_hashed=on_hashed))
        )

    async def _adding(self, work: Awaitable[Any]) -> Any:
        try:
            await self._uploads.room()
        except BaseException:
            work.close()  # type: ignore[attr-defined]
            raise
        return await work

    async def _added(
        self, blobs: Sequence[Added], format: BlobFormat = BlobFormat.RAW
    ) -> list[Added]:
        """Holds what was added here, and sends it to the bucket."""
        result = []
        for blob in blobs:
            held = Added(blob.hash, blob.size, self.hold(HashAndFormat(blob.hash, format)))
            blob.tag.release()
            await self._deletions.over((blob.hash,))
            self._arrived(blob.hash, blob.size)
            result.append(held)
        return result

    # --- keeping and deleting ---------------------------------------------------------------------

    async def collect_garbage(self, protect: Protect | None = None) -> int:
        """As `Store.collect_garbage`. BusyError: another staging folder has the tags."""
        self._check_owner("collect garbage")
        async with self._collecting:
            self._marking = NamedMarking(self.tags, self._temp)
            erasing: list[asyncio.Task[None]] = []

            def drop(hashes: Sequence[Hash]) -> int:
                idle = [hash for hash in hashes if not self._writing[hash]]
                erasing.append(self._erase_soon(idle))
                return len(idle)

            try:
                if protect is not None:
                    self._marking.live.update(await protect())
                number = await sweep(self, self._marking, drop)
            finally:
                self._marking = None
            await asyncio.gather(*erasing)
            return number

    async def delete(self, hashes: Iterable[Hash]) -> int:
        """As `Store.delete`. BusyError: another staging folder has the tags."""
        self._check_owner("delete")
        idle = [hash for hash in dict.fromkeys(hashes) if not self._writing[hash]]
        found = await self.statuses(idle)
        gone = [h for h, s in zip(idle, found, strict=True) if s.state is not BlobState.MISSING]
        await self._erase_soon(gone)
        return len(gone)

    def _check_owner(self, what: str) -> None:
        if not self._owns:
            raise BusyError(f"another staging folder keeps this bucket and its tags; {what} there")

    def _erase_soon(self, hashes: Sequence[Hash]) -> asyncio.Task[None]:
        """From here on they are missing; the task does the deed."""
        for hash in hashes:
            self._bucket.forget(hash)
            self._uploads.forget(hash)
            self._copies.forget(hash)
        # At once: what is added from now on is not what is deleted.
        self._local._drop(hashes)
        return self._deletions.begin(hashes)

    async def verify(self, hashes: Iterable[Hash] | None = None) -> AsyncIterator[Finding]:
        """As `Store.verify`: what is here, then what is in the bucket, so some blobs come twice."""
        wanted = None if hashes is None else list(hashes)
        async for finding in self._local.verify(wanted):
            yield finding
        async for finding in look_through(self._bucket, self._local, wanted):
            yield finding

    async def repair(self, hashes: Iterable[Hash] | None = None) -> AsyncIterator[Finding]:
        """As `Store.repair`, in the order of `verify`. BusyError: another staging folder has the tags."""
        self._check_owner("repair")
        wanted = None if hashes is None else list(hashes)
        async for finding in self._local.repair(wanted):
            yield finding
        async for finding in look_through(self._bucket, self._local, wanted):
            if not finding.is_good:
                await self._mend(finding.hash)
            yield finding

    async def _mend(self, hash: Hash) -> None:
        """Takes a damaged object away, and writes it again if the blob is here, too."""
        async with self._deletions.lock(hash):
            await self._bucket.delete(hash)
        status = await self._local.status(hash)
        if status.is_complete and status.size is not None:
            self._uploads.add(hash, status.size)

    # --- the end ----------------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Moves what is complete to the bucket and ends the store.

        StorageError: some could not be; it stays in the folder and is moved after the next `open`.
        """
        if self._closed:
            return
        self._closed = True
        try:
            await self.flush()
        finally:
            await self._let_go()

    async def _let_go(self) -> None:
        await self._uploads.aclose()
        await self._deletions.aclose()
        self._copies.close()
        await self._local.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            await self.aclose()
        elif not self._closed:
            self._closed = True
            await self._let_go()
