"""What a get asks for and expects, compared with a plain model; how early ends are classified."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioiroh.blobs.errors import (
    BlobTooLargeError,
    NotAvailableError,
    ProviderBusyError,
    ProviderError,
    ProviderRefusedError,
    VerificationError,
)
from aioiroh.blobs.hash import BlobFormat, Hash, HashAndFormat
from aioiroh.blobs.hashseq import HashSeq
from aioiroh.blobs.messages import GetManyRequest, GetRequest, encode_request
from aioiroh.blobs.ranges import ChunkRanges
from aioiroh.blobs.rangeseq import ChunkRangesSeq
from aioiroh.blobs.transfer import plan
from aioiroh.blobs.transfer.ends import from_push_end, from_report, from_reset
from aioiroh.blobs.transfer.plan import (
    Item,
    Response,
    missing,
    missing_of_many,
    wanted_ranges,
)
from aioiroh.errors import StreamResetError

ALL = ChunkRanges.all()
NONE = ChunkRanges.empty()
ROOT = Hash(b"r" * 32)


def child(number: int) -> Hash:
    return Hash(number.to_bytes(32, "big"))


ranges = st.lists(st.integers(0, 9), unique=True, max_size=5).map(lambda b: ChunkRanges(sorted(b)))


def test_wanted() -> None:
    assert wanted_ranges(HashAndFormat(ROOT)) == ChunkRangesSeq.blob()
    assert wanted_ranges(HashAndFormat(ROOT, BlobFormat.HASH_SEQ)) == ChunkRangesSeq.all()


def test_nothing_known() -> None:
    assert missing(ChunkRangesSeq.all(), NONE) == ChunkRangesSeq.all()
    assert missing(ChunkRangesSeq.blob(), NONE) == ChunkRangesSeq.blob()
    assert missing(ChunkRangesSeq.sizes(), NONE) == ChunkRangesSeq.sizes()


def test_a_part_of_the_root_is_there() -> None:
    there = ChunkRanges((0, 16))
    assert missing(ChunkRangesSeq.blob(), there) == ChunkRangesSeq.blob(ChunkRanges((16,)))
    assert missing(ChunkRangesSeq.blob(), ALL) == ChunkRangesSeq.empty()
    # The children of a root that is not all there are unknown: the end stays open.
    assert missing(ChunkRangesSeq.all(), there).entries == ((0, ChunkRanges((16,))), (1, ALL))


@given(
    st.lists(st.tuples(st.integers(0, 3), ranges), max_size=8),
    st.lists(ranges, max_size=10),
    st.none() | ranges,
    ranges,
)
def test_missing_against_a_model(
    have: list[tuple[int, ChunkRanges]],
    sets: list[ChunkRanges],
    rest: ChunkRanges | None,
    root: ChunkRanges,
) -> None:
    wanted = ChunkRangesSeq.from_sets(sets, rest)
    by_hash = dict(have)  # one state for each blob, however often it is named
    children = HashSeq(child(number) for number, _ in have)
    result = missing(wanted, root, children, [by_hash[number] for number, _ in have])
    assert result[0] == wanted[0] - root
    asked: dict[int, ChunkRanges] = {}
    for index, (number, _) in enumerate(have, 1):
        before = asked.get(number, NONE)
        assert result[index] == wanted[index] - by_hash[number] - before
        asked[number] = before | result[index]
    assert not result.is_infinite
    assert result[len(have) + 1] == NONE
    # What was asked for makes everything complete.
    after = [by_hash[number] | asked[number] for number, _ in have]
    assert not missing(wanted, root | wanted[0], children, after)


def test_requests_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every other child is missing: the most expensive pattern.
    count = 50_000
    children = HashSeq(child(number) for number in range(count))
    present = [ALL if number % 2 else NONE for number in range(count)]
    rounds = 0
    while request := missing(ChunkRangesSeq.all(), ALL, children, present):
        rounds += 1
        assert len(request.entries) <= plan.MAX_ENTRIES + 2
        assert len(encode_request(GetRequest(ROOT, request))) < 1024 * 1024
        for index, _ in request.items(1 + count):
            assert not present[index - 1]
            present[index - 1] = ALL
    assert rounds == 4
    assert all(present)


def test_many_missing_children_are_one_entry() -> None:
    children = HashSeq(child(number) for number in range(100_000))
    request = missing(ChunkRangesSeq.all(), ALL, children, [NONE] * 100_000)
    assert request.entries == ((1, ALL), (100_001, NONE))


def test_response_to_one_blob() -> None:
    response = Response(GetRequest(ROOT, ChunkRangesSeq.blob()))
    assert not response.needs_children
    assert response.take(10) == [Item(0, ROOT, ALL)]
    assert response.take(10) == []
    with pytest.raises(ValueError, match="known"):
        response.learn(HashSeq())


def test_response_with_children_to_be_learned() -> None:
    response = Response(GetRequest(ROOT, ChunkRangesSeq.sizes()))
    assert response.needs_children
    assert response.take(10) == [Item(0, ROOT, ALL)]
    assert response.take(10) == []
    response.learn(HashSeq([child(1), child(2)]))
    last = ChunkRanges.last_chunk()
    assert response.take(1) == [Item(1, child(1), last)]
    assert response.take(5) == [Item(2, child(2), last)]
    assert response.take(5) == []


def test_response_with_known_children() -> None:
    seq = ChunkRangesSeq(((2, ALL), (3, NONE), (2**40, ALL)))
    response = Response(GetRequest(ROOT, seq), HashSeq(child(i) for i in range(5)))
    assert not response.needs_children
    assert response.take(10) == [Item(2, child(1), ALL)]


def test_response_to_many() -> None:
    request = GetManyRequest((child(1), child(2), child(1)), ChunkRangesSeq.all())
    response = Response(request)
    assert not response.needs_children
    assert [item.hash for item in response.take(10)] == [child(1), child(2), child(1)]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (1, ProviderRefusedError),
        (2, ProviderBusyError),
        (3, NotAvailableError),
        (0, StreamResetError),
        (77, StreamResetError),
    ],
)
def test_resets(code: int, kind: type[Exception]) -> None:
    assert type(from_reset(code)) is kind
    assert type(from_report(ROOT, "reset", code)) is kind


@pytest.mark.parametrize(
    ("report", "kind"),
    [
        ("parent_mismatch", VerificationError),
        ("leaf_mismatch", VerificationError),
        ("size_invalid", NotAvailableError),
        ("size_conflict", VerificationError),
        ("size_limit", BlobTooLargeError),
        ("missing_header", NotAvailableError),
        ("missing_item", NotAvailableError),
        ("truncated", ProviderError),
        ("lost", ProviderError),
        ("something new", ProviderError),
    ],
)
def test_reports(report: str, kind: type[Exception]) -> None:
    assert type(from_report(ROOT, report, None)) is kind


@pytest.mark.parametrize(
    ("code", "kind"),
    [(0, ProviderError), (1, ProviderRefusedError), (2, ProviderBusyError), (3, ProviderError)],
)
def test_ends_of_pushes(code: int, kind: type[Exception]) -> None:
    assert type(from_push_end(code)) is kind


def test_local_failures() -> None:
    error = from_report(ROOT, "io", (28, "no space", "/a/b"))
    assert isinstance(error, OSError) and error.errno == 28
    lost = ConnectionError("gone")
    assert from_report(ROOT, "lost", None, lost) is lost


# --- several blobs --------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.binary(max_size=2), ranges, ranges), max_size=8))
def test_what_is_missing_of_many(blobs: list[tuple[bytes, ChunkRanges, ChunkRanges]]) -> None:
    wanted = {Hash.of(name): whole for name, whole, _ in blobs}
    here = {Hash.of(name): present for name, _, present in blobs}
    request = missing_of_many(wanted, [here[hash] for hash in wanted])
    asked = {hash: request.ranges[at] for at, hash in enumerate(request.hashes)}
    assert asked == {
        hash: whole - here[hash] for hash, whole in wanted.items() if whole - here[hash]
    }
    assert not request.ranges.is_infinite  # in blobs, though maybe in chunks


def test_a_long_list_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "MAX_HASHES", 3)
    wanted = {Hash.of(bytes([n])): ChunkRanges.all() for n in range(10)}
    present = [ChunkRanges.empty()] * 10
    assert missing_of_many(wanted, present).hashes == tuple(wanted)[:3]
    monkeypatch.setattr(plan, "MAX_BOUNDARIES", 2)
    assert missing_of_many(wanted, present).hashes == tuple(wanted)[:2]
    # One is asked for however many pieces it is in: an answer has to come nearer to the end.
    pieces = {Hash.of(b"pieces"): ChunkRanges(range(40))}
    assert missing_of_many(pieces, present[:1]).hashes == tuple(pieces)
