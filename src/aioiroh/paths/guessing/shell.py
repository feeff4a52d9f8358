"""The shell around both cores: opens sockets, sends probes, keeps the time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from aioiroh.aio import TokenBucket
from aioiroh.net import Network, UdpOptions, UdpSlot
from aioiroh.paths.guessing.rules import ATTEMPTS, RESTS, SOCKETS, SWEEPS, Mapping, Sight
from aioiroh.paths.guessing.spread import (
    CloseSockets,
    OpenSockets,
    Phase,
    Pin,
    Spread,
    SpreadAction,
    Unpin,
)
from aioiroh.paths.guessing.sweep import Sweep
from aioiroh.paths.selection import Address

if TYPE_CHECKING:
    from aioiroh.metrics import GuessingMetrics
    from aioiroh.quic.driver import Driver

__all__ = ["Guessing"]

logger = logging.getLogger("aioiroh.paths")

TICK: Final = 0.001
SPARED: Final = 32
"""Sockets that are closed again when the system has no more: the application may need some."""


class _Peer:
    def __init__(self, spread: Spread, sweep: Sweep) -> None:
        self.spread = spread
        self.sweep = sweep
        self.sight = Sight()
        self.slots: list[int] = []
        self.timer: asyncio.TimerHandle | None = None

    @property
    def deadline(self) -> float:
        return min(self.spread.deadline, self.sweep.deadline)


class Guessing:
    """Guesses for one endpoint.

    `sockets()` gives its UDP sockets, `mapping()` what NATs make of them; `on_announce(peer)` is called
    when there are other addresses to be named to a peer.
    """

    def __init__(
        self,
        driver: Driver,
        network: Network,
        metrics: GuessingMetrics,
        *,
        sockets: Callable[[], Sequence[UdpSlot]],
        mapping: Callable[[], Mapping],
        on_announce: Callable[[bytes], None],
    ) -> None:
        self._driver = driver
        self._network = network
        self._metrics = metrics
        self._sockets = sockets
        self._mapping = mapping
        self._on_announce = on_announce
        now = network.monotonic()
        self._spreads = TokenBucket(1 / RESTS[0], ATTEMPTS, now=now)
        self._sweeps = TokenBucket(1 / RESTS[1], SWEEPS, now=now)
        self._peers: dict[bytes, _Peer] = {}
        self._owners: dict[int, bytes] = {}
        self._spreading: bytes | None = None
        driver.on_knock = self._knock

    def see(self, peer: bytes, sight: Sight) -> tuple[Address, ...]:
        """This is the case between us and a peer; gives what to name to it besides our own addresses."""
        entry = self._peers.get(peer)
        if entry is None:
            random = self._network.random
            entry = _Peer(Spread(self._spreads, random), Sweep(self._sweeps, random))
            self._peers[peer] = entry
        entry.sight = sight
        self._decide(peer, entry)
        return entry.spread.announced

    def forget(self, peer: bytes) -> None:
        """There is no connection to it any more."""
        entry = self._peers.pop(peer, None)
        if entry is not None:
            if entry.timer is not None:
                entry.timer.cancel()
            self._carry_out(peer, entry, entry.spread.stop())
            if self._spreading == peer:
                self._spreading = None

    # --- what the cores decide

    def _knock(self, slot: int, source: Address, port: int | None) -> None:
        """Something came through to one of the sockets that were opened here."""
        peer = self._owners.get(slot)
        # Whoever floods a socket must not keep us thinking.
        if peer is not None and self._peers[peer].spread.knock(slot, source, port):
            self._run(peer)

    def _run(self, peer: bytes) -> None:
        entry = self._peers[peer]
        announced = entry.spread.announced
        self._decide(peer, entry)
        if entry.spread.announced != announced:
            self._on_announce(peer)

    def _decide(self, peer: bytes, entry: _Peer) -> None:
        now = self._network.monotonic()
        mapping = self._mapping()
        may_begin = self._spreading is None and len(self._owners) < SOCKETS
        spread, sweep = entry.spread, entry.sweep
        phase, sweeping = spread.phase, sweep.is_busy
        self._carry_out(peer, entry, spread.decide(now, entry.sight, mapping, may_begin=may_begin))
        if not spread.is_busy:
            for probe in sweep.decide(now, entry.sight, mapping):
                self._probe(
                    [slot.index for slot in self._ipv4_sockets()[:1]], probe.ip, probe.ports
                )
        if spread.is_busy:
            self._spreading = peer
        elif self._spreading == peer:
            self._spreading = None
        self._metrics.spreads += phase is Phase.IDLE and spread.is_busy
        self._metrics.paths += phase is Phase.TRYING and spread.phase is Phase.KEPT
        self._metrics.sweeps += sweep.is_busy and not sweeping
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        if entry.deadline != float("inf"):
            delay = max(entry.deadline - now, TICK)
            entry.timer = self._driver.loop.call_later(delay, self._run, peer)

    def _carry_out(self, peer: bytes, entry: _Peer, actions: Sequence[SpreadAction]) -> None:
        for action in actions:
            match action:
                case OpenSockets(count, targets):
                    slots = self._open(peer, entry, count)
                    for ip, port in targets:
                        self._probe(slots, ip, [port])
                case Pin(address, slot):
                    self._driver.engine.pin(address, slot)
                case Unpin(address):
                    self._driver.engine.unpin(address)
                case CloseSockets(but):
                    for slot in entry.slots:
                        if slot != but:
                            self._close(slot)
                    entry.slots = [slot for slot in entry.slots if slot == but]

    def _ipv4_sockets(self) -> list[UdpSlot]:
        return [slot for slot in self._sockets() if ":" not in slot.host]

    def _open(self, peer: bytes, entry: _Peer, count: int) -> list[int]:
        before = len(entry.slots)
        hosts = [slot.host for slot in self._ipv4_sockets()]
        if not hosts:
            # The last of them was lost with the network, and the next report will say so.
            entry.spread.no_more(0)
            return []
        try:
            for _ in range(count):
                slot = self._network.bind_udp(self._driver, (hosts[0], 0), UdpOptions()).index
                entry.slots.append(slot)
                self._owners[slot] = peer
                self._driver.engine.set_aside(slot)
        except OSError as error:
            logger.debug("no more sockets to guess a path with: %s", error)
            for slot in entry.slots[-SPARED:]:
                self._close(slot)
            del entry.slots[-SPARED:]
            entry.spread.no_more(len(entry.slots))
        return entry.slots[before:]

    def _close(self, slot: int) -> None:
        del self._owners[slot]
        # With the engine its sockets go, too.
        if not self._driver.closing and self._driver.failed is None:
            self._driver.remove_slot(slot)

    def _probe(self, slots: Sequence[int], ip: str, ports: Sequence[int]) -> None:
        self._driver.engine.probe(slots, ip, ports)
        self._metrics.probes += len(slots) * len(ports)
        self._driver.touched()
