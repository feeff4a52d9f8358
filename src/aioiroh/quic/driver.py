"""Drives one native engine from one running event loop.

The engine is a state machine with one pollable file descriptor. When that is readable the driver has a
turn: `step` receives, runs timers and returns events, which a table dispatches; tasks that waited for them
go on (see `Waiter`), still in the loop's callback; and `flush` sends what they said, together with the
acknowledgements; if they are many, after some of them each time. So a request costs one iteration of the loop and one datagram on each side. What the application asks for at other times is
flushed once in the next iteration of the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import warnings
from asyncio import _get_running_loop
from collections.abc import Callable, Sequence
from threading import get_ident
from typing import Any, NoReturn
from weakref import WeakSet

from aioiroh import _native
from aioiroh._native import Turns, Waiter
from aioiroh.errors import (
    EndpointClosedError,
    EndpointFailedError,
    LocallyClosedError,
    WrongLoopError,
)
from aioiroh.quic.alarm import Alarm, open_alarm
from aioiroh.quic.causes import connection_lost
from aioiroh.quic.connection import Connection
from aioiroh.quic.incoming import Incoming, IncomingQueue
from aioiroh.quic.observer import ConnectionObserver, Observer
from aioiroh.quic.slots import Slots
from aioiroh.quic.state import HANDLERS, ConnectionState
from aioiroh.quic.transport import TransportConfig

__all__ = ["Driver"]

logger = logging.getLogger("aioiroh.quic")

_Call = Callable[[], Sequence[tuple[int, int, int, Any]]]
"""A native call that returns events."""

DRAIN_TIMEOUT = 3.0
"""Seconds that closing waits for peers to take note, at most."""
MAX_INCOMING = 1024
"""Undecided incoming connections kept for `accept`; more are refused."""
AT_ONCE = 16
"""Tasks that go on before what they said is sent: with many, the peer works while the others still do."""

_drivers: WeakSet[Driver] = WeakSet()


class Driver(Slots):
    """One engine on one loop; also the `SlotHost` that a network binds sockets for.

    `virtual`: the engine's clock is `loop.time`. `busy_poll`: seconds that a turn waits awake for what
    comes next, where the system has a descriptor to ask. All methods belong to the loop that ran when the
    driver was made and raise WrongLoopError elsewhere, EndpointClosedError after `aclose`,
    EndpointFailedError after a failure of the engine and in a forked child.
    """

    def __init__(
        self,
        engine: _native.Engine,
        *,
        virtual: bool = False,
        max_incoming: int = MAX_INCOMING,
        busy_poll: float = 0.0,
    ) -> None:
        super().__init__()
        self.loop = asyncio.get_running_loop()
        self.thread = get_ident()
        self.engine = engine
        self.turns = Turns(self.loop, self._flush)
        self.failed: EndpointFailedError | None = None
        self.closing = False
        self.observer: Observer | None = None
        self.on_knock: Callable[[int, tuple[str, int], int | None], None] | None = None
        """Called as `(slot, source, port)` when something comes to a slot that is set aside, from an address
        that is not pinned to it. If it is a probe, the peer had sent it to `port`. Must not raise.
        """
        self._pid = os.getpid()
        self._shut = False
        self._connections: dict[int, ConnectionState] = {}
        self.incoming = IncomingQueue(self, max_incoming)
        self._idle: list[Waiter[None]] = []
        # Connections that were closed from here, whose peers may have missed it: while they drain,
        # whatever the peer sends is answered with the close. Others need not be waited for.
        self._parting: set[int] = set()
        # What destructors left to do: calls into the engine must not happen inside them.
        self._orphans: list[Callable[[], object]] = []
        self._alarm = open_alarm(self.loop, engine, self, virtual=virtual, busy_poll=busy_poll)
        _drivers.add(self)

    # --- the engine's turn

    def on_ready(self) -> None:
        """The engine has something to do: datagrams arrived or a timer is due."""
        self._turn(self.engine.step)

    def touched(self) -> None:
        """Something was asked of the engine: flush once, at the end of this turn or soon."""
        if not self.turns.touch():
            self.misused()

    def _flush(self) -> None:
        self.turns.scheduled = False
        injected, self._injected = self._injected, False
        self._turn(self.engine.step if injected else self.engine.flush)

    def _turn(self, begin: _Call) -> None:
        """A callback of the loop: what the engine says, what tasks make of it, what they answer."""
        turns = self.turns
        turns.active = True
        try:
            if self._hear(begin) or turns.scheduled:
                more = True
                while more:
                    more = turns.proceed(AT_ONCE)
                    turns.scheduled = False
                    self._hear(self.engine.flush)
            turns.proceed(AT_ONCE)
        finally:
            turns.active = False
            if turns.scheduled or turns.pending:
                self.loop.call_soon(self._flush)

    def _hear(self, call: _Call) -> bool:
        """Dispatch the events of one call; whether there were any."""
        if self._shut:
            return False
        try:
            while self._orphans:
                with contextlib.suppress(_native.NativeError):
                    self._orphans.pop()()
            connections = self._connections
            events = call()
            for kind, conn, a, b in events:
                if conn:
                    state = connections.get(conn)
                    if state is not None:
                        HANDLERS[kind](state, a, b)
                else:
                    self._on_engine_event(kind, a, b)
            if not self._alarm.keeps_time:
                self._alarm.rearm()
        except BaseException as error:
            # A loop logs what a callback raises and goes on: the connections would hang.
            self._fail(error)
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            return False
        return bool(events)

    def _on_engine_event(self, kind: int, a: int, b: Any) -> None:
        match kind:
            case _native.EV_INCOMING:
                self.incoming.offer(Incoming(self, a, *b))
            case _native.EV_OUTPUT:
                output = self._outputs.get(a)
                if output is not None:
                    output(a)
            case _native.EV_KNOCK:
                if self.on_knock is not None:
                    self.on_knock(a, *b)
            case _native.EV_SOCKET_ERROR:
                errno, destination = b
                logger.debug("UDP socket %d, to %s: %s", a, destination, os.strerror(errno))
                if self.observer is not None:
                    self.observer.socket_error(a, errno, destination)
            case _native.EV_ENGINE_FAILED:
                raise EndpointFailedError(f"the engine failed: {b}; bind a new endpoint")

    # --- connections

    def connect(
        self,
        address: tuple[str, int],
        peer: bytes,
        alpns: Sequence[bytes],
        *,
        transport: TransportConfig | None = None,
        early_data: bool = False,
    ) -> Connection:
        """Begin a handshake with the peer of this id (32 bytes) at `address`.

        `early_data`: use a session ticket, if there is one, to send before the handshake is
        complete (`Connection.is_early` tells). ValueError: bad arguments, no ALPN.
        """
        self.check()
        native = self.engine.connect(
            address,
            peer,
            alpns,
            transport=None if transport is None else transport.native(),
            early_data=early_data,
        )
        state = self.adopt(native, peer, self.observer)
        if early_data and native.info()["has_0rtt"]:
            state.early_streams = WeakSet()
        return Connection(state)

    def adopt(
        self, native: _native.Conn, peer: bytes | None, observer: ConnectionObserver | None
    ) -> ConnectionState:
        """Hand on the events of a new connection of the engine."""
        state = ConnectionState(self, native, peer, observer)
        self._connections[native.id] = state
        self._alarm.held = self
        self.touched()
        return state

    def forget(self, state: ConnectionState) -> None:
        """The connection is drained: nothing more comes from it."""
        self._connections.pop(state.native.id, None)
        self._parting.discard(state.native.id)
        if not self._parting:
            for waiter in self._idle:
                waiter.complete(None)
        if not self._connections:
            self._release()

    def _release(self) -> None:
        if not self._connections and not self.incoming.awaited:
            self._alarm.held = None

    @property
    def connection_count(self) -> int:
        """Connections that are not drained, handshakes included."""
        return len(self._connections)

    def established(self) -> list[ConnectionState]:
        """Connections whose handshake is complete and that are not over."""
        return [s for s in self._connections.values() if s.alpn is not None and s.lost is None]

    def is_observed_by(self, observer: ConnectionObserver) -> bool:
        """Whether there are connections that it hears of, handshakes and those that drain included."""
        return any(state.observer is observer for state in self._connections.values())

    # --- incoming connections

    async def accept(self) -> Incoming:
        """The next peer that wants to connect."""
        self._alarm.held = self
        try:
            return await self.incoming.take()
        finally:
            self._release()

    def divert(self, taker: Callable[[Incoming], bool] | None) -> None:
        """Give every incoming connection to `taker` at once; what it does not take waits for `accept`.

        It is called while events are dispatched and must not raise.
        """
        self.incoming.taker = taker
        if taker is not None:
            self._alarm.held = self
        else:
            self._release()

    def accept_incoming(
        self,
        number: int,
        transport: TransportConfig | None,
        alpns: Sequence[bytes] | None,
    ) -> Connection:
        answer = self.engine.accept(
            number, transport=None if transport is None else transport.native(), alpns=alpns
        )
        if isinstance(answer, tuple):
            # A virtual slot has the engine's answer to the peer, and nothing else may come to send it.
            self.touched()
            raise connection_lost(*answer)
        return Connection(self.adopt(answer, None, self.observer))

    # --- the network

    def network_changed(self) -> None:
        """The machine's addresses changed: all paths ask from where they are now whether they work."""
        self.check()
        self.engine.network_changed()
        self.touched()

    # --- errors

    def check(self) -> None:
        """Raise if this is the wrong loop or thread, or if there is no living engine."""
        self.check_loop()
        if self.failed is not None:
            raise EndpointFailedError(str(self.failed)) from self.failed.__cause__
        if self.closing:
            raise EndpointClosedError

    def check_loop(self) -> None:
        """Raise if this is the wrong loop, thread or process."""
        if not self.turns.at_home():
            self.misused()

    def misused(self) -> NoReturn:
        """The running loop is not ours: say why."""
        if os.getpid() != self._pid:
            raise EndpointFailedError(_FORKED)
        raise WrongLoopError(
            "this object belongs to another event loop or thread; use it there, or hand the call "
            "over with asyncio.run_coroutine_threadsafe or loop.call_soon_threadsafe"
        )

    def orphan(self, call: Callable[[], object]) -> None:
        """Do this with the next flush. For destructors, which run in any thread at any moment."""
        if self._shut or os.getpid() != self._pid:
            return
        self._orphans.append(call)
        # The loop may be closed already; then the whole engine goes away instead.
        with contextlib.suppress(RuntimeError):
            if _get_running_loop() is self.loop:
                self.touched()
            else:
                self.loop.call_soon_threadsafe(self.touched)

    def _fail(self, error: BaseException) -> None:
        if self.failed is not None:
            return
        logger.critical("the QUIC engine failed; its endpoint is dead", exc_info=error)
        if isinstance(error, EndpointFailedError):
            self.failed = error
        else:
            self.failed = EndpointFailedError(f"the engine failed: {error!r}; bind a new endpoint")
            self.failed.__cause__ = error
        self._end(self.failed)
        self._shutdown()
        if self.observer is not None:
            self.observer.failed()

    def _end(self, reason: Exception) -> None:
        for state in tuple(self._connections.values()):
            state.lose(reason)
        self.incoming.wake_all()
        for waiter in self._idle:
            waiter.complete(None)

    # --- the end

    async def aclose(
        self, code: int = 0, reason: bytes = b"", *, timeout: float = DRAIN_TIMEOUT
    ) -> None:
        """Close every connection with `code` and `reason`, wait until peers took note, let go.

        Waits at most `timeout` seconds. May be called again, also while the first call runs.
        """
        self.check_loop()
        if not self.closing and self.failed is None:
            self.closing = True
            self.incoming.refuse_all()
            self.engine.close(code, reason)
            self._end(LocallyClosedError("the endpoint was closed"))
            self._parting = {
                number
                for number, state in self._connections.items()
                if state.alpn is not None
                and state.peer is not None
                and isinstance(state.lost, LocallyClosedError)
            }
            # Inside a task: whoever is woken has to wait for the loop.
            self._hear(self.engine.flush)
        try:
            if self._parting and not self._shut:
                waiter: Waiter[None] = Waiter(self.turns)
                self._idle.append(waiter)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        await waiter
                self._idle.remove(waiter)
        finally:
            self._shutdown()

    def abort(self) -> None:
        """Let go at once, without a word to anybody: for what could not be bound."""
        self.closing = True
        self._shutdown()

    def _shutdown(self) -> None:
        if self._shut:
            return
        self._shut = True
        self._alarm.held = None
        self._connections.clear()
        self._orphans.clear()
        for slot in tuple(self._outputs):
            self._forget_slot(slot)
        _let_go(self.loop, self._alarm, self.engine)

    def _forked(self) -> None:
        # The descriptors are shared with the parent: neither the loop's nor the engine's interest
        # lists may be changed from here.
        self.failed = EndpointFailedError(_FORKED)
        self._shut = True
        self.engine.shutdown()
        for state in self._connections.values():
            state.lost = self.failed

    def __del__(self) -> None:
        if getattr(self, "_shut", True) or os.getpid() != self._pid:
            return
        self._shut = True
        with contextlib.suppress(Exception):
            self.engine.close(0, b"")
            self.engine.flush()
        if _get_running_loop() is self.loop or self.loop.is_closed():
            _let_go(self.loop, self._alarm, self.engine)
        else:
            # Maybe another thread: only the loop may let go of the descriptor.
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(_let_go, self.loop, self._alarm, self.engine)
        warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)

    def __repr__(self) -> str:
        life = "failed" if self.failed else "closed" if self.closing else "open"
        return f"<aioiroh engine {life} connections={len(self._connections)}>"


_FORKED = (
    "this process was forked from the one that the endpoint lives in; bind a new endpoint here "
    "(or start workers with the 'spawn' method)"
)


def _let_go(loop: asyncio.AbstractEventLoop, alarm: Alarm, engine: _native.Engine) -> None:
    if not loop.is_closed():
        alarm.stop()
    engine.shutdown()


def _after_fork_in_child() -> None:
    for driver in tuple(_drivers):
        driver._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
