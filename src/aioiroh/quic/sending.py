"""The sending half of a stream."""

from __future__ import annotations

from asyncio import _get_running_loop
from collections.abc import Callable, Coroutine
from threading import get_ident
from typing import TYPE_CHECKING, Any, Self

from aioiroh import _native
from aioiroh._native import Waiter
from aioiroh.errors import BusyError, StreamClosedError, StreamStoppedError
from aioiroh.quic.causes import stream_failure
from aioiroh.quic.codes import checked_code
from aioiroh.quic.rejected import REJECTED, EarlyDataRejected

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer

    from aioiroh.quic.connection import Connection


__all__ = ["SendStream"]

OPEN, FINISHED, ACKNOWLEDGED, RESET = range(4)


class SendStream(_native.SendHalf):
    """Bytes to the peer, in order.

    As a context manager: leaving the block finishes the stream, an exception resets it with code 0.
    A stream that goes away unfinished is finished, as iroh does.

    Every method raises the reason when the connection is over (a subclass of
    ConnectionLostError), ZeroRttRejectedError if the stream was opened early and the peer did
    not take early data, and WrongLoopError in another loop or thread.
    """

    __slots__ = ("__weakref__", "_sender")
    id: int
    """Stream id (RFC 9000 section 2.1)."""
    connection: Connection
    """The connection that carries it."""
    bytes_written: int
    """Bytes accepted so far; after a cancelled `write` it says how far that came."""
    _sender: _native.BlobSender

    @property
    def is_finished(self) -> bool:
        """Whether the end is sent and not yet acknowledged."""
        return self._phase == FINISHED

    def write(self, data: Buffer) -> Coroutine[Any, Any, None]:
        """Hand over all of `data`, waiting while flow control or the send window hold it back.

        Returns when everything is accepted, not when it is received (see `acked`). Buffers other
        than `bytes` must stay unchanged until it returns. Cancelled, it leaves a prefix
        accepted; `bytes_written` says how much.
        StreamStoppedError: the peer reads no more. StreamClosedError: finished or reset here.
        BusyError: another task is writing.
        """
        return self.writing(data)

    async def _write(self, data: Buffer, done: int) -> None:
        """What a write does when not all of it is accepted at once. `done` bytes are accepted."""
        state = self._state
        if get_ident() != state.thread:
            state.driver.misused()
        if self._blocked is not None or self._attached:
            raise BusyError(_BUSY)
        view = data if type(data) is bytes else memoryview(data).cast("B")
        size = len(view)
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
                accepted = self._native.write(self.id, view, done)
            except _native.NativeError as error:
                raise self._failure(error) from None
            if accepted:
                done += accepted
                self.bytes_written += accepted
                state.driver.touched()
            else:
                await self._unblocked()

    async def _unblocked(self) -> None:
        state = self._state
        state.driver.check_loop()
        waiter: Waiter[None] = Waiter(state.driver.turns)
        self._blocked = waiter
        state.writing[self.id] = self
        try:
            await waiter
        finally:
            self._blocked = None
            if state.writing.get(self.id) is self:
                del state.writing[self.id]

    def finish(self) -> Coroutine[Any, Any, None]:
        """No more bytes follow; the peer reads the end after the last one. Does not wait.

        StreamClosedError: finished or reset before. BusyError: another task is writing.
        """
        return self.finishing()

    async def _finish(self) -> None:
        """What finishing does when something stands against it, or seems to."""
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
            self._native.finish(self.id)
        except _native.NativeError as error:
            failure = self._failure(error)
            if not isinstance(failure, StreamStoppedError):
                raise failure from None
            # Harmless, and no reason to fail somebody who is done: `stopped` tells.
        self._phase = FINISHED
        if self._take_stop_code() is None:
            state.sending[self.id] = self
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
            self._native.reset(self.id, code)
        except _native.StreamGone:
            pass
        except _native.NativeError as error:
            raise self._failure(error) from None
        self._phase = RESET
        state.stop_codes.pop(self.id, None)
        state.writing.pop(self.id, None)
        state.sending.pop(self.id, None)
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
        watchers = state.watching.setdefault(self.id, [])
        watchers.append(waiter)
        state.sending[self.id] = self
        try:
            await waiter
        except BaseException:
            watchers.remove(waiter)
            if not watchers and state.watching.get(self.id) is watchers:
                del state.watching[self.id]
                if self._phase == OPEN:
                    state.sending.pop(self.id, None)
            raise

    @property
    def priority(self) -> int:
        """Streams of higher priority send first, equal ones take turns; 0 at first.

        ValueError: it does not fit in 32 bits.
        """
        self._state.driver.check_loop()
        try:
            return self._native.priority(self.id)
        except _native.NativeError as error:
            raise self._failure(error) from None

    @priority.setter
    def priority(self, value: int) -> None:
        self._state.driver.check_loop()
        if not -(2**31) <= value < 2**31:
            raise ValueError("the priority must be from -2**31 to 2**31 - 1")
        try:
            self._native.set_priority(self.id, value)
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
            self._native.write_from(self.id, sender)
        except _native.NativeError as error:
            raise self._failure(error) from None
        self._attached = True
        self._sender = sender
        state.send_reports[self.id] = on_report
        # The acknowledgement may come before anybody asks for it.
        state.sending[self.id] = self
        state.driver.touched()

    def allow(self, bytes: int) -> int:
        """Let the attached sender send so many bytes more; how many it may still send.

        From the first call on it sends no more than were allowed.
        """
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
        state.send_reports.pop(self.id, None)
        if finished:
            self._take_stop_code()
            if self._phase == OPEN:
                stopped = self._stop_code is not None
                self._phase = RESET if stopped else FINISHED
                if stopped:
                    state.sending.pop(self.id, None)
            return
        if self.id not in state.watching:
            state.sending.pop(self.id, None)
        try:
            self._native.detach(self.id, "send")
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
        for waiter in self._state.watching.pop(self.id, ()):
            waiter.complete(None)

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
            self._stop_code = self._state.stop_codes.pop(self.id, None)
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
        if clean and self.finish_at_once():
            return
        if self._phase != OPEN or self._state.lost is not None or self._native is REJECTED:
            return
        if not clean:
            self.reset()
        elif not self._attached:
            if self._state.conclude(self.id):
                self._phase = FINISHED
                self._state.sending[self.id] = self
            else:
                self._phase = RESET
            self._state.driver.touched()

    def __repr__(self) -> str:
        phase = ("open", "finished", "acknowledged", "reset")[self._phase]
        return f"<SendStream {self.id} {phase}>"


_BUSY = "another task is writing to this stream; write from one task at a time"
