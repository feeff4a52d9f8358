"""What earlier connections taught about where peers are."""

from __future__ import annotations

from collections.abc import Callable

from aioiroh.address import TransportAddr

__all__ = ["Remotes"]

REMEMBER_FOR = 60.0
"""Seconds after a peer's last connection for which its addresses are kept, as iroh keeps them."""
MAX_GONE = 1024
"""Peers without a connection that are remembered; the longest gone is forgotten first."""
MAX_ADDRESSES = 8
"""Addresses remembered of one peer; the oldest is forgotten first."""


class _Remote:
    __slots__ = ("addresses", "connections", "gone_at")

    def __init__(self) -> None:
        self.addresses: tuple[TransportAddr, ...] = ()
        self.connections = 0
        self.gone_at = 0.0


class Remotes:
    """Addresses of peers that have proved their key over them, by the raw bytes of their id.

    `clock` gives monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._connected: dict[bytes, _Remote] = {}
        # In the order of leaving.
        self._gone: dict[bytes, _Remote] = {}

    def connected(self, peer: bytes, address: TransportAddr | None) -> None:
        """A connection to `peer` exists, over `address` if that is known."""
        remote = self._connected.get(peer)
        if remote is None:
            remote = self._gone.pop(peer, None) or _Remote()
            self._connected[peer] = remote
        remote.connections += 1
        if address is not None and address not in remote.addresses:
            self.learn(peer, address)

    def learn(self, peer: bytes, address: TransportAddr) -> None:
        """A connected peer is also at this address."""
        remote = self._connected[peer]
        others = [other for other in remote.addresses if other != address]
        remote.addresses = (*others, address)[-MAX_ADDRESSES:]

    def disconnected(self, peer: bytes) -> None:
        """A connection to `peer` has ended."""
        remote = self._connected[peer]
        remote.connections -= 1
        if remote.connections:
            return
        remote.gone_at = self._clock()
        self._gone[peer] = self._connected.pop(peer)
        if len(self._gone) > MAX_GONE:
            del self._gone[next(iter(self._gone))]

    def addresses(self, peer: bytes) -> tuple[TransportAddr, ...]:
        """Where `peer` is or was a moment ago; empty if that is not known."""
        remote = self._connected.get(peer)
        if remote is not None:
            return remote.addresses
        remote = self._gone.get(peer)
        if remote is None:
            return ()
        if self._clock() - remote.gone_at > REMEMBER_FOR:
            del self._gone[peer]
            return ()
        return remote.addresses
