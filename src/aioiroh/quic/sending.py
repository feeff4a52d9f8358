"""The sending half of a stream."""

from __future__ import annotations

import contextlib
from asyncio import _get_running_loop
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Self

from aioiroh import _native
from aioiroh._native import Waiter
from aioiroh.errors import BusyError, StreamClosedError, StreamStoppedError
from aioiroh.quic.causes import stream_failure
from aioiroh.quic.codes import checked_code
from aioiroh.quic.rejected import REJECTED, EarlyDataRejected
from aioiroh.quic.state import DROPPED

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer

    from aioiroh.quic.connection import Connection
    from aioiroh.quic.state import ConnectionState

__all__ = ["SendStream"]

OPEN, FINISHED, ACKNOWLEDGED, RESET = range(4)


class SendStream:
    """Bytes to the peer, in order.

    As a context manager: leaving the block finishes the stream, an exception resets it with code 0.
    A stream that goes away unfinished is finished, as iroh does.

    Every method raises the reason when the connection is over (a subclass of
    ConnectionLostError), ZeroRttRejectedError if the stream was opened early and the peer did
    not take early data, and WrongLoopError in another loop or thread.
    """

    __slots__ = (
        "__weakref__",
        "_attached",
        "_blocked",
        "_connection",
        "_id",
        "_native",
        "_phase",
        "_sender",
        "_state",
        "_stop_code",
        "_watchers",
        "bytes_written",
    )

    def __init__(self, connection: Connection, stream: int) -> None:
        state = connection.state
        self._connection = connection
        self._state = state
        self._native = state.native
        self._id = stream
        self._phase = OPEN
        self._stop_code: int | None = None
        self._blocked: Waiter[None] | None = None
        self._watchers: list[Waiter[None]] | None = None
        self._attached = False
        self._sender: _native.BlobSender | None = None
        self.bytes_written = 0
        """Bytes accepted so far; after a cancelled `write` it says how far that came."""
        if state.early_streams is not None:
            state.early_streams.add(self)

    @property
    def id(self) -> int:
        """Stream id (RFC 9000 section 2.1)."""
        return self._id

    @property
    def connection(self) -> Connection:
        """The connection that carries it."""
        return self._connection

    @property
    def is_finished(self) -> bool:
        """Whether the end is sent and not yet acknowledged."""
        return self._phase == FINISHED

    async def write(self, data: Buffer) -> None:
        """Hand over all of `data`, waiting while flow control or the send window hold it back.

        Returns when everything is accepted, not when it is received (see `acked`). Buffers other
        than `bytes` must stay unchanged until it returns. Cancelled, it leaves a prefix
        accepted; `bytes_written` says how much.
        StreamStoppedError: the peer reads no more. StreamClosedError: finished or reset here.
        BusyError: another task is writing.
        """
        state = self._state
        if get_ident() != state.thread:
            state.driver.misused()
        if self._blocked is not None or self._attached:
            raise BusyError(_BUSY)
        view = data if type(data) is bytes else memoryview(data).cast("B")
        size = len(view)
        done = 0
        while True:
            if self._phase != OPEN:
                raise StreamClosedError("the stream was finished or reset; open a new one")
            if state.lost is not None:
                raise state.failure()
            if self._stop_code is not None or state.stop_codes:
                # It is reset by now, and the engine may call a reset stream blocked for ever.
                self._raise_if_stopped()
            if done == size:
                return
            try:
                accepted = self._native.write(self._id, view, done)
            except _native.NativeError as error:
                raise self._failure(error) from None
            if accepted:
                done += accepted
                self.bytes_written += accepted
                if not state.driver.scheduled:
                    state.driver.touched()
                if done == size:
                    return
            else:
                await self._unblocked()

    async def _unblocked(self) -> None:
        state = self._state
        state.driver.check_loop()
        waiter: Waiter[None] = Waiter(state.driver.turns)
        self._blocked = waiter
        state.writing[self._id] = self
        try:
            await waiter
        finally:
            self._blocked = None
            if state.writing.get(self._id) is self:
                del state.writing[self._id]

    async def finish(self) -> None:
        """No more bytes follow; the peer reads the end after the last one. Does not wait.

        StreamClosedError: finished or reset before. BusyError: another task is writing.
        """
        state = self._state
        if get_ident() != state.thread:
            state.driver.misused()
        if self._phase != OPEN:
            raise StreamClosedError("the stream was finished or reset already")
        if self._blocked is not None or self._attached:
            raise BusyError(_BUSY)
        if state.lost is not None:
            raise state.failure()
        try:
            self._native.finish(self._id)
        except _native.NativeError as error:
            failure = self._failure(error)
            if not isinstance(failure, StreamStoppedError):
                raise failure from None
            # Harmless, and no reason to fail somebody who is done: `stopped` tells.
        self._phase = FINISHED
        if self._take_stop_code() is None:
            state.sending[self._id] = self
        if not state.driver.scheduled:
            state.driver.touched()

    def reset(self, code: int = 0) -> None:
        """Give up: the peer's reader fails with `code`, bytes under way may be dropped.

        Does nothing after the peer acknowledged everything, or after a reset.
        """
        state = self._state
        if _get_running_loop() is not state.loop:
            state.driver.misused()
        checked_code(code)
        if self._phase in (ACKNOWLEDGED, RESET) or state.lost is not None:
            return
        if self._attached:
            self.detach()
        try:
            self._native.reset(self._id, code)
        except _native.StreamGone:
            pass
        except _native.NativeError as error:
            raise self._failure(error) from None
        self._phase = RESET
        state.stop_codes.pop(self._id, None)
        state.writing.pop(self._id, None)
        state.sending.pop(self._id, None)
        self.wake()
        self.settle()
        state.driver.touched()

    async def stopped(self) -> int | None:
        """Wait until the peer stops reading and return its code, or None if it got everything."""
        while True:
            if self._phase in (ACKNOWLEDGED, RESET):
                return None
            code = self._take_stop_code()
            if code is not None:
                return code
            await self._watch()

    async def acked(self) -> None:
        """Wait until the peer has acknowledged all bytes and the end.

        StreamStoppedError: it stopped reading. StreamClosedError: the stream was reset here.
        """
        while self._phase != ACKNOWLEDGED:
            # First, because a native sender that the peer stopped resets the stream.
            self._raise_if_stopped()
            if self._phase == RESET:
                raise StreamClosedError("the stream was reset; nothing more is acknowledged")
            await self._watch()

    async def _watch(self) -> None:
        """Until something about the stream's end changes."""
        state = self._state
        if _get_running_loop() is not state.loop:
            state.driver.misused()
        if self._native is REJECTED:
            raise self._failure(EarlyDataRejected())
        if state.lost is not None:
            raise state.failure()
        waiter: Waiter[None] = Waiter(state.driver.turns)
        if self._watchers is None:
            self._watchers = []
        self._watchers.append(waiter)
        state.sending[self._id] = self
        try:
            await waiter
        except BaseException:
            if self._watchers is not None and waiter in self._watchers:
                self._watchers.remove(waiter)
            if not self._watchers and self._phase == OPEN:
                state.sending.pop(self._id, None)
            raise

    @property
    def priority(self) -> int:
        """Streams of higher priority send first, equal ones take turns; 0 at first.

        ValueError: it does not fit in 32 bits.
        """
        self._state.driver.check_loop()
        try:
            return self._native.priority(self._id)
        except _native.NativeError as error:
            raise self._failure(error) from None

    @priority.setter
    def priority(self, value: int) -> None:
        self._state.driver.check_loop()
        if not -(2**31) <= value < 2**31:
            raise ValueError("the priority must be from -2**31 to 2**31 - 1")
        try:
            self._native.set_priority(self._id, value)
        except _native.NativeError as error:
            raise self._failure(error) from None

    # --- native transfer

    def attach(self, sender: _native.BlobSender, on_report: Callable[[], None]) -> None:
        """Let `sender` write the stream; `on_report()` is called when it has something to tell.

        The engine finishes or resets the stream as the sender says. Until `detach` other writes
        raise BusyError.
        """
        state = self._state
        if _get_running_loop() is not state.loop:
            state.driver.misused()
        if self._blocked is not None or self._attached:
            raise BusyError(_BUSY)
        if self._phase != OPEN:
            raise StreamClosedError("the stream was finished or reset; open a new one")
        if state.lost is not None:
            raise state.failure()
        try:
            self._native.write_from(self._id, sender)
        except _native.NativeError as error:
            raise self._failure(error) from None
        self._attached = True
        self._sender = sender
        state.send_reports[self._id] = on_report
        # The acknowledgement may come before anybody asks for it.
        state.sending[self._id] = self
        state.driver.touched()

    def allow(self, bytes: int) -> int:
        """Let the attached sender send so many bytes more; how many it may still send.

        From the first call on it sends no more than were allowed.
        """
        assert self._sender is not None
        left = self._sender.allow(bytes)
        if bytes and self._attached:
            self._state.driver.touched()
        return left

    def detach(self, *, finished: bool = False) -> None:
        """End what `attach` began. `finished`: the sender has finished or reset the stream."""
        state = self._state
        if not self._attached:
            return
        self._attached = False
        state.send_reports.pop(self._id, None)
        if finished:
            self._take_stop_code()
            if self._phase == OPEN:
                stopped = self._stop_code is not None
                self._phase = RESET if stopped else FINISHED
                if stopped:
                    state.sending.pop(self._id, None)
            return
        if not self._watchers:
            state.sending.pop(self._id, None)
        try:
            self._native.detach(self._id, "send")
        except _native.NativeError:
            # The stream or its connection is over, and the sender with it.
            return

    # --- events

    def wake(self) -> None:
        """The stream may take bytes again, or never will."""
        if self._blocked is not None:
            self._blocked.complete(None)

    def settle(self) -> None:
        """Something about the stream's end changed."""
        watchers, self._watchers = self._watchers, None
        for waiter in watchers or ():
            waiter.complete(None)

    def on_acknowledged(self) -> None:
        self._phase = ACKNOWLEDGED
        if self._watchers is not None:
            self.settle()

    def on_stopped(self, code: int) -> None:
        self._stop_code = code
        self.wake()
        self.settle()

    def reject(self) -> None:
        """The peer did not take early data: this stream never was."""
        self._native = REJECTED
        self._attached = False

    # --- the end

    def _take_stop_code(self) -> int | None:
        if self._stop_code is None and self._state.stop_codes:
            self._stop_code = self._state.stop_codes.pop(self._id, None)
        return self._stop_code

    def _raise_if_stopped(self) -> None:
        code = self._take_stop_code()
        if code is not None:
            raise StreamStoppedError(code)

    def _failure(self, error: _native.NativeError) -> Exception:
        if isinstance(error, _native.StreamStopped):
            self._stop_code = error.args[0]
        elif isinstance(error, _native.StreamGone) and self._take_stop_code() is not None:
            error = _native.StreamStopped(self._stop_code)
        return stream_failure(error, self._state.lost)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave(kind is None)

    def leave(self, clean: bool) -> None:
        """The end of a block: finish, or reset after an exception. Never raises for a dead stream."""
        if self._phase != OPEN or self._state.lost is not None or self._native is REJECTED:
            return
        if not clean:
            self.reset()
        elif not self._attached:
            if _conclude(self._state, self._native, self._id):
                self._phase = FINISHED
                self._state.sending[self._id] = self
            else:
                self._phase = RESET
            self._state.driver.touched()

    def __del__(self) -> None:
        if self._phase == OPEN and self._state.lost is None and not self._attached:
            state, native, stream = self._state, self._native, self._id
            state.driver.orphan(lambda: _drop(state, native, stream))

    def __repr__(self) -> str:
        phase = ("open", "finished", "acknowledged", "reset")[self._phase]
        return f"<SendStream {self._id} {phase}>"


def _conclude(state: ConnectionState, native: _native.Conn, stream: int) -> bool:
    """Finish; or, if the peer has stopped reading, reset with its own code. True: finished."""
    # Nobody will ask any more.
    state.stop_codes.pop(stream, None)
    try:
        native.finish(stream)
    except _native.StreamStopped as stopped:
        with contextlib.suppress(_native.NativeError):
            native.reset(stream, stopped.args[0])
        return False
    except _native.NativeError:
        return False
    return True


def _drop(state: ConnectionState, native: _native.Conn, stream: int) -> None:
    if _conclude(state, native, stream):
        state.sending[stream] = DROPPED


_BUSY = "another task is writing to this stream; write from one task at a time"
