"""The side whose NAT gives every destination another port: the core."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from math import inf
from random import Random
from typing import TypeAlias

from aioiroh.aio import TokenBucket
from aioiroh.paths.guessing.ports import announced_ports
from aioiroh.paths.guessing.rules import (
    ENOUGH,
    KEEP,
    LISTEN,
    NAME_STEP,
    NAMES,
    PATIENCE,
    RESTS,
    SOCKETS,
    STEP,
    STEP_SOCKETS,
    TRY,
    Mapping,
    Sight,
    announced_ip,
    targets,
)
from aioiroh.paths.selection import Address

__all__ = ["CloseSockets", "OpenSockets", "Phase", "Pin", "Spread", "SpreadAction", "Unpin"]


class Phase(Enum):
    """Where an attempt is."""

    IDLE = auto()
    OPENING = auto()
    LISTENING = auto()
    """For something that comes through to one of the sockets."""
    TRYING = auto()
    """Something did: now QUIC has to, over that socket."""
    KEPT = auto()
    """There is a path."""


@dataclass(frozen=True, slots=True)
class OpenSockets:
    """Open so many sockets, and send a probe to each of these addresses from each of them."""

    count: int
    targets: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Pin:
    """What goes to this address leaves through this socket."""

    address: Address
    slot: int


@dataclass(frozen=True, slots=True)
class Unpin:
    """No longer."""

    address: Address


@dataclass(frozen=True, slots=True)
class CloseSockets:
    """All but this one, if any."""

    but: int | None = None


SpreadAction: TypeAlias = OpenSockets | Pin | Unpin | CloseSockets


class Spread:
    """One peer's. Tell it what comes through, then carry out what `decide` gives.

    `budget`: attempts of the whole endpoint.
    """

    def __init__(self, budget: TokenBucket, random: Random) -> None:
        self._budget = budget
        self._random = random
        self._since: float | None = None
        self._rests_until = -inf
        self._opened = 0
        self._targets: tuple[Address, ...] = ()
        self._failures = 0
        self._end = inf
        self._used: tuple[Address, int] | None = None
        self._knock: tuple[int, Address, int | None] | None = None
        self._tried: set[int] = set()
        self._names: Iterator[tuple[int, ...]] = iter(())
        self.phase = Phase.IDLE
        self.announced: tuple[Address, ...] = ()
        """Addresses to be named to the peer."""
        self.deadline = inf
        """When to decide again if nothing happens."""

    @property
    def is_busy(self) -> bool:
        """Whether many sockets are open for it."""
        return self.phase not in (Phase.IDLE, Phase.KEPT)

    def knock(self, slot: int, source: Address, port: int | None) -> bool:
        """Something came through; `port`: to where the peer had sent it. Whether it is of use."""
        fits = source in self._targets and slot not in self._tried
        waits = self.phase in (Phase.OPENING, Phase.LISTENING) and self._knock is None
        if fits and waits:
            self._knock = slot, source, port
        return fits and waits

    def no_more(self, have: int) -> None:
        """No more sockets can be opened; there are so many."""
        self._opened = SOCKETS
        if have < ENOUGH:
            self._end = -inf

    def decide(
        self, now: float, sight: Sight, mapping: Mapping, *, may_begin: bool
    ) -> list[SpreadAction]:
        """What to do now. `may_begin`: no other peer has the sockets."""
        actions: list[SpreadAction] = []
        match self.phase:
            case Phase.IDLE:
                self._idle(now, sight, mapping, may_begin)
        if self.is_busy:
            if announced_ip(sight.theirs, mapping.ip) is not None:
                # It is like ours: there is nothing to be hit, now or later.
                self._failures = len(RESTS)
                self._end = now
            if sight.direct or now >= self._end:
                self._settle(now, sight, actions)
        if self.phase in (Phase.OPENING, Phase.LISTENING) and self._knock is not None:
            self._try(now, mapping, actions)
        match self.phase:
            case Phase.OPENING if now >= self.deadline:
                self._open(now, mapping, actions)
            case Phase.LISTENING if now >= self.deadline:
                self._announce(mapping)
                self.deadline = now + NAME_STEP
            case Phase.TRYING if now >= self.deadline:
                self._untry(now, mapping, actions)
            case Phase.KEPT:
                self._keep(now, sight, actions)
        return actions

    def stop(self) -> list[SpreadAction]:
        """The peer is gone."""
        return self._over() if self.phase is not Phase.IDLE else []

    # --- the phases

    def _idle(self, now: float, sight: Sight, mapping: Mapping, may_begin: bool) -> None:
        self.deadline = inf
        if sight.direct or not mapping.is_scattered or not targets(sight, mapping):
            self._since = None
            return
        if self._since is None:
            self._since = now
        begin = max(self._since + PATIENCE, self._rests_until)
        if now < begin:
            self.deadline = begin
        elif not may_begin or self._budget.level(now) < 1:
            self.deadline = now + max(PATIENCE, self._budget.delay(now, 1))
        else:
            self._budget.take(now, 1)
            self._targets = targets(sight, mapping)
            self._opened = 0
            self._tried.clear()
            self.phase = Phase.OPENING
            self.deadline = now
            self._end = inf

    def _open(self, now: float, mapping: Mapping, actions: list[SpreadAction]) -> None:
        if self._opened < SOCKETS:
            self._opened += STEP_SOCKETS
            self.deadline = now + STEP
            actions.append(OpenSockets(STEP_SOCKETS, self._targets))
            return
        # Now, and not before: what the peer sends to a port without a socket is lost.
        self._names = announced_ports(mapping, self._random)
        self._announce(mapping)
        self.phase = Phase.LISTENING
        self.deadline = now + LISTEN
        self._end = self.deadline + NAMES * NAME_STEP

    def _announce(self, mapping: Mapping) -> None:
        ip, ports = mapping.ip, next(self._names, ())
        self.announced = () if ip is None else tuple((ip, port) for port in ports)

    def _try(self, now: float, mapping: Mapping, actions: list[SpreadAction]) -> None:
        assert self._knock is not None
        (slot, source, port), self._knock = self._knock, None
        self._tried.add(slot)
        self._used = source, slot
        actions.append(Pin(source, slot))
        if port is not None and mapping.ip is not None:
            self.announced = ((mapping.ip, port),)
        self.phase = Phase.TRYING
        self.deadline = now + TRY
        self._end = max(min(self._end, now + LISTEN), self.deadline)

    def _untry(self, now: float, mapping: Mapping, actions: list[SpreadAction]) -> None:
        assert self._used is not None
        actions.append(Unpin(self._used[0]))
        self._used = None
        self._announce(mapping)
        self.phase = Phase.LISTENING
        self.deadline = now + NAME_STEP

    def _settle(self, now: float, sight: Sight, actions: list[SpreadAction]) -> None:
        if self._used is not None and self._used[0] in sight.direct:
            actions.append(CloseSockets(but=self._used[1]))
            self.phase = Phase.KEPT
            self._failures = 0
            self.deadline = self._end = inf
            return
        if not sight.direct:
            self._rest(now)
        actions += self._over()

    def _keep(self, now: float, sight: Sight, actions: list[SpreadAction]) -> None:
        assert self._used is not None
        if self._used[0] in sight.direct:
            self.deadline = inf
        elif self.deadline == inf:
            self.deadline = now + KEEP
        elif now >= self.deadline:
            actions += self._over()

    def _rest(self, now: float) -> None:
        self._rests_until = now + RESTS[min(self._failures, len(RESTS) - 1)]
        self._failures += 1

    def _over(self) -> list[SpreadAction]:
        actions: list[SpreadAction] = []
        if self._used is not None:
            actions.append(Unpin(self._used[0]))
        actions.append(CloseSockets())
        self._used = self._knock = None
        self._targets = self.announced = ()
        self._since = None
        self.phase = Phase.IDLE
        self.deadline = -inf
        return actions
