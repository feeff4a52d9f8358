"""QUIC address discovery: tells clients from which UDP address their datagrams come (relay reference, 4.13)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Final, Protocol

from aioiroh import _native
from aioiroh.net import Network, UdpOptions
from aioiroh.quic import Driver
from aioiroh.quic.discovery import ALPN, CLOSE_CODE, CLOSE_REASON
from aioiroh.quic.observer import Observer
from aioiroh.relayserver.shares import Shares

if TYPE_CHECKING:
    from aioiroh.quic import Connection, Incoming
    from aioiroh.quic.state import ConnectionState

__all__ = ["DiscoveryMetrics", "DiscoveryServer"]

MAX_CONNECTIONS: Final = 32_768
"""Connections at once; a client holds one for each IP version, and one takes 43 KiB. More are refused."""
MAX_UNPROVED: Final = 256
"""Handshakes under way above which a client has to prove its address first (RFC 9000, section 8.1.2)."""

# Times are those of upstream's server. A client has nothing to say: no streams, no datagrams.
_TRANSPORT = _native.Transport(
    idle_timeout=30.0,
    keep_alive=None,
    path_keep_alive=None,
    path_idle_timeout=None,
    max_paths=0,
    nat_addresses=0,
    max_bidi_streams=0,
    max_uni_streams=0,
    datagram_receive_buffer=None,
    send_observed_addresses=True,
)


class DiscoveryMetrics(Protocol):
    """What is counted, under upstream's names."""

    qad_incoming: int
    qad_incoming_error: int
    qad_connections: int
    qad_connections_closed: int
    qad_connections_errored: int


class DiscoveryServer:
    """Answers clients at `address` until it is closed. `[::]` takes IPv4, too, and only that on a machine without IPv6.

    After that `address` has the UDP port. `chain` and `key` are PEM, and may be replaced while it runs.
    """

    def __init__(
        self,
        network: Network,
        address: tuple[str, int],
        *,
        chain: bytes,
        key: bytes,
        metrics: DiscoveryMetrics,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        """Raises OSError: the address cannot be bound. ValueError: `chain` and `key` are no certificate."""
        clock = network.engine_clock
        engine = _native.Engine(
            network.secret(32),  # nobody gets to see what belongs to it
            alpns=[ALPN],
            transport=_TRANSPORT,
            clock=clock,
            seed=None if clock is None else network.secret(32),
        )
        engine.use_certificate(chain, key)
        self._clients = _Clients(metrics, max_connections)
        self._driver = Driver(engine, virtual=clock is not None)
        self._driver.observer = self._clients
        try:
            self.address = self._bind(network, *address)
        except BaseException:
            self._driver.abort()
            raise
        self._driver.divert(self._clients.take)

    def _bind(self, network: Network, host: str, port: int) -> tuple[str, int]:
        for each in ("::", "0.0.0.0") if host == "::" else (host,):
            try:
                port = network.bind_udp(self._driver, (each, port), UdpOptions()).port
            except OSError as error:
                # As for TCP: a machine without IPv6 has IPv4.
                if each != "::" or error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
        return host, port

    def replace_certificate(self, chain: bytes, key: bytes) -> None:
        """Clients that come from now on see this one. Raises ValueError."""
        self._driver.engine.use_certificate(chain, key)

    @property
    def connection_count(self) -> int:
        """Connections of clients, handshakes included."""
        return len(self._clients)

    async def aclose(self) -> None:
        """Let clients know and go."""
        await self._driver.aclose(CLOSE_CODE, CLOSE_REASON)


class _Clients(Observer):
    """The connections of clients."""

    def __init__(self, metrics: DiscoveryMetrics, limit: int) -> None:
        self._metrics = metrics
        self._limit = limit
        self._connections: dict[ConnectionState, tuple[Connection, str]] = {}
        self._shares = Shares(limit)
        self._unproved = 0

    def __len__(self) -> int:
        return len(self._connections)

    def take(self, knock: Incoming) -> bool:
        """Answer whoever knocks."""
        self._metrics.qad_incoming += 1
        host = knock.remote_address[0]
        full = len(self._connections) >= self._limit
        if full or not self._shares.has_room(host):
            self._metrics.qad_incoming_error += 1
            knock.refuse()
        elif self._unproved >= MAX_UNPROVED and knock.may_retry and not knock.validated:
            # The one that comes again is counted anew; this one has come to nothing.
            self._metrics.qad_incoming_error += 1
            knock.retry()
        else:
            try:
                connection = knock.accept()
            except ConnectionError:
                self._metrics.qad_incoming_error += 1
                return True
            self._connections[connection.state] = connection, self._shares.take(host)
            self._unproved += 1
        return True

    def connected(self, state: ConnectionState) -> None:
        """The client knows its address, or will soon."""
        self._metrics.qad_connections += 1
        self._unproved -= 1

    def lost(self, state: ConnectionState) -> None:
        """A connection is over."""
        found = self._connections.pop(state, None)
        if found is None:
            return
        self._shares.give(found[1])
        if state.alpn is None:
            self._unproved -= 1
            self._metrics.qad_incoming_error += 1
            return
        self._metrics.qad_connections_closed += 1
        if getattr(state.lost, "code", None) != CLOSE_CODE:
            self._metrics.qad_connections_errored += 1
