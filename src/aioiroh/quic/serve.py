"""One task per stream of a connection."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aioiroh.aio import Tasks
from aioiroh.errors import ConnectionLostError, StreamResetError, StreamStoppedError

if TYPE_CHECKING:
    from aioiroh.quic.connection import Connection
    from aioiroh.quic.streams import BiStream

__all__ = ["serve"]

logger = logging.getLogger("aioiroh.quic")


async def serve(
    connection: Connection, handler: Callable[[BiStream], Awaitable[object]], limit: int
) -> None:
    """See `Connection.serve`."""
    if limit < 1:
        raise ValueError("limit must be at least 1")
    tasks = Tasks("serve", limit=limit)
    try:
        async with tasks:
            while True:
                if tasks.full:
                    await tasks.room()
                tasks.spawn(_answer(handler, await connection.accept_bi()), name="stream")
    except ConnectionLostError:
        return


async def _answer(handler: Callable[[BiStream], Awaitable[object]], stream: BiStream) -> None:
    try:
        async with stream:
            await handler(stream)
    except (ConnectionLostError, StreamResetError, StreamStoppedError) as error:
        # The peer went away or lost interest: nothing that this side could do better.
        logger.debug("%r ended: %s", stream, error)
    except Exception:
        logger.exception("the handler of %r failed; the stream was reset", stream)
