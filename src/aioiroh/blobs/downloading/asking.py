"""Carrying out one request of a download, and what its end means to the core."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from aioiroh.errors import AioirohError, ConnectionLostError

from ..errors import (
    BlobTooLargeError,
    NotAvailableError,
    ProviderBusyError,
    ProviderRefusedError,
    VerificationError,
)
from ..getting.observe import observe
from ..hash import Hash
from ..messages import GetManyRequest, GetRequest, encode_request
from ..ranges import ChunkRanges
from ..rangeseq import ChunkRangesSeq
from ..transfer.pacing import Pace
from ..transfer.plan import Response
from ..transfer.receive import OnArrival, receive
from .actions import End
from .backlog import Part

if TYPE_CHECKING:
    from aioiroh.quic.connection import Connection
    from aioiroh.quic.receiving import RecvStream

    from ..store.interface import Store

__all__ = ["ask", "ask_what_is_there", "end_of"]

TELL_TIME: Final = 5.0
"""Seconds that a provider has to tell what it has."""


async def ask(
    connection: Connection,
    parts: Sequence[Part],
    hashes: Sequence[Hash],
    store: Store,
    *,
    max_size: int,
    pace: Pace,
    on_stream: Callable[[RecvStream], None],
    on_arrival: OnArrival,
) -> End:
    """Asks for parts of the blobs with these hashes, and takes the answer into the store.

    `on_stream` gets the stream that carries the answer. Gives DONE, or STOPPED if part of it has come
    from elsewhere meanwhile; see `end_of` for what it raises. Each blob is asked for by its own hash, so that a provider needs nothing else.
    """
    request: GetRequest | GetManyRequest
    if len(parts) == 1:
        request = GetRequest(hashes[0], ChunkRangesSeq.blob(parts[0].ranges))
    else:
        request = GetManyRequest(
            tuple(hashes), ChunkRangesSeq.from_sets(part.ranges for part in parts)
        )
    async with connection.open_bi() as stream:
        await stream.write(encode_request(request))
        await stream.finish()
        on_stream(stream.recv)
        whole = await receive(
            stream.recv,
            Response(request),
            store,
            max_size=max_size,
            on_arrival=on_arrival,
            pace=pace,
        )
    return End.DONE if whole else End.STOPPED


async def ask_what_is_there(connection: Connection, hash: Hash) -> ChunkRanges | None:
    """The chunks of a blob that a provider says it has; None if it does not tell."""
    try:
        async with asyncio.timeout(TELL_TIME), observe(connection, hash) as states:
            return (await anext(states)).present
    except (AioirohError, StopAsyncIteration, TimeoutError):
        return None


def end_of(error: AioirohError) -> End:
    """What an error of a request says about the provider."""
    match error:
        case VerificationError():
            return End.LIED
        case ProviderRefusedError() | BlobTooLargeError():
            return End.REFUSED
        case ProviderBusyError():
            return End.BUSY
        case NotAvailableError():
            return End.LACKS
        case ConnectionLostError():
            return End.LOST
        case _:
            return End.BROKEN
