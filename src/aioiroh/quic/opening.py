"""Opening a stream: awaitable, and a context manager."""

from __future__ import annotations

from threading import get_ident
from types import TracebackType
from typing import TypeVar

from aioiroh import _native
from aioiroh.quic.causes import stream_failure
from aioiroh.quic.sending import SendStream
from aioiroh.quic.state import OPEN
from aioiroh.quic.streams import BiStream

__all__ = ["Opening"]

S = TypeVar("S", bound=BiStream | SendStream)


class Opening(_native.Opening[S]):
    """A stream about to be opened: `await` it, or use it with `async with`.

    Waits while the peer's stream limit is reached. Opening sends nothing: the peer sees the stream with
    its first bytes (or its end). Raises the reason when the connection is over (a subclass of
    ConnectionLostError).
    """

    __slots__ = ("_stream",)
    _stream: S

    async def _open(self) -> S:
        """What opening does when it is not done at once."""
        state = self._connection.state
        if get_ident() != state.thread:
            state.driver.misused()
        while True:
            if state.lost is not None:
                raise state.failure()
            try:
                stream = state.native.open(self._direction)
            except _native.NativeError as error:
                raise stream_failure(error, state.lost) from None
            if stream is not None:
                made = self._make(self._connection, stream)
                if state.early_streams is not None:
                    state.early_streams.update(made if isinstance(made, BiStream) else (made,))
                return made
            await state.wait(OPEN + self._direction)

    async def __aenter__(self) -> S:
        self._stream = await self
        return self._stream

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stream.__aexit__(kind, error, traceback)
