"""Reading a request from a stream, with bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..messages import MAX_REQUEST_SIZE, Request, RequestKind, decode_body, decode_kind
from ..transfer.frames import FrameReader

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
    frame = FrameReader(recv, MAX_REQUEST_SIZE)
    body = await frame.read()
    return decode_body(kind, body), 1 + frame.received
