"""Work for a provider that has none: a share of what a slower one is still to bring. No I/O."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from ..ranges import CHUNK_SIZE
from .backlog import Part
from .fetch import Fetch
from .peers import Peer

__all__ = ["Taken", "steal"]

SMALLEST_SHARE: Final = 256 << 10
"""Bytes below which a piece is not cut: the last pieces are asked for twice instead."""
GRACE: Final = 0.5
"""Seconds without a byte after which a provider of unknown rate is called slow."""

WORTHWHILE: Final = 0.1
"""Seconds that a request must have left before others help with it."""

P = TypeVar("P", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Taken(Generic[P]):
    """Parts to ask another provider for: taken from `victim`, or a copy of what it still brings."""

    victim: Fetch[P]
    parts: tuple[Part, ...]
    is_copy: bool


def steal(
    now: float,
    thief: P,
    peer: Peer,
    fetches: Iterable[Fetch[P]],
    peers: Mapping[P, Peer],
    usual: float,
) -> Taken[P] | None:
    """The best work to take over, if that brings the end nearer. `usual`: bytes of an average blob.

    The request that would end last is divided in proportion to the speeds; what is too small for
    that is asked for twice if the thief would be done in half the time.
    """
    worst: tuple[float, Fetch[P]] | None = None
    for fetch in fetches:
        if fetch.provider == thief or fetch.twin is not None or _lacks(peer, fetch):
            continue
        left = _seconds_left(now, fetch, peers[fetch.provider], usual)
        if worst is None or left > worst[0]:
            worst = left, fetch
    if worst is None or worst[0] < max(WORTHWHILE, 2 * peer.latency):
        return None
    left, victim = worst
    speed = peer.rate.get(now) or _speed(now, victim, peers[victim.provider])
    amount = victim.bytes_left(usual)
    theirs = amount / left if left else 0.0
    kept = theirs / (theirs + speed) if speed else 0.5
    parts = _divide(victim, amount, kept)
    if parts:
        return Taken(victim, parts, is_copy=False)
    if speed and left < 2 * (peer.latency + amount / speed):
        return None
    return Taken(victim, victim.remaining, is_copy=True)


def _lacks(peer: Peer, fetch: Fetch[P]) -> bool:
    if not peer.lacks_anything:
        return False
    return any(not peer.lacks(part.index).isdisjoint(part.ranges) for part in fetch.remaining)


def _speed(now: float, fetch: Fetch[P], peer: Peer) -> float:
    """Bytes per second of one request, as far as its provider's rate tells."""
    return peer.rate.get(now) / max(len(peer.fetches), 1)


def _seconds_left(now: float, fetch: Fetch[P], peer: Peer, usual: float) -> float:
    amount = fetch.bytes_left(usual)
    if not amount:
        return 0.0
    age = now - fetch.last
    speed = _speed(now, fetch, peer)
    if speed:
        return amount / speed + age
    # One that stands still is the worst, the longer the worse; of others nothing is known yet.
    return 1e9 + age if age >= max(GRACE, 3 * peer.latency) else 0.0


def _divide(victim: Fetch[P], amount: float, kept: float) -> tuple[Part, ...]:
    """Cuts off the end of a request, so that the part `kept` of it (0 to 1) stays."""
    rest = victim.remaining
    if len(rest) > 1 and amount >= 2 * SMALLEST_SHARE:
        return victim.cut_blobs(max(0 if kept == 0.0 else 1, round(len(rest) * kept)))
    if len(rest) == 1 and not rest[0].ranges.is_infinite and amount >= 2 * SMALLEST_SHARE:
        keep = min(max(amount * kept, SMALLEST_SHARE), amount - SMALLEST_SHARE)
        return victim.cut_ranges(int(keep) // CHUNK_SIZE)
    return ()
