"""The receiving half of a stream."""

from __future__ import annotations

from asyncio import _get_running_loop
from collections.abc import Callable, Coroutine
from threading import get_ident
from typing import TYPE_CHECKING, Any, NoReturn, Self

from aioiroh import _native
from aioiroh.errors import BusyError, IncompleteReadError, ReadLimitError, StreamClosedError
from aioiroh.quic.causes import stream_failure
from aioiroh.quic.codes import checked_code
from aioiroh.quic.rejected import REJECTED, EarlyDataRejected

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer

    from aioiroh.quic.connection import Connection


__all__ = ["RecvStream"]

DEFAULT_READ = 65536


class RecvStream(_native.RecvHalf):
    """Bytes from the peer, in order; also an async iterator over chunks.

    A cancelled read loses nothing: what had arrived is returned by the next one. As a context
    manager: leaving the block stops the stream with code 0 unless it was read to the end. So does
    dropping it.

    Every method raises the reason when the connection is over and everything that had arrived
    is read (a subclass of ConnectionLostError), StreamResetError if the peer gave up,
    ZeroRttRejectedError if the stream was opened early and the peer did not take early data,
    BusyError if another task is reading, and WrongLoopError in another loop or thread.
    """

    __slots__ = ("__weakref__", "_receiver")
    id: int
    """Stream id (RFC 9000 section 2.1)."""
    connection: Connection
    """The connection that carries it."""
    ended: bool
    """Whether the end has arrived; bytes before it may be unread."""
    reset_code: int | None
    """The code with which the peer gave up, as far as a read has met it."""
    is_early: bool
    """Whether it belongs to early data: those can be replayed by an attacker (RFC 8446 8)."""
    _receiver: _native.BlobReceiver

    def read(self, n: int = DEFAULT_READ) -> Coroutine[Any, Any, bytes]:
        """Between 1 and `n` bytes, as soon as there are any; b"" at the end of the stream."""
        return self.reading(n)

    def read_exactly(self, n: int) -> Coroutine[Any, Any, bytes]:
        """Exactly `n` bytes. IncompleteReadError: the stream ended before; it holds what came."""
        return self.reading_exactly(n)

    def read_all(self, *, limit: int) -> Coroutine[Any, Any, bytes]:
        """Everything up to the end of the stream, at most `limit` bytes.

        ReadLimitError: there is more; what was read is gone and the stream is of no more use.
        """
        return self.reading_all(limit)

    async def readinto(self, buffer: Buffer) -> int:
        """Fill the start of a writable `buffer`; how many bytes, 0 at the end of the stream."""
        state = self._state
        if get_ident() != state.thread:
            state.driver.misused()
        if self._waiter is not None or self._attached:
            raise BusyError(_BUSY)
        view = memoryview(buffer).cast("B")
        if not len(view):
            raise ValueError("the buffer is empty; 0 would not mean the end of the stream")
        if not self._parked and not self.ended:
            try:
                count = self._native.read_into(self.id, view)
            except _native.NativeError as error:
                raise self._failure(error) from None
            if count is not None:
                if count:
                    state.driver.touched()
                else:
                    self.ended = True
                return count
        data = await self.reading(len(view))
        view[: len(data)] = data
        return len(data)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        data = await self.read()
        if not data:
            raise StopAsyncIteration
        return data

    def stop(self, code: int = 0) -> None:
        """Ask the peer to send no more; it sees `code`. Unread bytes are dropped.

        Does nothing after the end, or after the peer's reset.
        """
        state = self._state
        if _get_running_loop() is not state.loop:
            state.driver.misused()
        checked_code(code)
        if self._attached:
            self.detach()
        self._parked = b""
        if self.ended or self._stopped or self.reset_code is not None or state.lost is not None:
            return
        try:
            self._native.stop(self.id, code)
        except _native.StreamGone:
            pass
        except _native.NativeError as error:
            raise self._failure(error) from None
        self._stopped = True
        if state.reading.get(self.id) is self:
            del state.reading[self.id]
        self.wake(None)
        state.driver.touched()

    # --- native transfer

    def attach(self, receiver: _native.BlobReceiver, on_report: Callable[[], None]) -> None:
        """Let `receiver` read the stream; `on_report()` is called when it has something to tell.

        Bytes that a cancelled read left behind would be lost to the receiver: BusyError then, too.
        Until `detach` other reads raise BusyError.
        """
        state = self._state
        if _get_running_loop() is not state.loop:
            state.driver.misused()
        if self._waiter is not None or self._attached or self._parked:
            raise BusyError(_BUSY)
        try:
            self._native.read_to(self.id, receiver)
        except _native.NativeError as error:
            raise self._failure(error) from None
        self._attached = True
        self._receiver = receiver
        state.receive_reports[self.id] = on_report
        state.driver.touched()

    def allow(self, bytes: int) -> int:
        """Let the attached receiver take so many bytes more; how many it may still take.

        From the first call on it takes no more than were allowed, and flow control holds the peer.
        """
        left = self._receiver.allow(bytes)
        if bytes and self._attached:
            self._state.driver.touched()
        return left

    @property
    def taken(self) -> int:
        """Bytes that the attached receiver has taken."""
        return self._receiver.received if hasattr(self, "_receiver") else 0

    def detach(self, *, ended: bool = False) -> None:
        """End what `attach` began. `ended`: the receiver saw the end, or stopped the stream."""
        if not self._attached:
            return
        self._attached = False
        self._state.receive_reports.pop(self.id, None)
        if ended:
            self.ended = True
            return
        try:
            self._native.detach(self.id, "recv")
        except _native.NativeError:
            # The stream or its connection is over, and the receiver with it.
            return

    # --- events

    def reject(self) -> None:
        """The peer did not take early data: this stream never was."""
        self._native = REJECTED
        self._attached = False

    # --- reasons, for native reads too

    def _refuse(self) -> NoReturn:
        """Reading is not allowed now."""
        if get_ident() != self._state.thread:
            self._state.driver.misused()
        raise BusyError(_BUSY)

    def _incomplete(self, came: bytes, wanted: int) -> Exception:
        return IncompleteReadError(came, wanted)

    def _too_long(self, limit: int) -> Exception:
        return ReadLimitError(limit)

    def _reason(self) -> Exception:
        """Why a read was woken without data."""
        if self._native is REJECTED:
            return self._failure(EarlyDataRejected())
        if self.reset_code is not None:
            return self._failure(_native.StreamReset(self.reset_code))
        if self._stopped:
            return StreamClosedError("the stream was stopped on this side")
        return self._state.failure()

    def _failure(self, error: _native.NativeError) -> Exception:
        if isinstance(error, _native.StreamReset):
            self.reset_code = error.args[0]
        elif self.reset_code is not None:
            error = _native.StreamReset(self.reset_code)
        return stream_failure(error, self._state.lost)

    # --- the end

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """The end of a block: stop, unless everything was read. Never raises for a dead stream."""
        if self.ended or self._stopped or self.reset_code is not None or self._attached:
            return
        if self._state.lost is None and self._native is not REJECTED:
            if self._waiter is None and not self._parked:
                try:
                    # The last bytes may have been read and the end be there unread.
                    if self._native.read(self.id, 1) == b"":
                        self.ended = True
                        return
                except _native.NativeError:
                    return
            self.stop()

    def __repr__(self) -> str:
        phase = "ended" if self.ended else "stopped" if self._stopped else "open"
        return f"<RecvStream {self.id} {phase}>"


_BUSY = "another task is reading this stream; read from one task at a time"
