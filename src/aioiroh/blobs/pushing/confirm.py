"""Asking a peer whether it has what was pushed to it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from aioiroh.aio import fan_out

from ..errors import NotAvailableError, ProviderError, ProviderRefusedError
from ..getting.observe import observe
from ..getting.sizes import probe
from ..hash import Hash
from ..ranges import ChunkRanges

if TYPE_CHECKING:
    from aioiroh.quic.connection import Connection

__all__ = ["confirm_push"]

AT_ONCE: Final = 8
"""Blobs asked after at a time."""
TIME: Final = 60.0
"""Seconds that the peer has to get done with one blob after the one before."""
PAUSE: Final = 0.2
"""Seconds between two requests for a chunk, if the peer cannot be observed."""


async def confirm_push(connection: Connection, expected: Mapping[Hash, ChunkRanges]) -> None:
    """Waits until the peer has the chunks that are `expected` of each blob.

    ProviderError: it does not get there.
    """

    async def confirm(item: tuple[Hash, ChunkRanges]) -> None:
        hash, chunks = item
        if hash == Hash.EMPTY or not chunks:
            return
        try:
            async with asyncio.timeout(TIME):
                try:
                    await _observed(connection, hash, chunks)
                except ProviderRefusedError:
                    await _probed(connection, hash, chunks)
        except TimeoutError:
            raise ProviderError(
                f"the peer does not have what was pushed of blob {hash}; look again later"
            ) from None

    await fan_out(AT_ONCE, expected.items(), confirm)


async def _observed(connection: Connection, hash: Hash, chunks: ChunkRanges) -> None:
    async with observe(connection, hash) as states:
        async for status in states:
            if chunks <= status.present:
                return


async def _probed(connection: Connection, hash: Hash, chunks: ChunkRanges) -> None:
    """A peer verifies a blob from its start, so that it has the last of the chunks last."""
    last = (chunks.boundaries[-1] - 1) if not chunks.is_infinite else chunks.boundaries[-1]
    while True:
        try:
            await probe(connection, hash, last)
        except NotAvailableError:
            await asyncio.sleep(PAUSE)
        else:
            return
