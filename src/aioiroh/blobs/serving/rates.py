"""How fast a provider sends: to all together, to each peer, and what the application adds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from aioiroh.aio import TokenBucket

from ..transfer.pacing import Pace, Pacer, rate_limit
from .access import IncomingRequest

if TYPE_CHECKING:
    from aioiroh.keys import EndpointId

    from .limits import Limits

__all__ = ["Rates", "Throttle"]

TIDY: Final = 256
"""Peers that are known before those who need not be are looked for."""

Throttle = Callable[[IncomingRequest], Iterable[TokenBucket]]
"""Names the limits (`rate_limit`) under which a request is answered. Requests that name the same share it."""


class Rates:
    """The limits of each request, and the pacer that keeps to them: native code does the work."""

    def __init__(self, limits: Limits, throttle: Throttle | None) -> None:
        self._limits = limits
        self._throttle = throttle
        self._pacer = Pacer()
        self._total: TokenBucket | None = None
        self._peers: dict[EndpointId, TokenBucket] = {}
        self._tidy_at = TIDY

    def pace(self, source: IncomingRequest, now: float) -> Pace:
        """The limits of a request."""
        limits, peer = self._limits, source.remote_id
        if self._throttle is None and limits.rate is None and limits.rate_per_peer is None:
            return Pace.FREE
        buckets = list(self._throttle(source)) if self._throttle is not None else []
        if limits.rate is not None:
            if self._total is None:
                self._total = rate_limit(limits.rate, now=now)
            buckets.append(self._total)
        if limits.rate_per_peer is not None:
            if peer not in self._peers:
                self._tidy(now)
                self._peers[peer] = rate_limit(limits.rate_per_peer, now=now)
            buckets.append(self._peers[peer])
        return Pace(self._pacer, buckets)

    def _tidy(self, now: float) -> None:
        """Forgets peers whose bucket is full: all who have asked for nothing for a fraction of a second."""
        if len(self._peers) < self._tidy_at:
            return
        self._peers = {
            peer: bucket for peer, bucket in self._peers.items() if bucket.level(now) < bucket.burst
        }
        self._tidy_at = max(TIDY, 2 * len(self._peers))
