"""Telling a peer which chunks of a blob are here, now and as they come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aioiroh.aio import Tasks

from ..hash import Hash
from ..messages import ObserveItem
from ..ranges import ChunkRanges

if TYPE_CHECKING:
    from aioiroh.quic.sending import SendStream

    from ..store.interface import Store

__all__ = ["answer_observe"]


async def answer_observe(stream: SendStream, store: Store, hash: Hash, time: float) -> None:
    """Sends the present chunks, then each change, until the peer stops the stream.

    TimeoutError: that takes more than `time` seconds.
    """

    async def tell() -> None:
        known: ChunkRanges | None = None
        async for status in store.observe(hash):
            present = status.present
            change = present if known is None else present ^ known
            if known is None or change:
                await stream.write(ObserveItem(status.size or 0, change).encode_framed())
                known = present

    # A failure to write means that the peer stopped or is gone, which is what is waited for.
    async with (
        Tasks("observe", on_error=lambda _task, _error: None) as tasks,
        asyncio.timeout(time),
    ):
        tasks.spawn(tell())
        await stream.stopped()
