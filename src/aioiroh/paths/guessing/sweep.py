"""The side whose NAT gives all destinations the same port: the core."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from random import Random

from aioiroh.aio import TokenBucket
from aioiroh.paths.guessing.ports import sweep_order
from aioiroh.paths.guessing.rules import (
    PAUSE,
    RESTS,
    STEP,
    STEP_PORTS,
    Mapping,
    Sight,
    announced_ip,
)
from aioiroh.paths.selection import Address

__all__ = ["Probe", "Sweep"]


@dataclass(frozen=True, slots=True)
class Probe:
    """Send a probe to each of these ports, from the socket whose address the peer knows."""

    ip: str
    ports: tuple[int, ...]


class Sweep:
    """One peer's. `budget`: sweeps of the whole endpoint."""

    def __init__(self, budget: TokenBucket, random: Random) -> None:
        self._budget = budget
        self._random = random
        self._ip: str | None = None
        self._left: tuple[int, ...] = ()
        self._sent: set[int] = set()
        self._known: frozenset[Address] = frozenset()
        self._failures = 0
        self._rests_until = -inf
        self.deadline = inf
        """When to decide again if nothing happens."""

    @property
    def is_busy(self) -> bool:
        """Whether probes are being sent."""
        return self._ip is not None

    def decide(self, now: float, sight: Sight, mapping: Mapping) -> list[Probe]:
        """What to do now."""
        if sight.direct:
            self._failures = 0
            self._over(sight)
        elif self._ip is None:
            self._begin(now, sight, mapping)
        if self._ip is None:
            return []
        fresh = set(sight.theirs) - self._known
        self._known = frozenset(sight.theirs)
        if any(ip == self._ip and port in self._sent for ip, port in fresh):
            # The probe to that port got through; QUIC will, too.
            self.deadline = now + PAUSE
        if now < self.deadline:
            return []
        ports, self._left = self._left[:STEP_PORTS], self._left[STEP_PORTS:]
        self._sent.update(ports)
        probe = Probe(self._ip, ports)
        if self._left:
            self.deadline = now + STEP
        else:
            self._rests_until = now + RESTS[min(self._failures, len(RESTS) - 1)]
            self._failures += 1
            self._over(sight)
        return [probe]

    def _begin(self, now: float, sight: Sight, mapping: Mapping) -> None:
        # The same announcement is not answered twice.
        fresh = [address for address in sight.theirs if address not in self._known]
        ip = announced_ip(fresh, mapping.ip)
        if ip is None or mapping.varies or now < self._rests_until or self._budget.level(now) < 1:
            return
        self._budget.take(now, 1)
        self._ip = ip
        self._known = frozenset(sight.theirs)
        near = [port for other, port in sight.theirs if other == ip]
        self._left = sweep_order(near, self._random)
        self.deadline = now

    def _over(self, sight: Sight) -> None:
        self._ip = None
        self._left = ()
        self._sent.clear()
        self._known = frozenset(sight.theirs)
        self.deadline = inf
