"""What the driver knows of one connection: who waits for what, and what events do about it.

The application holds a `Connection`; the driver holds a `ConnectionState`. The state refers to the
application's objects only while somebody waits, so a connection or a stream that nobody holds any more is
noticed when it goes away, and a waiting task is never collected under its own await.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakSet

from aioiroh import _native
from aioiroh._native import Waiter
from aioiroh.errors import LocallyClosedError
from aioiroh.quic.causes import Detail, connection_lost, loss_copy

if TYPE_CHECKING:
    from aioiroh.address import TransportAddr
    from aioiroh.quic.driver import Driver
    from aioiroh.quic.observer import ConnectionObserver
    from aioiroh.quic.paths import PathBoard
    from aioiroh.quic.receiving import RecvStream
    from aioiroh.quic.sending import SendStream

__all__ = [
    "ACCEPT",
    "BI",
    "CLOSED",
    "DATAGRAM_IN",
    "DATAGRAM_OUT",
    "HANDLERS",
    "HANDSHAKE",
    "OPEN",
    "SETTLED",
    "UNI",
    "ConnectionState",
]

logger = logging.getLogger("aioiroh.quic")

BI, UNI = 0, 1
"""Directions of streams."""

# Topics to wait for. ACCEPT and OPEN are counted up by the direction.
ACCEPT, OPEN, HANDSHAKE, CLOSED, DATAGRAM_IN, DATAGRAM_OUT, SETTLED = 0, 2, 4, 5, 6, 7, 8


class Dropped:
    """In place of a sending half that nobody holds, finished and not yet acknowledged."""

    is_finished = True

    def on_stopped(self, code: int) -> None:
        pass

    def settle(self) -> None:
        pass


DROPPED = Dropped()


class ConnectionState(_native.Streams):
    """Waiters and facts of one connection."""

    __slots__ = (
        "alpn",
        "driver",
        "early_accepted",
        "early_streams",
        "loop",
        "observer",
        "open_paths",
        "paths",
        "peer",
        "receive_reports",
        "send_reports",
        "taker",
        "thread",
        "waiting",
        "writing",
    )

    def __new__(cls, driver: Driver, native: _native.Conn, *_: object) -> Self:
        return super().__new__(cls, native, driver.turns)

    def __init__(
        self,
        driver: Driver,
        native: _native.Conn,
        peer: bytes | None,
        observer: ConnectionObserver | None,
    ) -> None:
        self.driver = driver
        self.observer = observer
        self.loop = driver.loop
        # Looking at the thread is cheaper than looking at its loop, which is done before waiting and
        # before anything is sent.
        self.thread = driver.thread
        self.peer = peer
        self.alpn: bytes | None = None
        self.early_accepted = False
        # Streams opened before a client's handshake is complete, while early data is possible.
        self.early_streams: WeakSet[SendStream | RecvStream] | None = None
        self.open_paths: dict[int, TransportAddr] = {}
        """For the observer."""
        self.paths: PathBoard | None = None
        self.writing: dict[int, SendStream] = {}
        self.receive_reports: dict[int, Callable[[], None]] = {}
        self.send_reports: dict[int, Callable[[], None]] = {}
        self.taker: Callable[[], None] | None = None
        """Takes streams that the peer opens in both directions, as soon as they are there."""
        self.waiting: dict[int, list[Waiter[None]]] = {}

    # --- waiting

    async def wait(self, topic: int) -> None:
        """Until `wake(topic)`. The caller looks again at what it waits for."""
        self.driver.check_loop()
        waiter: Waiter[None] = Waiter(self.driver.turns)
        self.waiting.setdefault(topic, []).append(waiter)
        try:
            await waiter
        except BaseException:
            waiters = self.waiting.get(topic)
            if waiters is not None and waiter in waiters:
                waiters.remove(waiter)
                if not waiters:
                    del self.waiting[topic]
            raise

    def wake(self, topic: int) -> None:
        for waiter in self.waiting.pop(topic, ()):
            waiter.complete(None)

    # --- streams that nobody holds any more

    def dropped(self, half: str, stream: int) -> None:
        """Called by destructors, so it is done later."""
        self.driver.orphan(partial(self._end_dropped, half, stream))

    def _end_dropped(self, half: str, stream: int) -> None:
        if half == "receiving":
            self.native.stop(stream, 0)
        elif self.conclude(stream):
            self.sending[stream] = DROPPED

    def conclude(self, stream: int) -> bool:
        """Finish; or, if the peer has stopped reading, reset with its own code. True: finished."""
        # Nobody will ask any more.
        self.stop_codes.pop(stream, None)
        try:
            self.native.finish(stream)
        except _native.StreamStopped as stopped:
            with contextlib.suppress(_native.NativeError):
                self.native.reset(stream, stopped.args[0])
            return False
        except _native.NativeError:
            return False
        return True

    # --- the end

    def failure(self) -> Exception:
        """Why the connection is over, as a fresh exception."""
        return loss_copy(self.lost if self.lost is not None else LocallyClosedError())

    def close(self, code: int, reason: bytes) -> None:
        """Close from this side: at once for the application, and with the next flush on the wire."""
        self.native.close(code, reason)
        self.driver.touched()
        self.lose(LocallyClosedError())

    def abandon(self) -> None:
        """Nobody holds the connection any more."""
        if self.lost is None:
            self.close(0, b"")

    def unacknowledged(self) -> bool:
        """Whether a finished stream waits for the peer's acknowledgement."""
        return any(stream.is_finished for stream in self.sending.values())

    def lose(self, loss: Exception) -> None:
        """The connection is over: fail everybody who waits. The first reason stays."""
        if self.lost is not None:
            return
        self.lost = loss
        if self.observer is not None:
            self.observer.lost(self)
        self.fail_streams()
        for topic in tuple(self.waiting):
            self.wake(topic)
        # Native ends learn of it too, maybe only in the next pump: their reports stay registered.
        for reports in (self.receive_reports, self.send_reports):
            for report in tuple(reports.values()):
                self._report(report)
        if self.paths is not None:
            self.paths.end()

    def fail_streams(self) -> None:
        """Wake everybody who waits on a stream; they find the reason themselves."""
        for reader in self.reading.values():
            reader.wake(None)
        for writer in self.writing.values():
            writer.wake()
        for sender in self.sending.values():
            sender.settle()
        self.reading.clear()
        self.writing.clear()
        self.sending.clear()
        self.stop_codes.clear()

    def _report(self, report: Callable[[], None]) -> None:
        try:
            report()
        except Exception as error:
            # Nobody awaits a report, so its failure must end what the application does await.
            logger.exception("the receiver of a transfer's reports failed; closing its connection")
            if self.lost is None:
                self.native.close(0, b"")
                self.driver.touched()
                loss = LocallyClosedError("closed because the owner of a transfer failed")
                loss.__cause__ = error
                self.lose(loss)

    # --- events, one method per kind: (self, a, b)

    def on_connected(self, early_accepted: int, identity: tuple[bytes | None, bytes]) -> None:
        if self.lost is not None:
            # Closed here while this was under way: nobody would count its end.
            return
        self.peer, self.alpn = identity
        self.handshaking = False
        self.early_accepted = bool(early_accepted)
        if self.observer is not None:
            self.observer.connected(self)
        early, self.early_streams = self.early_streams, None
        if early is not None and not early_accepted:
            for stream in early:
                stream.reject()
            self.fail_streams()
        self.wake(HANDSHAKE)

    def on_confirmed(self, _a: int, _b: object) -> None:
        pass

    def on_closed(self, cause: int, detail: Detail) -> None:
        self.handshaking = False
        self.lose(connection_lost(cause, detail))

    def on_drained(self, _a: int, _b: object) -> None:
        self.driver.forget(self)

    def on_streams_opened(self, direction: int, _b: object) -> None:
        if direction == BI and self.taker is not None:
            self.driver.turns.call(self.taker)
        self.wake(ACCEPT + direction)

    def on_streams_available(self, direction: int, _b: object) -> None:
        self.wake(OPEN + direction)

    def on_reset(self, stream: int, code: int) -> None:
        reader = self.reading.pop(stream, None)
        if reader is not None:
            reader.reset_code = code
            reader.wake(None)

    def on_writable(self, stream: int, _b: object) -> None:
        writer = self.writing.pop(stream, None)
        if writer is not None:
            writer.wake()

    def on_finished(self, _a: int, streams: tuple[int, ...]) -> None:
        self.acknowledge(streams)
        if SETTLED in self.waiting:
            self.wake(SETTLED)

    def on_stopped(self, stream: int, code: int) -> None:
        writer = self.writing.pop(stream, None)
        sender = self.sending.pop(stream, None)
        over = False
        if sender is None or not sender.is_finished:
            # The answer that RFC 9000 section 3.5 asks for; else the stream would count as open
            # until the application drops it.
            try:
                self.native.reset(stream, code)
                self.driver.touched()
            except _native.NativeError:
                # It was reset before, so nobody will ask for the code.
                over = True
        for waiting in (writer, sender):
            if waiting is not None:
                waiting.on_stopped(code)
        if writer is None and sender is None:
            if not over:
                self.stop_codes[stream] = code
        elif SETTLED in self.waiting:
            self.wake(SETTLED)

    def on_transfer(self, stream: int, _b: object) -> None:
        for reports in (self.receive_reports, self.send_reports):
            report = reports.get(stream)
            if report is not None:
                self._report(report)

    def on_datagrams(self, _a: int, _b: object) -> None:
        self.wake(DATAGRAM_IN)

    def on_datagrams_unblocked(self, _a: int, _b: object) -> None:
        self.wake(DATAGRAM_OUT)

    def on_path_established(self, path: int, detail: Any) -> None:
        if self.observer is not None and self.lost is None:
            self.observer.path_opened(self, path, detail[0])
        if self.paths is not None:
            self.paths.on_established(path, *detail)

    def on_path_abandoned(self, path: int, detail: Any) -> None:
        if self.observer is not None:
            self.observer.path_closed(self, path, detail[0])
        if self.paths is not None:
            self.paths.on_abandoned(path, *detail)

    def on_path_discarded(self, path: int, stats: Any) -> None:
        if self.paths is not None:
            self.paths.on_discarded(path, stats)

    def on_path_silent(self, path: int, silent: bool) -> None:
        if self.driver.observer is not None and self.lost is None:
            self.driver.observer.path_silent(self, path, silent=silent)

    def on_path_remote_status(self, path: int, status: Any) -> None:
        if self.driver.observer is not None and self.lost is None:
            self.driver.observer.path_marked(self, path, status)
        if self.paths is not None:
            self.paths.on_remote_status(path, status)

    def on_path_observed(self, path: int, address: Any) -> None:
        if self.observer is not None and self.lost is None:
            self.observer.observed_at(self, path, address)
        if self.paths is not None:
            self.paths.on_observed(path, address)

    def on_nat_address(self, added: int, address: Any) -> None:
        if self.observer is not None and self.lost is None:
            self.observer.candidate(self, address, added=bool(added))
        if self.paths is not None:
            self.paths.on_candidate(bool(added), address)

    def on_nat_probe(self, _a: int, address: Any) -> None:
        if self.observer is not None and self.lost is None:
            self.observer.candidate(self, address, added=True)


HANDLERS: dict[int, Callable[[ConnectionState, int, Any], None]] = {
    _native.EV_CONNECTED: ConnectionState.on_connected,
    _native.EV_CONFIRMED: ConnectionState.on_confirmed,
    _native.EV_CLOSED: ConnectionState.on_closed,
    _native.EV_DRAINED: ConnectionState.on_drained,
    _native.EV_STREAMS_OPENED: ConnectionState.on_streams_opened,
    _native.EV_STREAMS_AVAILABLE: ConnectionState.on_streams_available,
    _native.EV_DATA: ConnectionState.deliver,
    _native.EV_RESET: ConnectionState.on_reset,
    _native.EV_WRITABLE: ConnectionState.on_writable,
    _native.EV_FINISHED: ConnectionState.on_finished,
    _native.EV_STOPPED: ConnectionState.on_stopped,
    _native.EV_TRANSFER: ConnectionState.on_transfer,
    _native.EV_DATAGRAMS: ConnectionState.on_datagrams,
    _native.EV_DATAGRAMS_UNBLOCKED: ConnectionState.on_datagrams_unblocked,
    _native.EV_PATH_ESTABLISHED: ConnectionState.on_path_established,
    _native.EV_PATH_ABANDONED: ConnectionState.on_path_abandoned,
    _native.EV_PATH_DISCARDED: ConnectionState.on_path_discarded,
    _native.EV_PATH_REMOTE_STATUS: ConnectionState.on_path_remote_status,
    _native.EV_PATH_SILENT: ConnectionState.on_path_silent,
    _native.EV_PATH_OBSERVED: ConnectionState.on_path_observed,
    _native.EV_NAT_ADDRESS: ConnectionState.on_nat_address,
    _native.EV_NAT_PROBE: ConnectionState.on_nat_probe,
}
