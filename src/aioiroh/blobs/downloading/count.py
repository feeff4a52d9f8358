"""Counting what a download has, gets and still needs. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..getting.tally import Progress
from ..ranges import ChunkRanges
from ..store.interface import BlobStatus
from .backlog import Part

if TYPE_CHECKING:
    from aioiroh.keys import EndpointId

__all__ = ["Count", "DownloadProgress", "ProviderProgress"]


@dataclass(frozen=True, slots=True)
class ProviderProgress:
    """One provider: what is being done with it (waiting, connecting, ready, out), bytes per second
    now, payload bytes that came from it, and why it failed last ("": it did not).
    """

    id: EndpointId
    state: str
    rate: float
    received: int
    reason: str


@dataclass(frozen=True, slots=True)
class DownloadProgress(Progress):
    """How far a download is: as of a get, and who contributes. Each distinct blob counts once, and as
    complete when what is wanted of it is here.
    """

    providers: tuple[ProviderProgress, ...] = ()


class Count:
    """Keeps count of what is wanted, by blob index (0: the content itself, i + 1: child i).

    Memory: a byte for each blob, and more only for those that are here in part.
    """

    def __init__(self) -> None:
        self.received = 0
        """Payload bytes that came over the network, repeated ones too."""
        self.blobs: int | None = None
        """How many blobs there are in all; None: not known yet."""
        self._complete = bytearray()
        self._complete_blobs = 0
        self._complete_bytes = 0
        # Of those that are not complete: what is here, and the sizes that are known.
        self._have: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._coming: dict[int, _Coming] = {}
        self._wanted: dict[int, ChunkRanges] = {}
        # What has been told to be here: when two bring the same, the count comes to know it later.
        self._told = 0

    def wants(self, index: int, ranges: ChunkRanges) -> None:
        """Not all of a blob is wanted, but this."""
        self._wanted[index] = ranges

    def settle(self, index: int, status: BlobStatus) -> None:
        """What the store has of a blob, all that has come included."""
        wanted = self._wanted.get(index, ChunkRanges.all())
        if wanted <= status.present:
            self._completed(index, wanted.selected_bytes(status.size or 0))
        elif status.size is not None and not self._is_complete(index):
            self._sizes[index] = wanted.selected_bytes(status.size)
            here = status.present if wanted.is_all else wanted.select(status.size) & status.present
            self._have[index] = here.byte_count(status.size)
        for coming in self._coming.values():
            if coming.index == index:
                coming.counted = coming.verified

    def arrived(
        self, number: int, part: Part, size: int | None, verified: int, is_done: bool
    ) -> None:
        """Of a part that a request brings so many payload bytes have come."""
        index = part.index
        coming = self._coming.get(number)
        if coming is None or coming.index != index:
            coming = self._coming[number] = _Coming(index)
        self.received += verified - coming.verified
        coming.verified = verified
        if size is not None and not self._is_complete(index):
            self._sizes[index] = self._wanted.get(index, ChunkRanges.all()).selected_bytes(size)
        if is_done:
            del self._coming[number]
            if part.is_whole:
                self._completed(index, verified)
            elif not self._is_complete(index):
                more = coming.verified - coming.counted
                self._have[index] = self._have.get(index, 0) + more

    def ended(self, number: int) -> None:
        """A request is over, and what it brought is settled."""
        self._coming.pop(number, None)

    def totals(self) -> tuple[int, int | None, int]:
        """Bytes that are here, bytes in all if they are known, complete blobs."""
        size = self._complete_bytes + sum(self._sizes.values())
        here = self._complete_bytes + sum(self._have.values())
        for coming in self._coming.values():
            if not self._is_complete(coming.index):
                here += coming.verified - coming.counted
        known = self.blobs == self._complete_blobs + len(self._sizes)
        self._told = max(self._told, min(here, size))
        return self._told, size if known else None, self._complete_blobs

    def _is_complete(self, index: int) -> bool:
        return index < len(self._complete) and bool(self._complete[index])

    def _completed(self, index: int, size: int) -> None:
        if index >= len(self._complete):
            self._complete.extend(bytes(2 * index + 64 - len(self._complete)))
        if not self._complete[index]:
            self._complete[index] = 1
            self._complete_blobs += 1
            self._complete_bytes += size
        self._have.pop(index, None)
        self._sizes.pop(index, None)


@dataclass(slots=True)
class _Coming:
    """A blob that a request brings: payload bytes that have come, and those counted as being here."""

    index: int
    verified: int = 0
    counted: int = 0
