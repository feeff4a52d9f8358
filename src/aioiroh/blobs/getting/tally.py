"""Counting what a get has, gets and still needs. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..hash import HASH_SIZE
from ..rangeseq import ChunkRangesSeq
from ..store.interface import BlobStatus

__all__ = ["Arriving", "Progress", "Tally"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a get is. Bytes are payload; a total is None as long as it is not known.

    `bytes` of the wanted ones are in the store, `received` of them came in this get. `blobs` are
    complete, the hash sequence itself among them.
    """

    bytes: int
    total: int | None
    blobs: int
    total_blobs: int | None
    received: int


class Arriving(NamedTuple):
    """A blob on its way: its number, bytes of it that are here, its size if that is known."""

    blob: int
    here: int
    size: int | None


class Tally:
    """Keeps count by blob index (0: the blob or hash sequence itself, i + 1: child i)."""

    def __init__(self) -> None:
        self.received = 0
        self._wanted = ChunkRangesSeq.empty()
        self._local_bytes = 0
        self._local_blobs = 0
        self._count: int | None = None
        self._sizes: dict[int, int] = {}
        self._total = 0
        self._arriving: dict[int, int] = {}
        self._partial: dict[int, int] = {}
        self._done_bytes = 0
        self._done_blobs = 0

    def local(
        self,
        wanted: ChunkRangesSeq,
        root: BlobStatus,
        children: Sequence[BlobStatus] | None,
    ) -> None:
        """What is in the store now, all that has arrived included; `children` None: not known."""
        self._arriving.clear()
        self._partial.clear()
        self._done_bytes = self._done_blobs = 0
        self._wanted = wanted
        known = [root, *(children or ())]
        last = max((end or 0 for _, end, _ in wanted.runs()), default=0)
        if children is not None:
            self._count = sum(1 for _ in wanted.items(len(known)))
        elif not wanted.is_infinite and last <= 1:
            self._count = 1 if wanted[0] else 0
        self._local_bytes = self._local_blobs = 0
        for index, ranges in wanted.items(len(known)):
            status = known[index]
            if status.size is not None and (status.size_verified or index not in self._sizes):
                self._size(index, status.size)
            size = self._sizes.get(index)
            if size is not None and status.present:
                present = (ranges.select(size) & status.present).byte_count(size)
                self._local_bytes += present
                if not status.is_complete:
                    self._partial[index] = present
            self._local_blobs += ranges <= status.present

    @property
    def known_sizes(self) -> Mapping[int, int]:
        """Sizes in bytes by blob index, as far as they are known or claimed."""
        return self._sizes

    def sizes(self, children: Sequence[int]) -> None:
        """The proved sizes of all children."""
        for index, size in enumerate(children, 1):
            self._size(index, size)

    def _size(self, index: int, size: int) -> None:
        ranges = self._wanted[index]
        if not ranges:
            return
        old = self._sizes.get(index)
        if old is not None:
            self._total -= ranges.selected_bytes(old)
        self._sizes[index] = size
        self._total += ranges.selected_bytes(size)

    def arrived(self, index: int, size: int | None, verified: int, is_done: bool) -> None:
        """`verified` payload bytes of blob `index` have come in this answer."""
        if size is not None and self._sizes.get(index) != size:
            self._size(index, size)
        more = verified - self._arriving.get(index, 0)
        self._arriving[index] = verified
        self.received += more
        self._done_bytes += more
        if is_done:
            self._done_blobs += 1
            del self._arriving[index]
            if index == 0 and self._count is None and size is not None:
                self._count = sum(1 for _ in self._wanted.items(1 + size // HASH_SIZE))

    @property
    def arriving(self) -> list[Arriving]:
        """The blobs that are on their way."""
        return [
            Arriving(index, self._partial.get(index, 0) + verified, self._sizes.get(index))
            for index, verified in self._arriving.items()
        ]

    def progress(self) -> Progress:
        total_known = self._count is not None and len(self._sizes) >= self._count
        return Progress(
            bytes=self._local_bytes + self._done_bytes,
            total=self._total if total_known else None,
            blobs=self._local_blobs + self._done_blobs,
            total_blobs=self._count,
            received=self.received,
        )
