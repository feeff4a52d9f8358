"""One end of a TCP connection as programs see it: an asyncio transport."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aioiroh.testing.tcp.core import TcpCore
from aioiroh.testing.tcp.header import TcpHeader

if TYPE_CHECKING:
    from aioiroh.testing.tcp.stack import TcpStack

__all__ = ["TcpTransport"]

HIGH_WATER, LOW_WATER = 64 * 1024, 16 * 1024
READ_SIZE = 256 * 1024
"""The most bytes that a protocol gets at once, as asyncio reads them."""
FIN_TIMEOUT = 60.0
"""Seconds for which the end of the peer is waited for when nobody is here any more (that of Linux)."""


class TcpTransport(asyncio.Transport):
    """Passes what comes to its protocol, and what the protocol writes to the network."""

    # Lets `loop.start_tls` wrap it; TLS works in memory.
    _start_tls_compatible = True

    def __init__(
        self,
        stack: TcpStack,
        core: TcpCore,
        local: tuple[str, int],
        peer: tuple[str, int],
        on_connected: Callable[[TcpTransport], None],
    ) -> None:
        ipv6 = (0, 0) if ":" in peer[0] else ()
        super().__init__({"peername": (*peer, *ipv6), "sockname": (*local, *ipv6)})
        self.local, self.peer = local, peer
        self._stack = stack
        self._loop = stack.loop
        self._core = core
        self._on_connected: Callable[[TcpTransport], None] | None = on_connected
        self._protocol: asyncio.BaseProtocol | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._turn: asyncio.Handle | None = None
        self._forgetting: asyncio.TimerHandle | None = None
        self._high, self._low = HIGH_WATER, LOW_WATER
        self._writing_paused = False
        self._reading = True
        self._eof_written = False
        self._eof_told = False
        self._closing = False
        self._lost = False
        self.failure: asyncio.Future[OSError] = self._loop.create_future()
        """Becomes the error that ends the connection, if one does."""
        self._settle()

    # --- the stack's calls

    def start(self, protocol: asyncio.BaseProtocol) -> None:
        """The connection stands, and this is what serves it."""
        self._protocol = protocol
        protocol.connection_made(self)
        self._soon()

    def arrived(self, header: TcpHeader, data: bytes) -> None:
        """A packet has come."""
        if self._lost and data:  # nobody is there to read it
            self._core.reset()
        else:
            self._core.receive(header, data, self._loop.time())
        self._settle()

    # --- between the core and the loop

    def _settle(self) -> None:
        """After each call of the core: sends, sets the timer, and has the rest done in a turn."""
        core = self._core
        if core.is_over:
            core.acknowledge()
        for header, data in core.outbox:
            self._stack.send(self, header, data)
        core.outbox.clear()
        if core.is_over:
            self._stack.forget(self)
            if self._forgetting is not None:
                self._forgetting.cancel()
        if core.deadline is not None and (
            self._timer is None or core.deadline < self._timer.when()
        ):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(core.deadline, self._timeout)
        if core.error is not None and not self.failure.done():
            self.failure.set_result(core.error)
        if core.connected and self._on_connected is not None:
            tell, self._on_connected = self._on_connected, None
            tell(self)
        self._soon()

    def _soon(self) -> None:
        if self._turn is None:
            self._turn = self._loop.call_soon(self._take_turn)

    def _timeout(self) -> None:
        self._timer = None
        deadline, now = self._core.deadline, self._loop.time()
        if deadline is None:
            return
        if deadline > now + 1e-9:
            self._timer = self._loop.call_at(deadline, self._timeout)
            return
        self._core.timeout(now)
        self._settle()

    def _take_turn(self) -> None:
        """What arrived at one moment reaches the protocol at once, and is acknowledged once."""
        self._turn = None
        try:
            self._serve()
        except Exception as error:  # noqa: BLE001 - the loop's handler tells, as for real transports
            self._loop.call_exception_handler(
                {
                    "message": "a protocol failed",
                    "exception": error,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )
            self.abort()
        self._core.acknowledge()
        if self._core.outbox:
            self._settle()

    def _serve(self) -> None:
        core, protocol = self._core, self._protocol
        if protocol is None or self._lost:
            return
        while core.readable and self._reading and not self._closing:
            self._pass_on(protocol)
        if core.error is not None and not (core.readable and not self._reading):
            self._lose(None if core.error.errno == errno.ECONNABORTED else core.error)
            return
        if self._writing_paused and core.unsent <= self._low:
            self._writing_paused = False
            protocol.resume_writing()
        if self._closing:
            if not core.unsent:
                self._lose(None)
            return
        if core.peer_finished and not core.readable and self._reading and not self._eof_told:
            self._eof_told = True
            assert isinstance(protocol, asyncio.Protocol | asyncio.BufferedProtocol)
            if not protocol.eof_received():
                self.close()

    def _pass_on(self, protocol: asyncio.BaseProtocol) -> None:
        if isinstance(protocol, asyncio.BufferedProtocol):
            buffer = memoryview(protocol.get_buffer(READ_SIZE)).cast("B")
            data = self._core.take(min(READ_SIZE, len(buffer)))
            buffer[: len(data)] = data
            protocol.buffer_updated(len(data))
        else:
            assert isinstance(protocol, asyncio.Protocol)
            protocol.data_received(self._core.take(READ_SIZE))

    def _lose(self, error: OSError | None) -> None:
        self._lost = self._closing = True
        if self._core.readable:  # what nobody has read is lost, as the peer hears
            self._core.reset()
            self._settle()
        if not self._core.is_over:
            self._forgetting = self._loop.call_later(FIN_TIMEOUT, self._forget)
        protocol, self._protocol = self._protocol, None
        if protocol is not None:
            protocol.connection_lost(error)

    def _forget(self) -> None:
        if self._core.finished:
            self._core.abandon()
            self._settle()
        else:  # what is still under way is sent again and again, and given up in the end
            self._forgetting = self._loop.call_later(FIN_TIMEOUT, self._forget)

    # --- asyncio's interface

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"data must be bytes, not {type(data).__name__}")
        if self._closing or self._core.error is not None or not data:
            return
        if self._eof_written:
            raise RuntimeError("write after write_eof")
        self._core.write(data, self._loop.time())
        self._settle()
        if not self._writing_paused and self._core.unsent > self._high:
            self._writing_paused = True
            assert self._protocol is not None
            self._protocol.pause_writing()

    def write_eof(self) -> None:
        if not self._eof_written:
            self._eof_written = True
            if self._core.error is None:
                self._core.finish(self._loop.time())
            self._settle()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        if not self._closing:
            self.write_eof()
            self._closing = True
            self._soon()

    def abort(self) -> None:
        self._closing = True
        self._core.reset()
        self._settle()

    def is_closing(self) -> bool:
        return self._closing

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None, "the connection is closed"
        return self._protocol

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._soon()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high}) must be at least low ({low}), and low at least 0")
        self._high, self._low = high, low

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        return self._core.unsent

    def __repr__(self) -> str:
        return f"<TcpTransport {self.local} {self.peer}{' closing' if self._closing else ''}>"
