"""Unreliable datagrams of a connection (RFC 9221)."""

from __future__ import annotations

from asyncio import _get_running_loop
from collections import deque
from typing import TYPE_CHECKING, Self

from aioiroh import _native
from aioiroh.errors import ConnectionLostError, DatagramError
from aioiroh.quic.causes import stream_failure
from aioiroh.quic.state import DATAGRAM_IN, DATAGRAM_OUT, ConnectionState

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from aioiroh.quic.connection import Connection

__all__ = ["DatagramReader", "send", "send_wait"]

BATCH = 32


def send(state: ConnectionState, data: Buffer, *, drop_oldest: bool) -> bool:
    """Queue one datagram; false: the send buffer is full."""
    if _get_running_loop() is not state.loop:
        state.driver.misused()
    if state.lost is not None:
        raise state.failure()
    try:
        sent = state.native.send_datagram(memoryview(data).cast("B"), drop_oldest)
    except ValueError as error:
        match str(error):
            case "too_large" | "unsupported" | "disabled" as kind:
                raise DatagramError(kind) from None
        raise
    except _native.NativeError as error:
        raise stream_failure(error, state.lost) from None
    if sent:
        state.driver.touched()
    return sent


async def send_wait(state: ConnectionState, data: Buffer) -> None:
    """Queue one datagram as soon as there is room."""
    while not send(state, data, drop_oldest=False):
        await state.wait(DATAGRAM_OUT)


class DatagramReader:
    """Takes datagrams out of the engine in small batches; also an async iterator."""

    __slots__ = ("_connection", "_taken")

    def __init__(self, connection: Connection, taken: deque[bytes]) -> None:
        self._connection = connection
        self._taken = taken

    async def read(self) -> bytes:
        taken = self._taken
        state = self._connection.state
        if _get_running_loop() is not state.loop:
            state.driver.misused()
        while not taken:
            try:
                taken.extend(state.native.recv_datagrams(BATCH))
            except _native.NativeError as error:
                raise stream_failure(error, state.lost) from None
            if not taken:
                if state.lost is not None:
                    raise state.failure()
                await state.wait(DATAGRAM_IN)
        return taken.popleft()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self.read()
        except ConnectionLostError:
            raise StopAsyncIteration from None
