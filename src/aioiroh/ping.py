"""The ping protocol: does a peer answer, and how long does it take?

    Router(endpoint, ping.HANDLERS)                     # who answers

    connection = await endpoint.connect(peer, alpn=[*ping.HANDLERS])
    seconds = await ping.ping(connection)               # who asks

`ALPN` is upstream's protocol (crate `iroh-ping` 1.0): the client opens a stream, writes `PING` and ends it; the
server answers `PONG` on it. Upstream's server answers one stream per connection. `REPEATED_ALPN` is the same
where any number of streams is answered, so that one connection can be watched for as long as it lives.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from aioiroh.errors import DecodeError, ReadLimitError
from aioiroh.quic import BiStream, Connection
from aioiroh.router import Handler

__all__ = ["ALPN", "HANDLERS", "REPEATED_ALPN", "answer", "ping"]

ALPN: Final = b"iroh/ping/0"
REPEATED_ALPN: Final = b"aioiroh/ping/0"

_PING: Final = b"PING"
_PONG: Final = b"PONG"
_MAX_AT_ONCE: Final = 4
"""Streams of one connection that are answered at a time; further ones wait."""


async def ping(connection: Connection) -> float:
    """Ask once; gives the seconds until the answer had come, with what both programs took for it.

    Raises DecodeError: the answer is no `PONG`; else what reading a stream raises.
    """
    loop = asyncio.get_running_loop()
    async with connection.open_bi() as stream:
        asked = loop.time()
        await stream.write(_PING)
        await stream.finish()
        try:
            reply = await stream.read_all(limit=len(_PONG))
        except ReadLimitError:
            reply = b""
        if reply != _PONG:
            raise DecodeError("the peer's answer to a ping is none; is it another protocol?")
        return loop.time() - asked


async def answer(connection: Connection) -> None:
    """Serves a connection of either protocol, until the peer closes it."""
    await connection.serve(_answer, limit=_MAX_AT_ONCE)


async def _answer(stream: BiStream) -> None:
    try:
        question = await stream.read_all(limit=len(_PING))
    except ReadLimitError:
        question = b""
    if question == _PING:
        await stream.write(_PONG)
        await stream.finish()
    else:
        stream.reset()


HANDLERS: Final[Mapping[bytes, Handler]] = {REPEATED_ALPN: answer, ALPN: answer}
"""For a `Router`: both protocols, the one preferred for which a connection need not be made anew."""
