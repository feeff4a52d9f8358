"""The native forwarder, and the connections of asyncio that feed it."""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final, Protocol

from aioiroh import _native
from aioiroh.relayserver.shares import Shares

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from aioiroh.net import Network
    from aioiroh.relayserver.certificate import Certificate
    from aioiroh.relayserver.limits import AcceptLimit, Limits, RateLimit

__all__ = ["Forwarder"]

READ_SIZE: Final = 256 * 1024
"""Bytes read at once."""
SMALLEST_READ: Final = 16 * 1024
SURPLUS: Final = ("over", "replaced", "too many newer connections have the same key")


class Connection(Protocol):
    """What the forwarder needs of a TCP connection."""

    def write(self) -> None:
        """Something waits in the forwarder for it."""

    def happened(self, event: tuple[Any, ...]) -> None:
        """Something that Python decides about."""


class Forwarder:
    """Who is connected, and what is on its way between them.

    Native code forwards; what is to be decided comes out as events, and each connection whose output has
    begun to wait is asked once to write it.
    """

    def __init__(self, network: Network, limits: Limits) -> None:
        self.limits = limits
        self._now = network.monotonic
        self._wall_clock = network.wall_clock
        self._secret = network.secret
        self._loop = asyncio.get_running_loop()
        self._hub = _native.RelayHub(
            seed=network.secret(8),
            connections=limits.connections,
            pending=limits.pending,
            queue_bytes=limits.queue_bytes,
            queue_total=limits.queue_total,
            establish_timeout=limits.establish_timeout,
            handshake_timeout=limits.handshake_timeout,
        )
        self._connections: dict[int, Connection] = {}
        # Who was not let in yet, and in whose share it is counted.
        self._shares = Shares(limits.pending)
        self._pending: dict[int, str] = {}
        # All connections read into the same memory: what has come is dealt with before the next one reads.
        self.memory = memoryview(bytearray(READ_SIZE))
        self.read_buffer = self.memory
        """The part of it that one read may fill."""
        self._timer: asyncio.TimerHandle | None = None
        self._armed = float("inf")
        self._refused = 0
        self.set_rate(limits.rate)
        self.set_accept(limits.accept)

    def __len__(self) -> int:
        """TCP connections."""
        return len(self._connections)

    def set_rate(self, rate: RateLimit | None) -> None:
        """What every client may send from now on."""
        if rate is None:
            self._hub.set_rate(0, 0, self._now())
            size = READ_SIZE
        else:
            self._hub.set_rate(rate.bytes_per_second, rate.burst, self._now())
            # Only the next read can be put off, so this one must not be much more than is allowed.
            size = min(READ_SIZE, max(SMALLEST_READ, rate.burst))
        self.read_buffer = self.memory[:size]

    def set_accept(self, limit: AcceptLimit | None) -> None:
        """How many may come from now on."""
        self._arrivals = None if limit is None else limit.bucket(self._now())

    @property
    def counters(self) -> dict[str, int]:
        """What was counted, under upstream's names and some of our own."""
        counted = self._hub.counters()
        counted["connections_refused"] += self._refused
        return counted

    # --- one connection

    def enter(
        self, connection: Connection, certificate: Certificate | None, host: str
    ) -> int | None:
        """A TCP connection has come from `host`. Its number, or None: there are too many."""
        now, arrivals = self._now(), self._arrivals
        is_late = arrivals is not None and arrivals.level(now) < 1
        if is_late or not self._shares.has_room(host):
            self._refused += 1
            return None
        number = self._hub.enter(None if certificate is None else certificate._tls, now)
        if number is None:
            return None
        if arrivals is not None:
            arrivals.take(now, 1)
        self._connections[number] = connection
        self._pending[number] = self._shares.take(host)
        self._arm()
        return number

    def leave(self, number: int) -> None:
        """The TCP connection is gone."""
        self._settle(number)
        if self._connections.pop(number, None) is not None:
            self._write(self._hub.leave(number))

    def feed(self, number: int, data: Buffer) -> None:
        """Bytes that came."""
        events, ready = self._hub.feed(number, data, self._now())
        if events:
            connection = self._connections[number]
            for event in events:
                connection.happened(event)
            self._arm()
        if ready:
            self._write(ready)

    def take(self, number: int) -> memoryview | None:
        """Some of the bytes that wait for a connection; None: no more."""
        return self._hub.take(number)

    def respond(
        self,
        number: int,
        status: int,
        reason: str,
        headers: list[tuple[str, str]],
        body: bytes,
    ) -> None:
        """Answer an HTTP request, with the time: clients can tell by it that their clock is wrong."""
        dated = [*headers, ("Date", formatdate(self._wall_clock(), usegmt=True))]
        events = self._hub.respond(number, status, reason, dated, body)
        connection = self._connections[number]
        connection.write()
        for event in events:
            connection.happened(event)

    def upgrade(self, number: int, headers: list[tuple[str, str]]) -> str | None:
        """Answer an HTTP request by an upgrade. Gives the words of a refusal if it is not a good one."""
        refusal, events = self._hub.upgrade(number, headers, self._secret(16), self._now())
        if refusal is None:
            connection = self._connections[number]
            connection.write()
            for event in events:
                connection.happened(event)
            self._arm()
        return refusal

    def confirm(self, number: int) -> bool:
        """Let a client in. False: it has gone."""
        self._settle(number)
        confirmed, surplus, ready = self._hub.confirm(number, self._now())
        self._write(ready)
        if surplus is not None:
            self._connections[surplus].happened(SURPLUS)
        self._arm()
        return confirmed

    def deny(self, number: int, reason: str) -> None:
        """Send a client away."""
        self._write(self._hub.deny(number, reason))

    def connections_of(self, endpoint_id: bytes) -> list[int]:
        """The connections of an endpoint, the active one first."""
        return self._hub.connections_of(endpoint_id)

    def announce_restart(self, number: int, reconnect_in: float, try_for: float) -> None:
        """Tell a client that the relay will be back. Times are seconds."""
        times = round(reconnect_in * 1e3), round(try_for * 1e3)
        self._write(self._hub.announce_restart(number, *times))

    # --- all of them

    def close(self) -> None:
        """No timer fires any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._armed = float("inf")

    def _settle(self, number: int) -> None:
        """It is not among those any more who wait to be let in."""
        share = self._pending.pop(number, None)
        if share is not None:
            self._shares.give(share)

    def _write(self, ready: list[int]) -> None:
        connections = self._connections
        for number in ready:
            connections[number].write()

    def _arm(self) -> None:
        deadline = self._hub.deadline
        if deadline is None or deadline >= self._armed:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._armed = deadline
        self._timer = self._loop.call_later(max(0.0, deadline - self._now()), self._tick)

    def _tick(self) -> None:
        self._timer, self._armed = None, float("inf")
        over, ready = self._hub.tick(self._now())
        self._write(ready)
        for number, event in over:
            connection = self._connections.get(number)
            if connection is not None:
                connection.happened(event)
        self._arm()
