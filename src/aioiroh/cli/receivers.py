"""What each receiver has got of a collection, from the provider's events. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from aioiroh.blobs import (
    ChunkRanges,
    ChunkRangesSeq,
    GetRequest,
    Hash,
    TransferAborted,
    TransferCompleted,
    TransferEvent,
    TransferProgress,
    TransferStarted,
)
from aioiroh.errors import ApplicationClosedError

__all__ = ["Receiver", "Shared"]


class Shared:
    """The sizes of the blobs of a collection, by index: the hash sequence, metadata, then files,
    and the names of those.
    """

    def __init__(self, root: Hash, sizes: Sequence[int], names: Sequence[str] = ()) -> None:
        self.root = root
        self.names = names
        self.sizes = tuple(sizes)
        self.total = sum(self.sizes)
        # Nobody has to ask for empty files: then the names are all there is.
        self._first = 2 if any(self.sizes[2:]) else 1

    def is_content(self, ranges: ChunkRangesSeq) -> bool:
        """Whether a request is for content, and not just for names and sizes."""
        probe = ChunkRanges.last_chunk()
        return any(
            start < len(self.sizes) and (end is None or end > self._first) and wanted != probe
            for start, end, wanted in ranges.runs()
        )

    def payload(self, ranges: ChunkRangesSeq) -> int:
        """Bytes of content that the answer to a request carries."""
        if ranges == ChunkRangesSeq.all():
            return self.total
        return sum(
            wanted.select(self.sizes[index]).byte_count(self.sizes[index])
            for index, wanted in ranges.items(len(self.sizes))
        )


@dataclass(slots=True)
class _Answer:
    """A request that is being answered: bytes of whole blobs, and of the one under way."""

    ranges: ChunkRangesSeq
    total: int
    whole: int = 0
    under_way: dict[int, int] = field(default_factory=dict)

    @property
    def done(self) -> int:
        return self.whole + sum(self.under_way.values())


class Receiver:
    """One connection: `done` of `total` bytes of content that were asked for have been sent."""

    def __init__(self, shared: Shared) -> None:
        self.failure: str | None = None
        """Why an answer broke off."""
        self._shared = shared
        self._asked = False
        self._answers: dict[int, _Answer] = {}
        self._done = 0
        self._total = 0

    @property
    def done(self) -> int:
        return self._done + sum(answer.done for answer in self._answers.values())

    @property
    def total(self) -> int:
        return self._total + sum(answer.total for answer in self._answers.values())

    @property
    def in_flight(self) -> list[tuple[str, int, int]]:
        """Name, bytes sent and size of each file that is on its way."""
        shared = self._shared
        return [
            (shared.names[index - 2], done, shared.sizes[index])
            for answer in self._answers.values()
            for index, done in answer.under_way.items()
            if index >= 2
        ]

    def has_all(self, close_reason: BaseException | None) -> bool:
        """Whether the receiver got what it lacked and then closed the connection in good order."""
        return (
            self._asked
            and self.failure is None
            and self.done == self.total
            and isinstance(close_reason, ApplicationClosedError)
            and close_reason.code == 0
        )

    def handle(self, event: TransferEvent) -> bool:
        """Takes an event of this connection in; says whether `done` or `total` may have changed."""
        request = event.source.request
        if not isinstance(request, GetRequest) or request.hash != self._shared.root:
            return False  # parts of it by their own hashes: served, not counted
        stream = event.source.stream
        answer = self._answers.get(stream)
        match event:
            case TransferStarted():
                if answer is None:
                    if not self._shared.is_content(request.ranges):
                        return False
                    self._asked = True
                    answer = _Answer(request.ranges, self._shared.payload(request.ranges))
                    self._answers[stream] = answer
                answer.under_way[event.index] = 0
            case TransferProgress():
                # The end of a blob may be told twice.
                if answer is None or event.index not in answer.under_way:
                    return False
                size = self._shared.sizes[event.index]
                wanted = answer.ranges[event.index].select(size)
                sent = (wanted & ChunkRanges.bytes(0, event.end_offset)).byte_count(size)
                if event.end_offset >= size:
                    del answer.under_way[event.index]
                    answer.whole += sent
                else:
                    answer.under_way[event.index] = sent
            case TransferCompleted() | TransferAborted():
                if answer is None:
                    return False
                del self._answers[stream]
                self._done += answer.done
                self._total += answer.total
                if isinstance(event, TransferAborted) and answer.done < answer.total:
                    self.failure = event.reason
            case _:
                return False  # nothing has been sent yet
        return True
