"""Giving up a peer that keeps a connection alive but sends nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from aioiroh.quic import Connection

from .amounts import duration
from .failures import ExitCode, Failure

__all__ = ["SilentSenderError", "give_up_when_silent"]

SIGNS_OF_LIFE: Final = 4096
"""Bytes in `timeout` seconds that a peer may send without having said anything."""


class SilentSenderError(Failure):
    """It keeps the connection and sends nothing."""

    def __init__(self, seconds: float) -> None:
        super().__init__(
            f"the sender has sent nothing for {duration(seconds)}; start it anew, then try again",
            ExitCode.NO_CONNECTION,
        )


@contextlib.asynccontextmanager
async def give_up_when_silent(connection: Connection, timeout: float) -> AsyncIterator[None]:
    """Failure if nothing but signs of life arrive for `timeout` seconds.

    What has arrived is counted on the wire, since on a slow link progress is reported seldom.
    """

    def arrived() -> int:
        return int(connection.stats()["udp_rx_bytes"])

    async def watch(limit: asyncio.Timeout) -> None:
        before = arrived()
        while True:
            await asyncio.sleep(timeout)
            now = arrived()
            if now - before < SIGNS_OF_LIFE:
                limit.reschedule(0)
            before = now

    try:
        async with asyncio.timeout(None) as limit:
            watching = asyncio.ensure_future(watch(limit))
            try:
                yield
            finally:
                watching.cancel()
    except TimeoutError:
        if not limit.expired():
            raise
        raise SilentSenderError(timeout) from None
