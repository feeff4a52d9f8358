"""Giving up a peer that keeps a connection alive but sends nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

from aioiroh.errors import ConnectError, ConnectionTimeoutError
from aioiroh.quic import Connection

from .amounts import duration
from .display import Display
from .failures import ExitCode, Failure

__all__ = ["SilentSenderError", "again_while_it_moves", "give_up_when_silent"]

T = TypeVar("T")

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


async def again_while_it_moves(
    attempt: Callable[[], Awaitable[T]], moved: Callable[[], int], display: Display
) -> T:
    """Attempts it again whenever the sender has gone after it had sent something."""
    lost: BaseException | None = None
    while True:
        before = moved()
        try:
            return await attempt()
        except ConnectError as error:
            raise lost or error from None
        except (ConnectionTimeoutError, SilentSenderError) as error:
            if moved() == before:
                raise
            lost = error
            display.note("The sender has gone; trying to reach it again.")
            display.event("lost")
