"""Reading a request from a stream, with bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioiroh.errors import DecodeError

from ..messages import MAX_REQUEST_SIZE, Request, RequestKind, decode_body, decode_kind

if TYPE_CHECKING:
    from aioiroh.quic.receiving import RecvStream

__all__ = ["read_request"]


async def read_request(recv: RecvStream) -> tuple[Request, int]:
    """The request at the start of a stream, and how many bytes it took.

    All kinds but Push reach to the end of the stream. DecodeError: malformed; IncompleteReadError
    or ReadLimitError: too short or too long.
    """
    kind = decode_kind((await recv.read_exactly(1))[0])
    if kind is not RequestKind.PUSH:
        body = await recv.read_all(limit=MAX_REQUEST_SIZE)
        return decode_body(kind, body), 1 + len(body)
    size, prefix = await _read_length(recv)
    body = await recv.read_exactly(size)
    return decode_body(kind, body), 1 + prefix + size


async def _read_length(recv: RecvStream) -> tuple[int, int]:
    """A varint of at most 1 MiB, and how many bytes it took."""
    value = 0
    for at in range(10):
        byte = (await recv.read_exactly(1))[0]
        value |= (byte & 0x7F) << (7 * at)
        if byte < 0x80:
            if value > MAX_REQUEST_SIZE:
                raise DecodeError(f"a request of {value} bytes is over {MAX_REQUEST_SIZE}")
            return value, at + 1
    raise DecodeError("the length of the request is no number")
