"""What a getter sends first on a stream, and the codes both sides answer with (`/iroh-bytes/4`).

One byte names the kind; the body is postcard. All kinds but Push end with the stream; a Push body
has its length before it, because data follow.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from aioiroh.codec import postcard
from aioiroh.errors import DecodeError

from .hash import HASH_SIZE, Hash
from .ranges import MAX_CHUNK, ChunkRanges
from .rangeseq import ChunkRangesSeq

__all__ = [
    "ALPN",
    "MAX_REQUEST_SIZE",
    "MAX_SPANS",
    "ErrorCode",
    "GetManyRequest",
    "GetRequest",
    "ObserveItem",
    "ObserveRequest",
    "PushRequest",
    "Request",
    "RequestKind",
    "decode_body",
    "decode_request",
    "encode_request",
]

ALPN: Final = b"/iroh-bytes/4"
MAX_REQUEST_SIZE: Final = 1024 * 1024
"""Largest body of a request in bytes, without the byte for its kind."""
MAX_SPANS: Final = 65536
"""Most chunk boundaries, and most entries, that a request may have."""


class RequestKind(IntEnum):
    """First byte of a request."""

    GET = 0
    OBSERVE = 1
    PUSH = 8
    GET_MANY = 9


class ErrorCode(IntEnum):
    """Application error codes on streams and connections."""

    NONE = 0
    """Normal end; also a receive side that is no longer wanted."""
    PERMISSION = 1
    """This peer may not do that."""
    LIMIT = 2
    """Too much at the moment; later it may work."""
    INTERNAL = 3
    """Everything else, data that are not there above all."""


@dataclass(frozen=True, slots=True)
class GetRequest:
    """Some chunks of a blob (index 0) and, if it is a hash sequence, of child i (index i + 1)."""

    hash: Hash
    ranges: ChunkRangesSeq
    kind = RequestKind.GET


@dataclass(frozen=True, slots=True)
class PushRequest:
    """Offers what a Get with the same fields would ask for; the data follow."""

    hash: Hash
    ranges: ChunkRangesSeq
    kind = RequestKind.PUSH


@dataclass(frozen=True, slots=True)
class GetManyRequest:
    """Some chunks of several blobs: index i of `ranges` belongs to `hashes[i]`."""

    hashes: tuple[Hash, ...]
    ranges: ChunkRangesSeq
    kind = RequestKind.GET_MANY


@dataclass(frozen=True, slots=True)
class ObserveRequest:
    """Which chunks of a blob the peer has, now and with every change."""

    hash: Hash
    ranges: ChunkRanges
    kind = RequestKind.OBSERVE


Request = GetRequest | PushRequest | GetManyRequest | ObserveRequest


@dataclass(frozen=True, slots=True)
class ObserveItem:
    """Answer to Observe: first the whole set, then what has changed (symmetric difference).

    `size` in bytes is the best known one, 0 if unknown.
    """

    size: int
    ranges: ChunkRanges

    def encode(self) -> bytes:
        writer = postcard.Writer()
        writer.u64(self.size)
        writer.count(len(self.ranges.boundaries))
        for boundary in self.ranges.boundaries:
            writer.u64(boundary)
        return writer.finish()

    def encode_framed(self) -> bytes:
        """With the length before it, as on the stream."""
        writer = postcard.Writer()
        writer.byte_string(self.encode())
        return writer.finish()

    @classmethod
    def decode(cls, data: bytes) -> ObserveItem:
        """From the body without its length. Raises DecodeError.

        Boundaries are sorted and freed of repeats, as upstream does.
        """
        reader = postcard.Reader(data)
        size = reader.u64()
        boundaries = {reader.u64() for _ in range(reader.count(MAX_REQUEST_SIZE))}
        return cls(size, ChunkRanges(sorted(boundaries)))


def encode_request(request: Request) -> bytes:
    """The bytes of a request, ready to send; after a Push the data follow.

    ValueError: the request is larger than any provider accepts.
    """
    match request:
        case GetRequest() | PushRequest():
            body = bytes(request.hash) + _encoded_seq(request.ranges)
        case GetManyRequest():
            writer = postcard.Writer()
            writer.count(len(request.hashes))
            writer.raw(b"".join(map(bytes, request.hashes)))
            writer.raw(_encoded_seq(request.ranges))
            body = writer.finish()
        case ObserveRequest():
            writer = postcard.Writer()
            writer.raw(bytes(request.hash))
            _write_ranges(writer, request.ranges)
            body = writer.finish()
    # Upstream's getter counts the kind against the limit, so that is the largest all agree on.
    if len(body) + 1 > MAX_REQUEST_SIZE:
        raise ValueError(
            f"a request of {len(body)} bytes is over {MAX_REQUEST_SIZE}; ask in several requests"
        )
    if request.kind is RequestKind.PUSH:
        writer = postcard.Writer()
        writer.byte_string(body)
        body = writer.finish()
    return request.kind.to_bytes(1, "little") + body


def decode_request(data: bytes) -> Request:
    """A request that is all of `data`, kind and body (not Push). Raises DecodeError."""
    reader = postcard.Reader(data)
    kind = decode_kind(reader.u8())
    if kind is RequestKind.PUSH:
        raise DecodeError("a Push has its length before it; read that first")
    return decode_body(kind, reader.rest())


def decode_kind(byte: int) -> RequestKind:
    """The kind of request that a first byte names. Raises DecodeError."""
    kind = _KINDS.get(byte)
    if kind is None:
        raise DecodeError(f"there is no request of kind {byte}")
    return kind


def decode_body(kind: RequestKind, body: bytes) -> Request:
    """The request in `body`. Bytes behind it are ignored, as upstream does. Raises DecodeError."""
    if len(body) > MAX_REQUEST_SIZE:
        raise DecodeError(f"a request of {len(body)} bytes is over {MAX_REQUEST_SIZE}")
    if kind is RequestKind.GET:
        whole = _WHOLES.get(body[HASH_SIZE:])
        if whole is not None:
            return GetRequest(Hash(body[:HASH_SIZE]), whole)
    reader = postcard.Reader(body)
    match kind:
        case RequestKind.GET:
            return GetRequest(Hash(reader.raw(HASH_SIZE)), _read_seq(reader))
        case RequestKind.PUSH:
            return PushRequest(Hash(reader.raw(HASH_SIZE)), _read_seq(reader))
        case RequestKind.GET_MANY:
            count = reader.count(MAX_REQUEST_SIZE // HASH_SIZE, size=HASH_SIZE)
            hashes = tuple(Hash(reader.raw(HASH_SIZE)) for _ in range(count))
            return GetManyRequest(hashes, _read_seq(reader))
        case RequestKind.OBSERVE:
            return ObserveRequest(Hash(reader.raw(HASH_SIZE)), _read_ranges(reader, MAX_SPANS))


def _write_ranges(writer: postcard.Writer, ranges: ChunkRanges) -> None:
    """As widths: the distance of each boundary from the one before, the first from 0."""
    writer.count(len(ranges.boundaries))
    last = 0
    for boundary in ranges.boundaries:
        writer.u64(boundary - last)
        last = boundary


def _read_ranges(reader: postcard.Reader, limit: int) -> ChunkRanges:
    """A set of at most `limit` boundaries. As upstream from 0.104 on, only what its writer writes."""
    at = 0
    boundaries = []
    for place in range(reader.count(limit)):
        width = reader.u64()
        if place and not width:
            raise DecodeError("a span of chunks has no width")
        at += width
        if at > MAX_CHUNK:
            raise DecodeError("chunk ranges reach beyond 64 bits")
        boundaries.append(at)
    return ChunkRanges(boundaries)


def _encoded_seq(seq: ChunkRangesSeq) -> bytes:
    return _ENCODED.get(seq) or _encode_seq(seq)


def _encode_seq(seq: ChunkRangesSeq) -> bytes:
    writer = postcard.Writer()
    writer.count(len(seq.entries))
    last = 0
    for index, ranges in seq.entries:
        writer.u64(index - last)
        _write_ranges(writer, ranges)
        last = index
    return writer.finish()


def _read_seq(reader: postcard.Reader) -> ChunkRangesSeq:
    """One set per blob, likewise only as it is written: each entry says something new."""
    entries = []
    at = 0
    last = ChunkRanges.empty()
    spans_left = MAX_SPANS
    for place in range(reader.count(MAX_SPANS, size=2)):
        distance = reader.u64()
        if place and not distance:
            raise DecodeError("two sets of chunks are for the same blob")
        at += distance
        if at > MAX_CHUNK:
            raise DecodeError("blob indexes reach beyond 64 bits")
        ranges = _read_ranges(reader, spans_left)
        if ranges == last:
            raise DecodeError("a set of chunks is repeated")
        spans_left -= len(ranges.boundaries)
        entries.append((at, ranges))
        last = ranges
    return ChunkRangesSeq(entries)


_KINDS: Final = {int(kind): kind for kind in RequestKind}
# What almost all requests ask for: it need not be written and read again and again.
_ENCODED: Final = {seq: _encode_seq(seq) for seq in (ChunkRangesSeq.blob(), ChunkRangesSeq.all())}
_WHOLES: Final = {encoded: seq for seq, encoded in _ENCODED.items()}
