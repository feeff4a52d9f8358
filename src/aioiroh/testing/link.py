"""What a stretch of network does to datagrams."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from random import Random
from typing import Literal, Self

__all__ = ["Fate", "Link", "Pipe"]

Fate = Literal["lost", "queue full", "too large"]
"""Why a datagram does not arrive."""

CONGESTION_EXPERIENCED = 3
DUPLICATE_AFTER = 0.001
JITTER_LASTS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Properties of one direction of a link. Times in seconds, probabilities from 0 to 1.

    Datagrams first wait in a queue until the link has sent those before them (only where there is a
    `bandwidth`), then travel. Raises ValueError when a value makes no sense.
    """

    latency: float = 0.005
    """Travelling time of every datagram."""
    jitter: float = 0.0
    """Travelling time on top, between 0 and this, another every 50 ms; order is kept."""
    loss: float = 0.0
    """Probability that a datagram is lost on the way."""
    burst: float = 0.0
    """Probability that a burst of losses begins with a datagram (Gilbert's model)."""
    burst_length: float = 10.0
    """Datagrams lost in a burst, on average."""
    duplicate: float = 0.0
    """Probability that a datagram arrives twice, the second copy up to 1 ms after the first."""
    reorder: float = 0.0
    """Probability that a datagram is held back, so that later ones overtake it."""
    reorder_delay: float = 0.02
    """The longest time a datagram is held back."""
    bandwidth: float | None = None
    """Bits per second, headers included. None: no limit."""
    queue: int = 256 * 1024
    """Bytes that wait at most for a limited link; what does not fit is dropped."""
    mark_above: int | None = None
    """Waiting bytes above which a datagram that allows it is marked instead of dropped later
    (explicit congestion notification, RFC 3168). None: never."""
    mtu: int = 1500
    """Bytes of the largest IP packet; larger ones are dropped."""

    def __post_init__(self) -> None:
        for name in ("loss", "burst", "duplicate", "reorder"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability, from 0 to 1")
        for name in ("latency", "jitter", "reorder_delay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must not be negative")
        if self.bandwidth is not None and not 0 < self.bandwidth < math.inf:
            raise ValueError("bandwidth must be positive (or None)")
        if not 1 <= self.burst_length < math.inf:
            raise ValueError("a burst has at least one loss (burst_length)")
        if self.queue < self.mtu:
            raise ValueError("the queue must hold at least one packet (mtu)")

    def replace(self, **changes: object) -> Self:
        """A copy with some properties changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


PERFECT = Link(latency=0.0)


class Pipe:
    """One direction of a link in use: says when each datagram arrives."""

    __slots__ = (
        "_bursting",
        "_busy_until",
        "_extra",
        "_extra_until",
        "_last_arrival",
        "_random",
        "link",
    )

    def __init__(self, link: Link, random: Random) -> None:
        self.link = link
        self._random = random
        self._busy_until = 0.0
        self._bursting = False
        self._last_arrival = 0.0
        self._extra = 0.0
        self._extra_until = 0.0

    def backlog(self, now: float) -> int:
        """Bytes that wait at this moment."""
        if self.link.bandwidth is None:
            return 0
        return round(max(self._busy_until - now, 0.0) * self.link.bandwidth / 8)

    def send(self, now: float, size: int, ecn: int) -> tuple[tuple[float, ...], int] | Fate:
        """Arrival times and ECN bits of an IP packet of `size` bytes, or why it never arrives."""
        link = self.link
        if size > link.mtu:
            return "too large"
        sent = now
        if link.bandwidth is not None:
            waiting = self.backlog(now)
            if waiting + size > link.queue:
                return "queue full"
            if link.mark_above is not None and waiting > link.mark_above and ecn:
                ecn = CONGESTION_EXPERIENCED
            sent = max(now, self._busy_until) + size * 8 / link.bandwidth
            self._busy_until = sent
        chance = self._random.random
        if link.loss and chance() < link.loss:
            return "lost"
        if link.burst:
            if self._bursting:
                self._bursting = chance() >= 1 / link.burst_length
            else:
                self._bursting = chance() < link.burst
            if self._bursting:
                return "lost"
        arrival = sent + link.latency
        if link.jitter:
            if now >= self._extra_until:
                self._extra = chance()
                self._extra_until = now + JITTER_LASTS
            arrival += link.jitter * self._extra
        if link.reorder and chance() < link.reorder:
            arrival += link.reorder_delay * chance()
        else:
            arrival = max(arrival, self._last_arrival)
            self._last_arrival = arrival
        if link.duplicate and chance() < link.duplicate:
            return (arrival, arrival + DUPLICATE_AFTER * chance()), ecn
        return (arrival,), ecn
