"""Both halves of a bidirectional stream."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from aioiroh.quic.receiving import DEFAULT_READ, RecvStream
from aioiroh.quic.sending import SendStream

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Buffer

    from aioiroh.quic.connection import Connection

__all__ = ["BiStream"]


class _Halves(NamedTuple):
    send: SendStream
    """The half to the peer."""
    recv: RecvStream
    """The half from the peer."""


class BiStream(_Halves):
    """`send` and `recv` of one bidirectional stream; unpacks into the two.

    As a context manager: leaving the block finishes `send` and stops `recv` unless it was read to the
    end; an exception resets both with code 0. The methods are those of the halves.
    """

    __slots__ = ()

    def __new__(cls, connection: Connection, stream: int) -> Self:
        return tuple.__new__(cls, (SendStream(connection, stream), RecvStream(connection, stream)))

    @property
    def id(self) -> int:
        """Stream id (RFC 9000 section 2.1)."""
        return self.send.id

    @property
    def connection(self) -> Connection:
        """The connection that carries it."""
        return self.send.connection

    def write(self, data: Buffer) -> Coroutine[Any, Any, None]:
        """See `SendStream.write`."""
        return self.send.writing(data)

    def finish(self) -> Coroutine[Any, Any, None]:
        """See `SendStream.finish`."""
        return self.send.finishing()

    def read(self, n: int = DEFAULT_READ) -> Coroutine[Any, Any, bytes]:
        """See `RecvStream.read`."""
        return self.recv.reading(n)

    def read_exactly(self, n: int) -> Coroutine[Any, Any, bytes]:
        """See `RecvStream.read_exactly`."""
        return self.recv.reading_exactly(n)

    def read_all(self, *, limit: int) -> Coroutine[Any, Any, bytes]:
        """See `RecvStream.read_all`."""
        return self.recv.reading_all(limit)

    def readinto(self, buffer: Buffer) -> Coroutine[Any, Any, int]:
        """See `RecvStream.readinto`."""
        return self.recv.readinto(buffer)

    def __aiter__(self) -> RecvStream:
        return self.recv

    def reset(self, code: int = 0) -> None:
        """Give up both directions: reset `send` and stop `recv` with `code`."""
        self.send.reset(code)
        self.recv.stop(code)

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
        """The end of a block."""
        self.send.leave(clean)
        self.recv.leave()

    def __repr__(self) -> str:
        return f"<BiStream {self.id}>"
