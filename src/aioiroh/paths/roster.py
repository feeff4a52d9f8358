"""Who is connected: counts, remembers and reports the connections of one endpoint."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from weakref import WeakSet

from aioiroh import events
from aioiroh.address import CustomAddr, IpAddr, RelayAddr, TransportAddr
from aioiroh.aio import weakly
from aioiroh.metrics import Metrics
from aioiroh.paths.remotes import Remotes
from aioiroh.quic.observer import Observer

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioiroh.paths.dial import Dial
    from aioiroh.paths.steering import Steering
    from aioiroh.quic.driver import Driver
    from aioiroh.quic.paths import PathStatus
    from aioiroh.quic.state import ConnectionState

__all__ = ["Roster"]


class Roster(Observer):
    """The observer of a driver.

    Holds neither the endpoint nor connections, so that these are noticed when nobody holds them.
    """

    def __init__(self, metrics: Metrics, remotes: Remotes, driver: Driver) -> None:
        self._driver = driver
        self.metrics = metrics.socket
        metrics.add_source(weakly(self._read_counters))
        self.remotes = remotes
        self.dials: WeakSet[Dial] = WeakSet()
        """Dials that want to know when a socket cannot send to an address of theirs."""
        self.meaning: Callable[[str], RelayAddr | CustomAddr | None] | None = None
        """Gives what a mapped address stands for."""
        self.steering: Steering | None = None
        """Who moves connections to better paths."""
        self.on_empty: Callable[[], None] | None = None
        """Called when the last connection that had been established is over."""
        self.on_failed: Callable[[], None] | None = None
        """Called when the engine failed."""
        self.count = 0
        """Established connections."""

    def connected(self, state: ConnectionState) -> None:
        """A handshake is complete."""
        assert state.peer is not None
        self.count += 1
        self.metrics.num_conns_opened += 1
        remote = state.native.remote()
        where = None if remote is None else self.transport_addr(remote)
        through_relay = isinstance(where, RelayAddr)
        self.metrics.num_conns_direct += not through_relay
        self.remotes.connected(state.peer)
        if events.conn_connected.enabled:
            events.conn_connected(
                conn_id=state.native.id,
                remote_id=state.peer.hex(),
                alpn=state.alpn,
                side=state.native.side,
            )
        if where is not None:
            self._path_added(state, 0, where)
        if self.steering is not None:
            self.steering.connected(state, through_relay=through_relay)

    def transport_addr(self, pair: tuple[str, int]) -> TransportAddr:
        """What an address of the engine stands for."""
        return self.stands_for(pair[0]) or IpAddr.from_pair(pair)

    def stands_for(self, ip: str) -> RelayAddr | CustomAddr | None:
        """What this address stands for; None: it is a real one."""
        return self.meaning(ip) if self.meaning is not None and ":" in ip else None

    def path_opened(self, state: ConnectionState, path: int, remote: tuple[str, int]) -> None:
        """A connection has another path."""
        if state.peer is not None and state.alpn is not None:
            self._path_added(state, path, self.transport_addr(remote))
            if self.steering is not None:
                self.steering.path_opened(state, path)

    def path_silent(self, state: ConnectionState, path: int, *, silent: bool) -> None:
        """A path does not answer, or does so again."""
        if self.steering is not None:
            self.steering.path_silent(state)

    def path_marked(self, state: ConnectionState, path: int, status: PathStatus) -> None:
        """The peer says how it wants a path to be used."""
        if self.steering is not None and status == "backup":
            self.steering.path_doubted(state, path)

    def candidate(self, state: ConnectionState, address: tuple[str, int], *, added: bool) -> None:
        """The peer offers an address for hole punching, or takes it back."""
        if self.steering is not None:
            self.steering.candidate(state, address, added=added)

    def _path_added(self, state: ConnectionState, path: int, remote: TransportAddr) -> None:
        assert state.peer is not None
        state.open_paths[path] = remote
        self.remotes.path_opened(state.peer, remote)
        match remote:
            case RelayAddr():
                self.metrics.paths_relay += 1
                self.metrics.transport_relay_paths_added += 1
            case CustomAddr():
                self.metrics.paths_custom += 1
                self.metrics.transport_custom_paths_added += 1
            case _:
                self.metrics.paths_direct += 1
                self.metrics.transport_ip_paths_added += 1
        if events.path_open.enabled:
            events.path_open(
                conn_id=state.native.id,
                remote_id=state.peer.hex(),
                path_id=path,
                remote_addr=remote,
            )

    def path_closed(self, state: ConnectionState, path: int, reason: str) -> None:
        """A path was given up."""
        if not self._path_removed(state, path):
            return
        if events.path_abandoned.enabled and state.peer is not None:
            events.path_abandoned(
                conn_id=state.native.id, remote_id=state.peer.hex(), path_id=path, reason=reason
            )
        if self.steering is not None:
            self.steering.path_closed(state, path)

    def _path_removed(self, state: ConnectionState, path: int) -> bool:
        remote = state.open_paths.pop(path, None)
        if remote is None or state.peer is None:
            return False
        self.remotes.path_closed(state.peer, remote)
        match remote:
            case RelayAddr():
                self.metrics.transport_relay_paths_removed += 1
            case CustomAddr():
                self.metrics.transport_custom_paths_removed += 1
            case _:
                self.metrics.transport_ip_paths_removed += 1
        return True

    def lost(self, state: ConnectionState) -> None:
        """A connection is over; for the application, that is: the engine may still be draining it."""
        if state.alpn is None or state.peer is None:
            return
        self.count -= 1
        self.metrics.num_conns_closed += 1
        for path in tuple(state.open_paths):
            self._path_removed(state, path)
        self.remotes.disconnected(state.peer)
        if self.steering is not None:
            self.steering.lost(state)
        if events.conn_closed.enabled:
            events.conn_closed(
                conn_id=state.native.id, remote_id=state.peer.hex(), reason=str(state.lost)
            )
        if not self.count and self.on_empty is not None:
            self.on_empty()

    def socket_error(self, slot: int, errno: int, destination: tuple[str, int]) -> None:
        """A socket could not send."""
        for dial in tuple(self.dials):
            dial.on_socket_error(destination, os.strerror(errno), errno)

    def is_used(self) -> bool:
        """Whether somebody dials, or there are connections."""
        return bool(self.dials) or self._driver.is_observed_by(self)

    def _read_counters(self) -> None:
        """Take over what the engine has counted."""
        if self._driver.closing or self._driver.failed is not None:
            return
        stats = self._driver.engine.stats()
        self.metrics.send_ipv4 = stats["sent_ipv4_bytes"]
        self.metrics.send_ipv6 = stats["sent_ipv6_bytes"]
        self.metrics.recv_data_ipv4 = stats["received_ipv4_bytes"]
        self.metrics.recv_data_ipv6 = stats["received_ipv6_bytes"]
        self.metrics.recv_datagrams = stats["received_datagrams"]
        self.metrics.recv_gro_datagrams = stats["received_joined"]

    def failed(self) -> None:
        """The engine failed."""
        if self.on_failed is not None:
            self.on_failed()
