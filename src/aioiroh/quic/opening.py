"""Opening a stream: awaitable, and a context manager."""

from __future__ import annotations

from collections.abc import Callable, Generator
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from aioiroh import _native
from aioiroh.quic.causes import stream_failure
from aioiroh.quic.sending import SendStream
from aioiroh.quic.state import OPEN
from aioiroh.quic.streams import BiStream

if TYPE_CHECKING:
    from aioiroh.quic.connection import Connection

__all__ = ["Opening"]

S = TypeVar("S", bound=BiStream | SendStream)


class Opening(Generic[S]):
    """A stream about to be opened: `await` it, or use it with `async with`.

    Waits while the peer's stream limit is reached. Opening sends nothing: the peer sees the stream with
    its first bytes (or its end). Raises the reason when the connection is over (a subclass of
    ConnectionLostError).
    """

    __slots__ = ("_connection", "_direction", "_make", "_stream")

    def __init__(
        self, connection: Connection, direction: int, make: Callable[[Connection, int], S]
    ) -> None:
        self._connection = connection
        self._direction = direction
        self._make = make

    def __await__(self) -> Generator[Any, None, S]:
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
            yield from state.wait(OPEN + self._direction).__await__()

    async def __aenter__(self) -> S:
        self._stream: S = await self
        return self._stream

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stream.__aexit__(kind, error, traceback)
