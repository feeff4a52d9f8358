"""Peers that want to connect and wait for an answer."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from aioiroh import _native
from aioiroh._native import Waiter
from aioiroh.errors import ConnectionTimeoutError

if TYPE_CHECKING:
    from aioiroh.quic.connection import Connection
    from aioiroh.quic.driver import Driver
    from aioiroh.quic.transport import TransportConfig

__all__ = ["Incoming", "IncomingQueue"]


class Incoming:
    """A peer's first packet; nothing has been answered yet.

    Answer with one of `accept`, `refuse`, `retry`, `ignore`; a second answer raises RuntimeError.
    One that goes away unanswered is refused. The address may be forged as long as `validated` is
    false.
    """

    __slots__ = (
        "_driver",
        "_number",
        "_open",
        "alpns",
        "local_ip",
        "may_retry",
        "remote_address",
        "validated",
    )

    def __init__(
        self,
        driver: Driver,
        number: int,
        remote_address: tuple[str, int],
        local_ip: str | None,
        alpns: Sequence[bytes],
        validated: bool,
        may_retry: bool,
    ) -> None:
        self._driver = driver
        self._number = number
        self._open = True
        self.remote_address = remote_address
        """Where the packet came from: ip, UDP port."""
        self.local_ip = local_ip
        """The address it came to, if the system told."""
        self.alpns = tuple(alpns)
        """The protocols that the peer offers, in its order."""
        self.validated = validated
        """Whether the peer has proved that it receives at `remote_address`."""
        self.may_retry = may_retry
        """Whether `retry` is possible."""

    @property
    def answered(self) -> bool:
        """Whether one of the answers below was given."""
        return not self._open

    def accept(
        self, *, transport: TransportConfig | None = None, alpns: Sequence[bytes] | None = None
    ) -> Connection:
        """Begin the handshake; `await connection.handshake_completed()` before trusting the peer.

        `transport` and `alpns` replace the endpoint's. Raises ConnectionTimeoutError if the request
        waited too long, another ConnectionLostError if it was faulty, EndpointClosedError.
        """
        self._driver.check()
        self._answer()
        try:
            return self._driver.accept_incoming(self._number, transport, alpns)
        except _native.ConnectionGone:
            raise ConnectionTimeoutError(_TOO_LATE) from None

    def refuse(self) -> None:
        """Tell the peer that it is not wanted (CONNECTION_REFUSED, RFC 9000 section 20.1)."""
        self._answer()
        # It may be gone already: a peer does not wait for ever, nor does the engine.
        with contextlib.suppress(_native.NativeError):
            self._driver.engine.refuse(self._number)
        self._driver.touched()

    def retry(self) -> bool:
        """Ask the peer to prove its address and to come again (RFC 9000 section 8.1.2).

        False: it has proved it already; the request still waits for an answer.
        ConnectionTimeoutError: it waited too long.
        """
        self._driver.check()
        self._answer()
        try:
            asked = self._driver.engine.retry(self._number)
        except _native.ConnectionGone:
            raise ConnectionTimeoutError(_TOO_LATE) from None
        self._open = not asked
        if asked:
            self._driver.touched()
        return asked

    def ignore(self) -> None:
        """Answer nothing at all."""
        self._answer()
        with contextlib.suppress(_native.NativeError):
            self._driver.engine.ignore(self._number)

    def _answer(self) -> None:
        self._driver.check_loop()
        if not self._open:
            raise RuntimeError("this incoming connection was answered already")
        self._open = False

    def __del__(self) -> None:
        if self._open:
            engine, number = self._driver.engine, self._number
            self._driver.orphan(lambda: engine.refuse(number))

    def __repr__(self) -> str:
        host, port = self.remote_address
        return f"<Incoming from {host} port {port}{'' if self.validated else ' (unproved)'}>"


class IncomingQueue:
    """Those that nobody has taken yet, in the order in which they came; more than `limit` are refused."""

    def __init__(self, driver: Driver, limit: int) -> None:
        self._driver = driver
        self.limit = limit
        self.taker: Callable[[Incoming], bool] | None = None
        """Gets each one at once, while events are dispatched; one that it does not take is queued."""
        self._queue: deque[Incoming] = deque()
        self._takers: deque[Waiter[None]] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def awaited(self) -> bool:
        """Whether somebody waits for the next one."""
        return self.taker is not None or bool(self._takers)

    def offer(self, incoming: Incoming) -> None:
        """Give it to the taker, queue it, or refuse it."""
        if self._driver.closing:
            incoming.refuse()
        elif self.taker is not None and self.taker(incoming):
            return
        elif len(self._queue) >= self.limit:
            incoming.refuse()
        else:
            self._queue.append(incoming)
            self._wake()

    def pop(self) -> Incoming | None:
        """The next one of those that wait."""
        return self._queue.popleft() if self._queue else None

    async def take(self) -> Incoming:
        """The next one. Raises what `Driver.check` raises, also while it waits."""
        while True:
            self._driver.check()
            if self._queue:
                return self._queue.popleft()
            waiter: Waiter[None] = Waiter(self._driver.turns)
            self._takers.append(waiter)
            try:
                await waiter
            except BaseException:
                if waiter in self._takers:
                    self._takers.remove(waiter)
                elif self._queue:
                    # Woken for one that is still there: somebody else shall have it.
                    self._wake()
                raise

    def refuse_all(self) -> None:
        """Refuse those that nobody has taken."""
        while self._queue:
            self._queue.popleft().refuse()

    def wake_all(self) -> None:
        """The engine has ended: whoever waits looks at why."""
        while self._takers:
            self._wake()

    def _wake(self) -> None:
        while self._takers:
            if self._takers.popleft().complete(None):
                return


_TOO_LATE = "the request waited too long for an answer; accept sooner"
