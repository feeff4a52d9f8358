"""The receiving half of a stream."""

from __future__ import annotations

from asyncio import _get_running_loop
from collections.abc import Callable
from threading import get_ident
from typing import TYPE_CHECKING, Self

from aioiroh import _native
from aioiroh._native import Waiter
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
LARGEST_READ = 1 << 20


class RecvStream:
    """Bytes from the peer, in order; also an async iterator over chunks.

    A cancelled read loses nothing: what had arrived is returned by the next one. As a context
    manager: leaving the block stops the stream with code 0 unless it was read to the end. So does
    dropping it.

    Every method raises the reason when the connection is over and everything that had arrived
    is read (a subclass of ConnectionLostError), StreamResetError if the peer gave up,
    ZeroRttRejectedError if the stream was opened early and the peer did not take early data,
    BusyError if another task is reading, and WrongLoopError in another loop or thread.
    """

    __slots__ = (
        "__weakref__",
        "_attached",
        "_connection",
        "_id",
        "_native",
        "_parked",
        "_receiver",
        "_state",
        "_stopped",
        "_waiter",
        "ended",
        "is_early",
        "reset_code",
    )

    def __init__(self, connection: Connection, stream: int) -> None:
        state = connection.state
        self._connection = connection
        self._state = state
        self._native = state.native
        self._id = stream
        self._parked = b""
        self._waiter: Waiter[bytes | None] | None = None
        self._attached = False
        self._receiver: _native.BlobReceiver | None = None
        self._stopped = False
        self.ended = False
        """Whether the end has arrived; bytes before it may be unread."""
        self.reset_code: int | None = None
        """The code with which the peer gave up, as far as a read has met it."""
        self.is_early = state.handshaking
        """Whether it belongs to early data: those can be replayed by an attacker (RFC 8446 8)."""
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

    async def read(self, n: int = DEFAULT_READ) -> bytes:
        """Between 1 and `n` bytes, as soon as there are any; b"" at the end of the stream."""
        data = self._take(n)
        return await self._arrival() if data is None else data

    async def read_exactly(self, n: int) -> bytes:
        """Exactly `n` bytes. IncompleteReadError: the stream ended before; it holds what came."""
        parts: list[bytes] = []
        missing = n
        try:
            while missing > 0:
                data = self._take(missing)
                if data is None:
                    data = await self._arrival()
                if not data:
                    break
                missing -= len(data)
                if not missing and not parts:
                    return data
                parts.append(data)
        except BaseException:
            self._parked = b"".join((*parts, self._parked))
            raise
        if missing > 0:
            raise IncompleteReadError(b"".join(parts), n)
        return b"".join(parts)

    async def read_all(self, *, limit: int) -> bytes:
        """Everything up to the end of the stream, at most `limit` bytes.

        ReadLimitError: there is more; what was read is gone and the stream is of no more use.
        """
        parts: list[bytes] = []
        room = limit
        try:
            while True:
                data = self._take(min(room + 1, LARGEST_READ))
                if data is None:
                    data = await self._arrival()
                if not data:
                    break
                room -= len(data)
                if room < 0:
                    raise ReadLimitError(limit)
                parts.append(data)
        except ReadLimitError:
            raise
        except BaseException:
            self._parked = b"".join((*parts, self._parked))
            raise
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _take(self, n: int) -> bytes | None:
        """What a read of `n` bytes gets without waiting; None: await `_arrival`."""
        state = self._state
        if get_ident() != state.thread:
            state.driver.misused()
        if self._waiter is not None or self._attached:
            raise BusyError(_BUSY)
        if self._parked:
            return self._unpark(n)
        if self.ended:
            return b""
        if n < 1:
            raise ValueError("read at least 1 byte; use read_all(limit=...) to read to the end")
        try:
            data = self._native.read(self._id, n)
        except _native.NativeError as error:
            raise self._failure(error) from None
        if data:
            if not state.driver.scheduled:
                state.driver.touched()
        elif data is not None:
            self.ended = True
        return data

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
        if self._parked:
            data = self._unpark(len(view))
        elif self.ended:
            return 0
        else:
            try:
                count = self._native.read_into(self._id, view)
            except _native.NativeError as error:
                raise self._failure(error) from None
            if count is not None:
                if count:
                    state.driver.touched()
                else:
                    self.ended = True
                return count
            data = await self._arrival()
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
            self._native.stop(self._id, code)
        except _native.StreamGone:
            pass
        except _native.NativeError as error:
            raise self._failure(error) from None
        self._stopped = True
        if state.reading.get(self._id) is self:
            del state.reading[self._id]
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
            self._native.read_to(self._id, receiver)
        except _native.NativeError as error:
            raise self._failure(error) from None
        self._attached = True
        self._receiver = receiver
        state.receive_reports[self._id] = on_report
        state.driver.touched()

    def allow(self, bytes: int) -> int:
        """Let the attached receiver take so many bytes more; how many it may still take.

        From the first call on it takes no more than were allowed, and flow control holds the peer.
        """
        assert self._receiver is not None
        left = self._receiver.allow(bytes)
        if bytes and self._attached:
            self._state.driver.touched()
        return left

    @property
    def taken(self) -> int:
        """Bytes that the attached receiver has taken."""
        return 0 if self._receiver is None else self._receiver.received

    def detach(self, *, ended: bool = False) -> None:
        """End what `attach` began. `ended`: the receiver saw the end, or stopped the stream."""
        if not self._attached:
            return
        self._attached = False
        self._state.receive_reports.pop(self._id, None)
        if ended:
            self.ended = True
            return
        try:
            self._native.detach(self._id, "recv")
        except _native.NativeError:
            # The stream or its connection is over, and the receiver with it.
            return

    # --- events

    def wake(self, data: bytes | None) -> None:
        """What a waiting read gets; None: it failed, and finds out why."""
        waiter = self._waiter
        if (waiter is None or not waiter.complete(data)) and data:
            # The reader was cancelled and has not run since.
            self._parked += data

    def reject(self) -> None:
        """The peer did not take early data: this stream never was."""
        self._native = REJECTED
        self._attached = False

    # --- waiting

    async def _arrival(self) -> bytes:
        """The answer to a native read that found nothing."""
        state = self._state
        if state.lost is not None:
            raise state.failure()
        state.driver.check_loop()
        waiter: Waiter[bytes | None] = Waiter(state.driver.turns)
        self._waiter = waiter
        state.reading[self._id] = self
        try:
            await waiter
        except BaseException:
            self._withdraw(waiter)
            raise
        finally:
            self._waiter = None
        data = waiter.value
        if data is None:
            raise self._reason()
        return data

    def _withdraw(self, waiter: Waiter[bytes | None]) -> None:
        """The reader was cancelled: keep what it did not see, else take the demand back."""
        if waiter.done() and not waiter.cancelled():
            self._parked = waiter.value or b""
        elif self._state.reading.get(self._id) is self:
            del self._state.reading[self._id]
            try:
                self._native.cancel_read(self._id)
            except _native.NativeError:
                # Nothing can come any more.
                return

    def _unpark(self, n: int) -> bytes:
        if n < 1:
            raise ValueError("read at least 1 byte; use read_all(limit=...) to read to the end")
        data, self._parked = self._parked[:n], self._parked[n:]
        return data

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
                    if self._native.read(self._id, 1) == b"":
                        self.ended = True
                        return
                except _native.NativeError:
                    return
            self.stop()

    def __del__(self) -> None:
        if not (
            self.ended
            or self._stopped
            or self._attached
            or self.reset_code is not None
            or self._state.lost is not None
        ):
            native, stream = self._native, self._id
            self._state.driver.orphan(lambda: native.stop(stream, 0))

    def __repr__(self) -> str:
        phase = "ended" if self.ended else "stopped" if self._stopped else "open"
        return f"<RecvStream {self._id} {phase}>"


_BUSY = "another task is reading this stream; read from one task at a time"
