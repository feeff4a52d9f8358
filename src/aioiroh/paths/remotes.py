"""What is known of where peers are, from whatever source: for dialling, and to be looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from aioiroh.address import RelayAddr, TransportAddr

__all__ = ["RemoteAddress", "RemoteInfo", "Remotes"]

REMEMBER_FOR: Final = 60.0
"""Seconds after a peer's last connection for which its addresses are kept, as iroh keeps them."""
MAX_GONE: Final = 1024
"""Peers without a connection that are remembered; the longest gone is forgotten first."""
PRUNE_FROM: Final = 30
"""Addresses of one peer, relays not counted, up to which none is forgotten."""
MAX_USED: Final = 10
"""Addresses that once worked and are kept when others are forgotten: the latest ones."""
MAX_ADDRESSES: Final = 128
"""Addresses of one peer in any case; further ones are not taken."""


@dataclass(frozen=True, slots=True)
class RemoteAddress:
    """An address where a peer is or may be.

    `source`: who told it: `application`, `lookup` and the name of the service, `peer` (it connected from there, or
    hole punching found it). `is_active`: whether an open path uses it. `last_used`: seconds since a path used it; 0.0
    while one does, None if none ever did.
    """

    addr: TransportAddr
    source: str
    is_active: bool
    last_used: float | None


@dataclass(frozen=True, slots=True)
class RemoteInfo:
    """What is known of a peer: its addresses, those in use first, then the latest used."""

    addresses: tuple[RemoteAddress, ...]


class _Address:
    __slots__ = ("failed", "paths", "source", "used_at")

    def __init__(self, source: str) -> None:
        self.source = source
        self.paths = 0
        """Open ones."""
        self.used_at: float | None = None
        self.failed = False
        """A dial to it has failed, and nothing has succeeded since."""


class _Remote:
    __slots__ = ("addresses", "connections", "gone_at")

    def __init__(self) -> None:
        self.addresses: dict[TransportAddr, _Address] = {}
        self.connections = 0
        self.gone_at = 0.0

    def get(self, address: TransportAddr, source: str) -> _Address | None:
        """The entry for an address, made if there is room."""
        found = self.addresses.get(address)
        if found is None:
            if not isinstance(address, RelayAddr):
                self._prune()
            if len(self.addresses) >= MAX_ADDRESSES:
                return None
            found = self.addresses[address] = _Address(source)
        return found

    def _prune(self) -> None:
        direct = {a: e for a, e in self.addresses.items() if not isinstance(a, RelayAddr)}
        if len(direct) < PRUNE_FROM:
            return
        used = [a for a, e in direct.items() if e.used_at is not None and not e.paths]
        used.sort(key=lambda address: direct[address].used_at or 0.0, reverse=True)
        failed = [a for a, e in direct.items() if e.failed and e.used_at is None]
        for address in (*failed, *used[MAX_USED:]):
            del self.addresses[address]

    def in_order(self) -> list[tuple[TransportAddr, _Address]]:
        def rank(item: tuple[TransportAddr, _Address]) -> tuple[bool, float]:
            entry = item[1]
            return not entry.paths, -(entry.used_at if entry.used_at is not None else -1.0)

        return sorted(self.addresses.items(), key=rank)


class Remotes:
    """Addresses of peers, by the raw bytes of their id. `clock` gives monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._connected: dict[bytes, _Remote] = {}
        # In the order of leaving.
        self._gone: dict[bytes, _Remote] = {}

    # --- what happens

    def told(self, peer: bytes, addresses: Iterable[TransportAddr], source: str) -> None:
        """Somebody says that the peer is there."""
        remote = self._connected.get(peer)
        if remote is None:
            remote = self._gone.pop(peer, None)
            if remote is None or self._is_stale(remote):
                remote = _Remote()
            self._leave(peer, remote)
        for address in addresses:
            remote.get(address, source)

    def failed(self, peer: bytes, addresses: Iterable[TransportAddr]) -> None:
        """Dials to these addresses have failed."""
        remote = self._connected.get(peer) or self._gone.get(peer)
        if remote is not None:
            for address in addresses:
                entry = remote.addresses.get(address)
                if entry is not None and not entry.paths:
                    entry.failed = True

    def connected(self, peer: bytes) -> None:
        """There is one more connection to the peer."""
        remote = self._connected.get(peer)
        if remote is None:
            remote = self._gone.pop(peer, None)
            if remote is None or self._is_stale(remote):
                remote = _Remote()
            self._connected[peer] = remote
        remote.connections += 1

    def path_opened(self, peer: bytes, address: TransportAddr) -> None:
        """A connected peer is reached at this address."""
        entry = self._connected[peer].get(address, "peer")
        if entry is not None:
            entry.paths += 1
            entry.used_at = self._clock()
            entry.failed = False

    def path_closed(self, peer: bytes, address: TransportAddr) -> None:
        """One path less at this address."""
        entry = self._connected[peer].addresses.get(address)
        if entry is not None and entry.paths:
            entry.paths -= 1
            entry.used_at = self._clock()

    def disconnected(self, peer: bytes) -> None:
        """A connection to the peer has ended, and its paths before."""
        remote = self._connected[peer]
        remote.connections -= 1
        if not remote.connections:
            self._leave(peer, self._connected.pop(peer))

    def _leave(self, peer: bytes, remote: _Remote) -> None:
        remote.gone_at = self._clock()
        self._gone[peer] = remote
        if len(self._gone) > MAX_GONE:
            del self._gone[next(iter(self._gone))]

    def _is_stale(self, remote: _Remote) -> bool:
        return self._clock() - remote.gone_at > REMEMBER_FOR

    # --- what is known

    def _find(self, peer: bytes) -> _Remote | None:
        remote = self._connected.get(peer)
        if remote is None:
            remote = self._gone.get(peer)
            if remote is not None and self._is_stale(remote):
                del self._gone[peer]
                return None
        return remote

    def addresses(self, peer: bytes) -> tuple[TransportAddr, ...]:
        """Where to dial the peer: where it was reached, what is in use first, then the latest used; all that was told,
        if it was not reached yet.
        """
        remote = self._find(peer)
        if remote is None:
            return ()
        known = remote.in_order()
        proven = [address for address, entry in known if entry.used_at is not None]
        return tuple(proven or (address for address, _ in known))

    def info(self, peer: bytes) -> RemoteInfo | None:
        """All that is known of the peer; None if nothing is, or not any more."""
        remote = self._find(peer)
        if remote is None:
            return None
        now = self._clock()
        found = []
        for address, entry in remote.in_order():
            age = None if entry.used_at is None else 0.0 if entry.paths else now - entry.used_at
            found.append(RemoteAddress(address, entry.source, entry.paths > 0, age))
        return RemoteInfo(tuple(found))
