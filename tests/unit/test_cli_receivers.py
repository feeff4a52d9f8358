"""What each receiver has got, from the provider's events."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from aioiroh.blobs import (
    ChunkRanges,
    ChunkRangesSeq,
    GetManyRequest,
    GetRequest,
    Hash,
    IncomingRequest,
    RequestReceived,
    TransferAborted,
    TransferCompleted,
    TransferProgress,
    TransferStarted,
    TransferStats,
)
from aioiroh.cli.receivers import Receiver, Shared
from aioiroh.errors import ApplicationClosedError, ConnectionTimeoutError
from aioiroh.keys import SecretKey

ROOT = Hash(b"\1" * 32)
SIZES = (128, 40, 5000, 0, 100_000)
TOTAL = sum(SIZES)
PEER = SecretKey(b"\2" * 32).public
DONE = ApplicationClosedError(0, b"")
STATS = TransferStats()
SEQUENCE_AND_NAMES = ChunkRangesSeq.from_sets((ChunkRanges.all(), ChunkRanges.all()))


class Answer:
    """Plays one request into a receiver."""

    def __init__(self, receiver: Receiver, ranges: ChunkRangesSeq, stream: int = 0) -> None:
        self.receiver = receiver
        self.source = IncomingRequest(PEER, 7, stream, GetRequest(ROOT, ranges))
        self.ranges = ranges

    def blob(self, index: int, *ends: int) -> None:
        self.receiver.handle(TransferStarted(self.source, index, ROOT, SIZES[index]))
        for end in ends:
            self.receiver.handle(TransferProgress(self.source, index, ROOT, end))

    def blobs(self) -> None:
        for index, _ in self.ranges.items(len(SIZES)):
            self.blob(index, SIZES[index] // 2, SIZES[index], SIZES[index])

    def complete(self) -> None:
        self.blobs()
        self.end()

    def end(self) -> None:
        self.receiver.handle(TransferCompleted(self.source, STATS))

    def abort(self) -> None:
        self.receiver.handle(TransferAborted(self.source, STATS, "it broke"))


@pytest.fixture
def receiver() -> Receiver:
    return Receiver(Shared(ROOT, SIZES, ("a", "b", "c")))


def test_everything_at_once(receiver: Receiver) -> None:
    answer = Answer(receiver, ChunkRangesSeq.all())
    answer.blob(0, 128)
    answer.blob(1, 40)
    answer.blob(2, 1024, 2048)
    assert receiver.in_flight == [("a", 2048, 5000)]
    assert (receiver.done, receiver.total) == (128 + 40 + 2048, TOTAL)
    assert not receiver.has_all(DONE)
    answer.blob(2, 5000)
    answer.blob(3, 0)
    answer.blob(4, 99_999, 100_000)
    answer.end()
    assert (receiver.done, receiver.total) == (TOTAL, TOTAL)
    assert receiver.has_all(DONE)


@pytest.mark.parametrize(
    "reason", [None, ConnectionTimeoutError(), ApplicationClosedError(3, b"not received")]
)
def test_a_bad_end_is_no_success(receiver: Receiver, reason: Exception | None) -> None:
    Answer(receiver, ChunkRangesSeq.all()).complete()
    assert not receiver.has_all(reason)


@pytest.mark.parametrize(
    "ranges",
    [
        ChunkRangesSeq.sizes(),
        ChunkRangesSeq.blob(),
        SEQUENCE_AND_NAMES,
        ChunkRangesSeq.from_sets((ChunkRanges.all(),) * 2, rest=ChunkRanges.last_chunk()),
    ],
)
def test_names_and_sizes_are_not_the_content(receiver: Receiver, ranges: ChunkRangesSeq) -> None:
    Answer(receiver, ranges).complete()
    assert (receiver.done, receiver.total) == (0, 0)
    assert not receiver.has_all(DONE)


def test_the_rest_of_an_earlier_transfer(receiver: Receiver) -> None:
    ranges = ChunkRangesSeq.from_sets((ChunkRanges.empty(),) * 4, rest=ChunkRanges.chunks(40))
    answer = Answer(receiver, ranges)
    answer.blob(4, 50 * 1024)
    assert (receiver.done, receiver.total) == (10 * 1024, 100_000 - 40 * 1024)
    answer.complete()
    assert receiver.has_all(DONE)


def test_two_requests_after_each_other(receiver: Receiver) -> None:
    first = ChunkRangesSeq.from_sets((ChunkRanges.all(),) * 3)
    Answer(receiver, first, stream=0).complete()
    second = ChunkRangesSeq.from_sets((ChunkRanges.empty(),) * 3, rest=ChunkRanges.all())
    Answer(receiver, second, stream=4).complete()
    assert (receiver.done, receiver.total) == (TOTAL, TOTAL)
    assert receiver.has_all(DONE)


def test_who_has_only_asked_has_got_nothing_yet(receiver: Receiver) -> None:
    source = IncomingRequest(PEER, 7, 0, GetRequest(ROOT, ChunkRangesSeq.sizes()))
    assert not receiver.handle(RequestReceived(source))
    assert not receiver.handle(TransferStarted(source, 0, ROOT, 128))
    assert not receiver.handle(TransferCompleted(source, STATS))
    assert not receiver.has_all(DONE)


def test_an_answer_that_broke_off(receiver: Receiver) -> None:
    answer = Answer(receiver, ChunkRangesSeq.all())
    answer.blob(0, 128)
    answer.abort()
    assert receiver.failure == "it broke"
    assert not receiver.has_all(DONE)


def test_who_has_everything_may_leave_before_the_end(receiver: Receiver) -> None:
    answer = Answer(receiver, ChunkRangesSeq.all())
    answer.blobs()
    answer.abort()
    assert receiver.failure is None
    assert receiver.has_all(DONE)


def test_of_empty_files_only_the_names_are_fetched() -> None:
    receiver = Receiver(Shared(ROOT, (96, 40, 0)))
    source = IncomingRequest(PEER, 7, 0, GetRequest(ROOT, SEQUENCE_AND_NAMES))
    for index, size in enumerate((96, 40)):
        receiver.handle(TransferStarted(source, index, ROOT, size))
        receiver.handle(TransferProgress(source, index, ROOT, size))
    receiver.handle(TransferCompleted(source, STATS))
    assert receiver.has_all(DONE)


@pytest.mark.parametrize(
    "request_of",
    [
        lambda: GetRequest(Hash(b"\3" * 32), ChunkRangesSeq.all()),
        lambda: GetManyRequest((ROOT,), ChunkRangesSeq.all()),
    ],
)
def test_other_requests_are_not_counted(
    receiver: Receiver, request_of: Callable[[], GetRequest | GetManyRequest]
) -> None:
    source = IncomingRequest(PEER, 7, 0, request_of())
    assert not receiver.handle(TransferStarted(source, 0, ROOT, 10))
    assert not receiver.handle(TransferProgress(source, 0, ROOT, 10))
    assert not receiver.has_all(DONE)
