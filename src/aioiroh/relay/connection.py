"""One TCP connection to a relay: bytes between asyncio and the native protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, cast

from aioiroh.errors import RelayError

if TYPE_CHECKING:
    from aioiroh._native import Relay

__all__ = ["RelayConnection"]

MAX_BUFFERED: Final = 256 * 1024
"""Bytes that may wait for the system before the engine's datagrams stay where they are."""
CLOSE_TIMEOUT: Final = 2.0
"""Seconds for what is left when a connection is closed."""


class RelayConnection(asyncio.Protocol):
    """Feeds `relay`, which must have been opened, and writes what it gives.

    `on_event(event)` hears what is no datagram; `on_datagrams()` that the engine got some; `on_frames()`
    that anything came. `ended` becomes the error that ended the connection.
    """

    def __init__(
        self,
        relay: Relay,
        *,
        on_event: Callable[[tuple[Any, ...]], None],
        on_datagrams: Callable[[], None],
        on_frames: Callable[[], None],
    ) -> None:
        self._relay = relay
        self._on_event = on_event
        self._on_datagrams = on_datagrams
        self._on_frames = on_frames
        self._transport: asyncio.Transport | None = None
        self._writable = True
        self._frames = 0
        self._closing: asyncio.TimerHandle | None = None
        self.local_ip: str | None = None
        """The address of this machine that the connection has; None: it is not known."""
        self.ended: asyncio.Future[RelayError] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses.
        self._transport = cast("asyncio.Transport", transport)
        name = self._transport.get_extra_info("sockname")
        self.local_ip = name[0] if name else None
        self._transport.set_write_buffer_limits(MAX_BUFFERED)
        self.write()

    def data_received(self, data: bytes) -> None:
        arrived, events = self._relay.feed(data)
        if arrived:
            self._on_datagrams()
        frames, _ = self._relay.counters
        if frames != self._frames:
            self._frames = frames
            self._on_frames()
        for event in events:
            if event[0] == "over":
                self._end(RelayError(event[1], event[2]))
                return
            self._on_event(event)
        self.write()

    def write(self) -> None:
        """Sends what is due. While the system takes no more, datagrams wait in the engine."""
        if self._transport is not None and self._writable:
            data = self._relay.take()
            if data:
                self._transport.write(data)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self.write()

    @property
    def is_stuck(self) -> bool:
        """Whether the system takes no more bytes for now."""
        return not self._writable

    def connection_lost(self, error: Exception | None) -> None:
        if self._closing is not None:
            self._closing.cancel()
        text = f"the connection broke: {error}" if error else "the relay closed the connection"
        self._end(RelayError("lost", text))

    def eof_received(self) -> None:
        """The transport closes; `connection_lost` follows."""

    def close(self) -> None:
        """Say goodbye and let the transport send what is left, as far as the relay takes it in time."""
        if self._transport is None or self._transport.is_closing():
            return
        self._relay.close()
        self._transport.write(self._relay.take())
        self._transport.close()
        loop = asyncio.get_running_loop()
        self._closing = loop.call_later(CLOSE_TIMEOUT, self._transport.abort)

    def abort(self, error: RelayError) -> None:
        """End it at once."""
        self._end(error)

    def _end(self, error: RelayError) -> None:
        if not self.ended.done():
            self.ended.set_result(error)
        if self._transport is not None:
            self._transport.abort()
