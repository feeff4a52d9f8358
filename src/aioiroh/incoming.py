"""Peers that knock at an endpoint."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Sequence
from typing import Any

from aioiroh.aio import Pending
from aioiroh.quic import Connection, TransportConfig
from aioiroh.quic import Incoming as Knock

__all__ = ["Incoming"]

Admission = Callable[[Connection], Coroutine[Any, Any, Connection]]
"""Completes a handshake and asks the hooks; the connection, or it is closed and the reason raised."""


class Incoming:
    """A peer's first packet; nothing has been answered yet.

    Answer with one of `accept`, `accept_early`, `refuse`, `retry`, `ignore`; a second answer raises
    RuntimeError, and one that goes away unanswered is refused. Awaiting it is `accept()`. The address may
    be forged as long as `validated` is false.
    """

    __slots__ = ("_admit", "_admit_later", "_knock")

    def __init__(
        self, knock: Knock, admit: Admission, admit_later: Callable[[Connection], None]
    ) -> None:
        self._knock = knock
        self._admit = admit
        self._admit_later = admit_later

    @property
    def remote_address(self) -> tuple[str, int]:
        """Where the packet came from: ip, UDP port."""
        return self._knock.remote_address

    @property
    def local_ip(self) -> str | None:
        """The address it came to, if the system told."""
        return self._knock.local_ip

    @property
    def alpns(self) -> tuple[bytes, ...]:
        """The protocols that the peer offers, in its order; empty if they cannot be read yet."""
        return self._knock.alpns

    @property
    def validated(self) -> bool:
        """Whether the peer has proved that it receives at `remote_address`."""
        return self._knock.validated

    @property
    def may_retry(self) -> bool:
        """Whether `retry` is possible."""
        return self._knock.may_retry

    @property
    def answered(self) -> bool:
        """Whether one of the answers below was given."""
        return self._knock.answered

    def accept(
        self, *, transport: TransportConfig | None = None, alpns: Sequence[bytes] | None = None
    ) -> Pending[Connection]:
        """The connection, after its handshake and the hooks: `await` it or use `async with`.

        `transport` and `alpns` replace the endpoint's. Raises LocallyRejectedError (a hook refused),
        ConnectionTimeoutError (the peer gave up or waited too long), another ConnectionLostError
        (the handshake failed).
        """
        return Pending(self._accept(transport, alpns))

    async def _accept(
        self, transport: TransportConfig | None, alpns: Sequence[bytes] | None
    ) -> Connection:
        return await self._admit(self._knock.accept(transport=transport, alpns=alpns))

    def accept_early(
        self, *, transport: TransportConfig | None = None, alpns: Sequence[bytes] | None = None
    ) -> Connection:
        """The connection at once: early data of the peer can be read, and data be sent, before the
        peer has proved its key (`Connection.is_early`).

        Early data may be replayed by an attacker (RFC 8446 section 8). Hooks run when the handshake
        is complete, and may close the connection then.
        """
        connection = self._knock.accept(transport=transport, alpns=alpns)
        self._admit_later(connection)
        return connection

    def refuse(self) -> None:
        """Tell the peer that it is not wanted (CONNECTION_REFUSED, RFC 9000 section 20.1)."""
        self._knock.refuse()

    def retry(self) -> bool:
        """Ask the peer to prove its address and to come again (RFC 9000 section 8.1.2).

        False: it has proved it already; the request still waits for an answer.
        """
        return self._knock.retry()

    def ignore(self) -> None:
        """Answer nothing at all."""
        self._knock.ignore()

    def __await__(self) -> Generator[Any, None, Connection]:
        return self.accept().__await__()

    def __repr__(self) -> str:
        return repr(self._knock)
