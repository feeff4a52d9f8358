"""One connection, as the application holds it."""

from __future__ import annotations

import asyncio
import contextlib
import warnings
from asyncio import _get_running_loop
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

from aioiroh import _native
from aioiroh.aio import Watch
from aioiroh.errors import AuthenticationError, ConnectionLostError
from aioiroh.keys import EndpointId
from aioiroh.quic import datagrams
from aioiroh.quic.causes import loss_copy, stream_failure
from aioiroh.quic.codes import checked_code
from aioiroh.quic.datagrams import DatagramReader
from aioiroh.quic.opening import Opening
from aioiroh.quic.paths import PathBoard, PathEvent, PathInfo
from aioiroh.quic.receiving import RecvStream
from aioiroh.quic.sending import SendStream
from aioiroh.quic.serve import serve
from aioiroh.quic.state import (
    ACCEPT,
    BI,
    CLOSED,
    HANDSHAKE,
    SETTLED,
    UNI,
    ConnectionState,
)
from aioiroh.quic.streams import BiStream

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Connection"]

LINGER = 3.0
"""Seconds that leaving a connection's block waits for finished streams to be acknowledged."""

S = TypeVar("S", bound=BiStream | RecvStream)
T = TypeVar("T")


class Connection:
    """An encrypted connection to a peer that has proved its key.

    As a context manager: leaving the block waits, at most 3 s, until the peer has acknowledged all
    finished streams, then closes with code 0; an exception closes at once. A connection that nobody holds
    any more, nor any of its streams, is closed with code 0 and a ResourceWarning.

    When the connection ends, everything that waits on it raises why (a subclass of
    ConnectionLostError, or EndpointFailedError); what had arrived before can still be read. Methods
    raise WrongLoopError in another event loop or thread.
    """

    __slots__ = ("__weakref__", "_datagrams", "_id", "state")

    def __init__(self, state: ConnectionState) -> None:
        self.state = state
        self._id: EndpointId | None = None
        self._datagrams: deque[bytes] | None = None

    # --- who and what

    @property
    def remote_id(self) -> EndpointId:
        """The peer. AuthenticationError: it has not proved its key yet (`handshake_completed`)."""
        if self._id is None:
            if self.state.peer is None:
                raise AuthenticationError(
                    "the peer has not proved its identity; await handshake_completed() first"
                )
            self._id = EndpointId(self.state.peer)
        return self._id

    @property
    def alpn(self) -> bytes:
        """The agreed protocol. AuthenticationError: not agreed yet (`handshake_completed`)."""
        if self.state.alpn is None:
            raise AuthenticationError(
                "the protocol is not agreed on yet; await handshake_completed() first"
            )
        return self.state.alpn

    @property
    def side(self) -> Literal["client", "server"]:
        """Which side dialled: we (`client`) or the peer (`server`)."""
        return "client" if self.state.native.side == "client" else "server"

    @property
    def stable_id(self) -> int:
        """A number that no other connection of this endpoint has or will have."""
        return self.state.native.id

    @property
    def is_early(self) -> bool:
        """Whether the handshake is not complete, so that data sent and received now are early.

        Early data can be replayed by an attacker, and a peer may refuse them (RFC 8446 section 8).
        """
        return self.state.handshaking and (
            self.state.early_streams is not None or self.side == "server"
        )

    async def handshake_completed(self) -> bool:
        """Wait until the peer has proved its key.

        Returns whether the data that were sent early arrived. False after `is_early` was true on
        the dialling side: streams opened before are void (ZeroRttRejectedError), send again.
        Raises the reason when there will be no connection.
        """
        state = self.state
        if _get_running_loop() is not state.loop:
            state.driver.misused()
        while state.handshaking and state.lost is None:
            await state.wait(HANDSHAKE)
        if state.lost is not None and state.alpn is None:
            raise state.failure()
        return state.early_accepted

    # --- streams

    def open_bi(self) -> Opening[BiStream]:
        """A new stream in both directions; `await` it or use it with `async with`."""
        return Opening(self, BI, BiStream)

    def open_uni(self) -> Opening[SendStream]:
        """A new stream to the peer; `await` it or use it with `async with`."""
        return Opening(self, UNI, SendStream)

    async def accept_bi(self) -> BiStream:
        """The next stream in both directions that the peer opened."""
        return BiStream(self, await self._accept(BI))

    async def accept_uni(self) -> RecvStream:
        """The next stream to us that the peer opened."""
        return RecvStream(self, await self._accept(UNI))

    def incoming_bi(self) -> IncomingStreams[BiStream]:
        """An async iterator over `accept_bi`; it ends with the connection."""
        return IncomingStreams(self.accept_bi)

    def incoming_uni(self) -> IncomingStreams[RecvStream]:
        """An async iterator over `accept_uni`; it ends with the connection."""
        return IncomingStreams(self.accept_uni)

    async def _accept(self, direction: int) -> int:
        state = self.state
        if get_ident() != state.thread:
            state.driver.misused()
        while True:
            if state.driver.failed is not None:
                raise state.failure()
            try:
                stream = state.native.accept(direction)
            except _native.NativeError as error:
                raise stream_failure(error, state.lost) from None
            if stream is not None:
                # The peer may open another one in its place.
                state.driver.touched()
                return stream
            if state.lost is not None:
                raise state.failure()
            await state.wait(ACCEPT + direction)

    async def serve(
        self, handler: Callable[[BiStream], Awaitable[object]], *, limit: int = 100
    ) -> None:
        """Run `handler(stream)` for every bidirectional stream that the peer opens.

        In tasks and inside the stream's block, at most `limit` at once; further streams wait. One task
        may serve many streams, one after another: a handler must not let it be cancelled later. A handler that fails resets its stream and is logged. Returns when the connection ends
        (`close_reason` says why); handlers that still run are cancelled then.
        """
        await serve(self, handler, limit)

    # --- datagrams

    def send_datagram(self, data: Buffer) -> None:
        """Send one datagram; when the send buffer is full the oldest in it is dropped.

        DatagramError: too large, or not possible on this connection.
        """
        datagrams.send(self.state, data, drop_oldest=True)

    async def send_datagram_wait(self, data: Buffer) -> None:
        """Like `send_datagram`, but wait for room in the send buffer instead of dropping."""
        await datagrams.send_wait(self.state, data)

    async def read_datagram(self) -> bytes:
        """The next datagram. Unread ones are kept up to a limit, the oldest dropped beyond that."""
        return await self.datagrams().read()

    def datagrams(self) -> DatagramReader:
        """An async iterator over `read_datagram`; it ends with the connection."""
        if self._datagrams is None:
            # Most connections have none, and an empty queue is large.
            self._datagrams = deque()
        return DatagramReader(self, self._datagrams)

    @property
    def max_datagram_size(self) -> int | None:
        """Bytes that fit into a datagram now (it varies with the path). None: not possible."""
        return self._ask(self.state.native.max_datagram_size)

    @property
    def datagram_send_buffer_space(self) -> int:
        """Bytes free in the send buffer: that much can be sent without dropping anything."""
        return self._ask(self.state.native.datagram_space)

    # --- observation

    @property
    def paths(self) -> Watch[tuple[PathInfo, ...]]:
        """The network paths. Watching them does not keep the connection alive."""
        return self._board().watch

    def path_events(self) -> AsyncIterator[PathEvent]:
        """What happens to the paths from the first `async for` on, until the connection ends.

        A subscriber that falls behind by more than 64 events gets `Lagged`. Watching does not keep the
        connection alive.
        """
        return self._board().events()

    def _board(self) -> PathBoard:
        if _get_running_loop() is not self.state.loop:
            self.state.driver.misused()
        if self.state.paths is None:
            self.state.paths = PathBoard(self.state)
        return self.state.paths

    @property
    def rtt(self) -> float:
        """Smoothed round-trip time of the best path, in seconds."""
        paths = self._board().snapshot()
        best = [path.rtt for path in paths if path.status == "available"]
        return min(best or [path.rtt for path in paths], default=0.0)

    def stats(self) -> Mapping[str, Any]:
        """Counters of the engine for the whole connection."""
        return self._ask(self.state.native.stats)

    def export_keying_material(self, label: bytes, context: bytes, length: int) -> bytes:
        """`length` secret bytes that both ends can derive (RFC 8446 section 7.5)."""
        native = self.state.native
        return self._ask(lambda: native.export_key(label, context, length))

    # --- limits at run time

    def set_max_concurrent_bi_streams(self, count: int) -> None:
        """How many bidirectional streams the peer may have open at once."""
        native = self.state.native
        self._ask(lambda: native.set_max_streams(BI, count), changes=True)

    def set_max_concurrent_uni_streams(self, count: int) -> None:
        """How many unidirectional streams the peer may have open at once."""
        native = self.state.native
        self._ask(lambda: native.set_max_streams(UNI, count), changes=True)

    def set_send_window(self, size: int) -> None:
        """Bytes that may be sent and not yet acknowledged."""
        native = self.state.native
        self._ask(lambda: native.set_send_window(size), changes=True)

    def set_receive_window(self, size: int) -> None:
        """Bytes of all streams that the peer may send before they are read."""
        native = self.state.native
        self._ask(lambda: native.set_receive_window(size), changes=True)

    def _ask(self, call: Callable[[], T], *, changes: bool = False) -> T:
        state = self.state
        if _get_running_loop() is not state.loop:
            state.driver.misused()
        try:
            answer = call()
        except OverflowError as error:
            raise ValueError(f"the number is out of range: {error}") from None
        except _native.NativeError as error:
            raise stream_failure(error, state.lost) from None
        if changes:
            state.driver.touched()
        return answer

    # --- the end

    def close(self, code: int = 0, reason: bytes = b"") -> None:
        """Close at once; the peer sees `code` and as much of `reason` as fits in a packet.

        Data that are not acknowledged are lost: see `SendStream.acked`, or leave the connection's
        block. Does nothing if the connection is over.
        """
        state = self.state
        if _get_running_loop() is not state.loop:
            state.driver.misused()
        checked_code(code)
        if state.lost is None:
            state.close(code, reason)

    @property
    def close_reason(self) -> Exception | None:
        """Why the connection is over; None while it lives."""
        lost = self.state.lost
        return None if lost is None else loss_copy(lost)

    async def closed(self) -> ConnectionLostError:
        """Wait for the end and return why. EndpointFailedError: the engine failed."""
        state = self.state
        if _get_running_loop() is not state.loop:
            state.driver.misused()
        while state.lost is None:
            await state.wait(CLOSED)
        reason = state.failure()
        if not isinstance(reason, ConnectionLostError):
            raise reason
        return reason

    async def settled(self, timeout: float = LINGER) -> bool:
        """Wait until every finished stream is acknowledged, at most `timeout` seconds.

        True: all are. False: time is up, or the connection ended before.
        """
        state = self.state
        if state.lost is not None or not state.sending:
            return state.lost is None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while state.lost is None and state.unacknowledged():
                    await state.wait(SETTLED)
        return state.lost is None and not state.unacknowledged()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                await self.settled(LINGER)
        finally:
            self.close()

    def __del__(self) -> None:
        state = self.state
        if state.lost is None:
            state.driver.orphan(state.abandon)
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        state = self.state
        life = "closed" if state.lost else "handshaking" if state.handshaking else "open"
        peer = state.peer.hex()[:10] if state.peer else "unknown"
        return f"<Connection {life} to {peer} alpn={state.alpn!r}>"


class IncomingStreams(Generic[S]):
    """Streams as the peer opens them, until the connection ends."""

    __slots__ = ("_accept",)

    def __init__(self, accept: Callable[[], Awaitable[S]]) -> None:
        self._accept = accept

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> S:
        try:
            return await self._accept()
        except ConnectionLostError:
            raise StopAsyncIteration from None
