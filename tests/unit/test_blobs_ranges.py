"""Chunk sets and sequences of them, against plain Python sets and the vectors of the wire."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioiroh.blobs.hash import Hash
from aioiroh.blobs.messages import (
    MAX_SPANS,
    GetManyRequest,
    GetRequest,
    ObserveItem,
    ObserveRequest,
    PushRequest,
    Request,
    decode_request,
    encode_request,
)
from aioiroh.blobs.ranges import MAX_CHUNK, ChunkRanges, chunk_count
from aioiroh.blobs.rangeseq import ChunkRangesSeq
from aioiroh.codec.postcard import Writer
from aioiroh.errors import DecodeError

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "vectors" / "blobs.json").read_text("utf-8")
)
HASH = Hash(bytes(range(32)))
PREFIX = b"\x00" + bytes(HASH)
UNIVERSE = 24  # sets are compared on chunks below this, and beyond by one sample

boundaries = st.lists(st.integers(0, UNIVERSE - 2), unique=True, max_size=10).map(sorted)
ranges = boundaries.map(ChunkRanges)
wild = st.lists(st.integers(0, MAX_CHUNK), unique=True, max_size=6).map(
    lambda b: ChunkRanges(sorted(b))
)
sequences = st.lists(ranges, max_size=6).flatmap(
    lambda sets: st.builds(ChunkRangesSeq.from_sets, st.just(sets), st.none() | ranges)
)


def model(chunks: ChunkRanges) -> set[int]:
    members: set[int] = set()
    for start, end in chunks.spans():
        members |= set(range(start, UNIVERSE if end is None else end))
    return members


def seq(entries: list[Any]) -> ChunkRangesSeq:
    return ChunkRangesSeq((index, ChunkRanges(bounds)) for index, bounds in entries)


def encode_seq(value: ChunkRangesSeq) -> bytes:
    return encode_request(GetRequest(HASH, value))[len(PREFIX) :]


def decode_seq(data: bytes) -> ChunkRangesSeq:
    request = decode_request(PREFIX + data)
    assert isinstance(request, GetRequest)
    return request.ranges


# --- one set --------------------------------------------------------------------------------------


@given(ranges | wild, st.integers(0, UNIVERSE))
def test_split(chunks: ChunkRanges, count: int) -> None:
    first, rest = chunks.split(count)
    assert first | rest == chunks and first.isdisjoint(rest)
    if rest:
        assert not first.is_infinite
        assert sum(end - start for start, end in first.spans() if end is not None) == count
        assert not first or max(first.boundaries) <= min(rest.boundaries)


@given(ranges, ranges)
def test_algebra_is_that_of_sets(a: ChunkRanges, b: ChunkRanges) -> None:
    everything = set(range(UNIVERSE))
    assert model(a | b) == model(a) | model(b)
    assert model(a & b) == model(a) & model(b)
    assert model(a - b) == model(a) - model(b)
    assert model(a ^ b) == model(a) ^ model(b)
    assert model(~a) == everything - model(a)
    assert (a <= b) == (model(a) <= model(b))
    assert a.isdisjoint(b) == model(a).isdisjoint(model(b))
    assert bool(a) == bool(model(a))
    for chunk in range(UNIVERSE):
        assert (chunk in a) == (chunk in model(a))
    for result in (a | b, a & b, a - b, a ^ b, ~a):
        assert ChunkRanges(result.boundaries) == result  # canonical


@given(wild, wild)
def test_algebra_holds_up_to_64_bits(a: ChunkRanges, b: ChunkRanges) -> None:
    assert (a | b) - b == a - b
    assert (a ^ b) ^ b == a
    assert ~~a == a
    assert ~(a | b) == ~a & ~b


@pytest.mark.parametrize("bad", [(1, 1), (2, 1), (-1,), (0, 2**64)])
def test_boundaries_that_are_none(bad: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="strictly increasing"):
        ChunkRanges(bad)


def test_constructors() -> None:
    assert ChunkRanges.bytes(0, 1000) == ChunkRanges((0, 1))
    assert ChunkRanges.bytes(1023, 1025) == ChunkRanges((0, 2))
    assert ChunkRanges.bytes(2048) == ChunkRanges((2,))
    assert ChunkRanges.bytes(5, 5) == ChunkRanges.empty()
    assert ChunkRanges.chunks(3, 3) == ChunkRanges.empty()
    assert ChunkRanges.last_chunk().boundaries == (MAX_CHUNK,)
    assert ChunkRanges.all().is_all
    with pytest.raises(ValueError, match="negative"):
        ChunkRanges.bytes(-1, 5)
    assert repr(ChunkRanges((0, 2, 5))) == "ChunkRanges(0..2, 5..)"


@given(ranges | wild, st.integers(0, 40 * 1024))
def test_selection_follows_the_definition(query: ChunkRanges, size: int) -> None:
    count = chunk_count(size)
    expected = {i for i in range(count - 1) if i in query}
    # Any number at or above the last chunk in the query selects the last chunk.
    if query - ChunkRanges.chunks(0, count - 1):
        expected.add(count - 1)
    selected = query.select(size)
    assert {i for i in range(count + 2) if i in selected} == expected
    assert not selected.is_infinite
    lengths = [min(1024, max(0, size - 1024 * i)) for i in sorted(expected)]
    assert selected.byte_count(size) == sum(lengths)


@given(ranges | wild)
def test_whole_groups(query: ChunkRanges) -> None:
    widened = query.whole_groups()
    assert query <= widened
    groups = {c // 16 for c in range(UNIVERSE) if c in query}
    assert {c for c in range(32) if c in widened} >= {
        c for g in groups for c in range(16 * g, 16 * g + 16)
    }
    assert all(b % 16 == 0 for b in widened.boundaries)


# --- sequences ------------------------------------------------------------------------------------


@given(st.lists(ranges, max_size=8), st.none() | ranges)
def test_sequence_gives_back_its_sets(sets: list[ChunkRanges], rest: ChunkRanges | None) -> None:
    value = ChunkRangesSeq.from_sets(sets, rest)
    tail = ChunkRanges.empty() if rest is None else rest
    assert [value[i] for i in range(len(sets))] == sets
    assert value[len(sets)] == value[MAX_CHUNK] == tail
    assert value.is_infinite == bool(tail)
    count = len(sets) + 3
    padded = [*sets, tail, tail, tail]
    assert list(value.items(count)) == [(i, r) for i, r in enumerate(padded) if r]
    previous = ChunkRanges.empty()
    for _, entry in value.entries:
        assert entry != previous
        previous = entry


def test_a_gap_costs_nothing() -> None:
    value = seq([[2**63, [0]], [2**63 + 1, []]])
    assert list(value.items(1000)) == []
    assert list(value.runs()) == [(2**63, 2**63 + 1, ChunkRanges.all())]


def test_which_requests_are_for_one_blob() -> None:
    assert ChunkRangesSeq.blob().is_blob
    assert ChunkRangesSeq.blob(ChunkRanges.last_chunk()).is_blob
    assert not ChunkRangesSeq.all().is_blob
    assert not ChunkRangesSeq.empty().is_blob
    assert not seq([[1, [0]], [2, []]]).is_blob


@pytest.mark.parametrize("entries", [[(1, [0]), (0, [1])], [(2**64, [0])]])
def test_indexes_that_are_none(entries: list[tuple[int, list[int]]]) -> None:
    with pytest.raises(ValueError, match="indexes"):
        seq(entries)


# --- the wire -------------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS["range_spec"], ids=lambda v: v["bytes"])
def test_range_spec_vectors(vector: dict[str, Any]) -> None:
    request = ObserveRequest(HASH, ChunkRanges(vector["boundaries"]))
    assert encode_request(request).hex() == "01" + HASH.hex() + vector["bytes"]
    assert decode_request(encode_request(request)) == request


@pytest.mark.parametrize("vector", VECTORS["range_seq"], ids=lambda v: v["meaning"])
def test_range_seq_vectors(vector: dict[str, Any]) -> None:
    value = seq(vector["entries"])
    assert encode_seq(value).hex() == vector["bytes"]
    assert decode_seq(bytes.fromhex(vector["bytes"])) == value


@pytest.mark.parametrize("vector", VECTORS["tolerated_seq"], ids=lambda v: v["meaning"])
def test_seq_forms_that_are_only_read(vector: dict[str, Any]) -> None:
    assert decode_seq(bytes.fromhex(vector["bytes"])) == seq(vector["entries"])


@pytest.mark.parametrize("vector", VECTORS["malformed_seq"], ids=lambda v: v["meaning"])
def test_malformed_seq(vector: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        decode_seq(bytes.fromhex(vector["bytes"]))


def test_spans_are_bounded() -> None:
    def request(entries: int, widths: int) -> bytes:
        writer = Writer()
        writer.raw(PREFIX)
        writer.count(entries)
        for at in range(entries):
            # Every other set starts later, because the same set must not come twice in a row.
            writer.u64(1)
            writer.count(widths)
            writer.raw((b"\x01", b"\x02")[at % 2] * widths)
        return writer.finish()

    decode_request(request(4, MAX_SPANS // 4))
    with pytest.raises(DecodeError):
        decode_request(request(4, MAX_SPANS // 4 + 1))
    with pytest.raises(DecodeError):
        decode_request(request(MAX_SPANS + 1, 0))


def _request(vector: dict[str, Any]) -> Request:
    hashes = tuple(Hash(bytes.fromhex(text)) for text in vector["hashes"])
    match vector["kind"]:
        case "get":
            return GetRequest(hashes[0], seq(vector["entries"]))
        case "push":
            return PushRequest(hashes[0], seq(vector["entries"]))
        case "get_many":
            return GetManyRequest(hashes, seq(vector["entries"]))
        case _:
            return ObserveRequest(hashes[0], seq(vector["entries"])[0])


@pytest.mark.parametrize("vector", VECTORS["requests"], ids=lambda v: v["bytes"][:6])
def test_request_vectors(vector: dict[str, Any]) -> None:
    request = _request(vector)
    data = bytes.fromhex(vector["bytes"])
    assert encode_request(request) == data
    if not isinstance(request, PushRequest):
        assert decode_request(data) == request
        assert decode_request(data + b"more") == request  # as upstream reads


hashes = st.binary(min_size=32, max_size=32).map(Hash)


@given(
    st.builds(GetRequest, hashes, sequences)
    | st.builds(GetManyRequest, st.lists(hashes, max_size=5).map(tuple), sequences)
    | st.builds(ObserveRequest, hashes, ranges | wild)
)
def test_requests_round_trip(request: Request) -> None:
    assert decode_request(encode_request(request)) == request


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x00", b"\x01", b"\x09", PREFIX]))
def test_the_decoder_is_total(data: bytes, start: bytes) -> None:
    try:
        request = decode_request(start + data)
    except DecodeError:
        return
    assert decode_request(encode_request(request)) == request


@pytest.mark.parametrize("kind", [2, 3, 7, 8, 10, 127, 255])
def test_other_kinds_are_malformed(kind: int) -> None:
    with pytest.raises(DecodeError):
        decode_request(bytes((kind,)) + bytes(40))


def test_requests_over_the_limit() -> None:
    many = GetManyRequest((HASH,) * 32768, ChunkRangesSeq.all())
    with pytest.raises(ValueError, match="several requests"):
        encode_request(many)
    with pytest.raises(DecodeError):
        decode_request(PREFIX + bytes(1024 * 1024))


@pytest.mark.parametrize("vector", VECTORS["observe_items"], ids=lambda v: v["bytes"])
def test_observe_item_vectors(vector: dict[str, Any]) -> None:
    item = ObserveItem(vector["size"], ChunkRanges(vector["boundaries"]))
    framed = bytes.fromhex(vector["bytes"])
    assert item.encode_framed() == framed
    assert ObserveItem.decode(framed[1:]) == item


def test_observe_boundaries_are_sorted() -> None:
    assert ObserveItem.decode(bytes((0, 3, 16, 0, 16))) == ObserveItem(0, ChunkRanges((0, 16)))
