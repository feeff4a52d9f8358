"""What a store of blobs offers: the interface that memory, files and other storage implement.

Data go in and out as native `Blob` handles, so that a transfer moves them between network and
storage without a Python object for each piece. A store whose storage is elsewhere (an object store,
a browser) hands out a staging handle and moves the content when a writer commits.
"""

from __future__ import annotations

import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Sequence,
)
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from ..hash import BlobFormat, Hash, HashAndFormat
from ..ranges import ChunkRanges

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from aioiroh._native import Blob

    from .tags import Tags, TempTag
    from .worker import DiskWorker

__all__ = [
    "Added",
    "BlobReader",
    "BlobState",
    "BlobStatus",
    "BlobWriter",
    "Finding",
    "ImportMode",
    "OnCopied",
    "OnHashed",
    "Pieces",
    "Protect",
    "Store",
]


class BlobState(Enum):
    """How much of a blob a store has."""

    MISSING = "missing"
    PARTIAL = "partial"
    COMPLETE = "complete"


@dataclass(frozen=True, slots=True)
class BlobStatus:
    """What a store has of one blob.

    `size` in bytes; None if unknown. Only if `size_verified` is it more than a peer's claim.
    `present`: the chunks that are there; without upper end once the last chunk is.
    """

    state: BlobState
    size: int | None = None
    size_verified: bool = False
    present: ChunkRanges = ChunkRanges.empty()  # noqa: RUF009 - immutable

    @property
    def is_complete(self) -> bool:
        return self.state is BlobState.COMPLETE

    @classmethod
    def missing(cls) -> BlobStatus:
        return cls(BlobState.MISSING)

    @classmethod
    def complete(cls, size: int) -> BlobStatus:
        return cls(BlobState.COMPLETE, size, True, ChunkRanges.all())


@dataclass(frozen=True, slots=True)
class Added:
    """A blob that was imported: its hash and its size in bytes.

    Holds a temporary tag: as long as this object lives, garbage collection spares the blob.
    """

    hash: Hash
    size: int
    tag: TempTag


class ImportMode(Enum):
    """What becomes of a file that is added to a store that outlives the process."""

    REFERENCE = "reference"
    """It is read where it is. If it changes, the store has the blob no more, and says so."""
    COPY = "copy"
    """The store has a copy of its own, by reference to the same blocks where the system can."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look at all of a blob's data found.

    `before` is what the store said, `after` what is true. `problem` is None if they agree.
    """

    hash: Hash
    before: BlobStatus
    after: BlobStatus
    problem: str | None = None

    @property
    def is_good(self) -> bool:
        return self.problem is None


class BlobReader(Protocol):
    """Reads a blob at any place. An async context manager. Only verified bytes come out."""

    @property
    def size(self) -> int:
        """Size of the blob in bytes."""
        ...

    def seek(self, offset: int, whence: int = 0) -> int:
        """Moves the position (`whence` as in `io`); gives the new one."""
        ...

    def tell(self) -> int:
        """The position in bytes."""
        ...

    async def read(self, n: int = -1) -> bytes:
        """Up to `n` bytes (-1: the rest) from the position on; b"" at the end.

        IncompleteBlobError: not all of them are in the store.
        """
        ...

    async def read_at(self, offset: int, n: int) -> bytes:
        """As `read`, at `offset`; the position stays."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class Pieces(Protocol):
    """A complete blob whose data are elsewhere, and come as they are sent."""

    @property
    def size(self) -> int:
        """Size of the blob in bytes."""
        ...

    def answer(self, ranges: ChunkRanges) -> AsyncGenerator[tuple[int, bytes], None]:
        """The response to a query for these chunks, verified, and for each piece up to which byte of the
        blob it goes. OSError.
        """
        ...


class BlobWriter(Protocol):
    """One of the parties that fill a blob. An async context manager; leaving it commits.

    All writers of a blob share one `handle`; verified pieces come in any order, from any of them.
    """

    @property
    def handle(self) -> Blob:
        """Where native receivers write."""
        ...

    def advanced(self) -> None:
        """Tells observers of the store that pieces have arrived."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


OnHashed = Callable[[int, int], None]
"""Called with (index of the file, bytes of it hashed so far) while files are added."""

OnCopied = Callable[[int], None]
"""Called with the bytes copied so far while blobs are staged."""

Protect = Callable[[], Awaitable[Iterable[Hash]]]
"""Names further hashes that garbage collection spares."""


class Store(Protocol):
    """A store of blobs. An async context manager."""

    @property
    def worker(self) -> DiskWorker:
        """The disk worker that transfers from and to this store use."""
        ...

    @property
    def tags(self) -> Tags:
        """Names that keep content alive."""
        ...

    def hold(self, content: HashAndFormat) -> TempTag:
        """A temporary tag: the content, also if it is still to come, is spared while it lives."""
        ...

    async def status(self, hash: Hash) -> BlobStatus:
        """What is there of a blob."""
        ...

    async def statuses(self, hashes: Sequence[Hash]) -> list[BlobStatus]:
        """`status` of each hash, in order."""
        ...

    def observe(self, hash: Hash) -> AsyncIterator[BlobStatus]:
        """The status now and after each change; changes coalesce. Does not end by itself."""
        ...

    async def handle(self, hash: Hash) -> Blob | None:
        """The native handle to read what is there; None if nothing is."""
        ...

    async def handles(self, hashes: Sequence[Hash]) -> list[Blob | None]:
        """`handle` of each hash, in order; cheaper than one by one."""
        ...

    async def outgoing(
        self, hashes: Sequence[Hash], ranges: Sequence[ChunkRanges]
    ) -> list[Blob | Pieces | None]:
        """What is going to be sent of each hash, in order: a handle that has it, if the store does, or pieces.
        OSError.
        """
        ...

    def reader(self, hash: Hash, *, wait: bool = False) -> BlobReader:
        """Positioned reads. `wait`: reads wait for what is missing, as long as somebody brings it.

        Entering it raises NotFoundError, or IncompleteBlobError while the size is not verified;
        with `wait` it waits for both.
        """
        ...

    async def read_bytes(self, hash: Hash, *, limit: int) -> bytes:
        """All of a blob of at most `limit` bytes.

        Raises NotFoundError, IncompleteBlobError, or BlobTooLargeError if it is larger.
        """
        ...

    async def writer(self, hash: Hash, *, max_size: int) -> BlobWriter:
        """A writer for a blob of at most `max_size` bytes. Several may be open at once.

        ValueError: the blob is complete. OSError: the store cannot be written.
        """
        ...

    async def writers(
        self, hashes: Sequence[Hash], *, max_size: int
    ) -> Sequence[BlobWriter | None]:
        """`writer` for each hash, in order; None for what is complete. Cheaper than one by one."""
        ...

    async def put_verified(self, blobs: Sequence[tuple[Hash, bytes]]) -> None:
        """Adds small blobs that a native receiver has verified: at most 16 KiB each, which are not
        hashed again. Nothing holds them but what holds their parent. Raises OSError.
        """
        ...

    async def add_bytes(self, data: Buffer, format: BlobFormat = BlobFormat.RAW) -> Added:
        """Adds a blob from memory."""
        ...

    async def add_many(self, blobs: Iterable[Buffer]) -> list[Added]:
        """`add_bytes` for each of many small blobs, in order, many at a time."""
        ...

    async def add_stream(
        self, pieces: AsyncIterable[Buffer], format: BlobFormat = BlobFormat.RAW
    ) -> Added:
        """Adds a blob that comes in pieces and need not fit into memory."""
        ...

    async def add_file(
        self,
        path: str | os.PathLike[str],
        *,
        mode: ImportMode = ImportMode.REFERENCE,
        on_hashed: OnHashed | None = None,
    ) -> Added:
        """Adds a file. A file that the store refers to and that has not changed since is not read
        again. Raises OSError.
        """
        ...

    async def add_files(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        mode: ImportMode = ImportMode.REFERENCE,
        on_hashed: OnHashed | None = None,
    ) -> list[Added]:
        """`add_file` for each path, in order, several at once."""
        ...

    async def stage(
        self,
        hashes: Sequence[Hash],
        directory: Path,
        *,
        keep: bool = False,
        places: Sequence[Path] | None = None,
        on_copied: OnCopied | None = None,
    ) -> list[Path]:
        """For each hash, in order, a file with all of the blob, in `directory`, for the caller to rename.

        It is a file of the store's own if possible, which the store then refers to (see `settle`);
        with `keep` it is a copy, by reference to the same blocks where the system can. `places`: where
        the files are going to be; a store for transit gives its own files only if it is told.
        Raises NotFoundError, IncompleteBlobError or OSError; then there are no files.
        """
        ...

    async def settle(self, files: Sequence[tuple[Hash, Path]]) -> None:
        """Files that `stage` gave are now at these paths; the store may read the blobs there."""
        ...

    def blobs(self) -> AsyncIterator[tuple[Hash, BlobStatus]]:
        """Every blob, in no order. What comes or goes meanwhile may be there or not."""
        ...

    async def delete(self, hashes: Iterable[Hash]) -> int:
        """Deletes blobs whatever names them, except those being written; gives their number."""
        ...

    def verify(self, hashes: Iterable[Hash] | None = None) -> AsyncIterator[Finding]:
        """Reads all data of the blobs (None: of all) and compares with what the store says."""
        ...

    def repair(self, hashes: Iterable[Hash] | None = None) -> AsyncIterator[Finding]:
        """As `verify`, and makes the store say what is true: damaged blobs become partial."""
        ...

    async def collect_garbage(self, protect: Protect | None = None) -> int:
        """Deletes what no tag, temporary tag or `protect` names; gives the number of blobs.

        May run while blobs are added, received and sent: those are spared.
        """
        ...

    async def aclose(self) -> None:
        """Ends the store and frees what it holds."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
