"""How fast a provider sends: to all together, to each peer, and what the application adds."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from aioiroh.aio import TokenBucket

from ..transfer.pacing import Pace, Pacer, rate_limit
from .access import IncomingRequest

if TYPE_CHECKING:
    from aioiroh.keys import EndpointId

    from .limits import Limits

__all__ = ["Rates", "Throttle"]

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
        self._users: Counter[EndpointId] = Counter()

    def pace(self, source: IncomingRequest, now: float) -> contextlib.AbstractContextManager[Pace]:
        """Within, the limits of a request are kept for it."""
        limits = self._limits
        if self._throttle is None and limits.rate is None and limits.rate_per_peer is None:
            return contextlib.nullcontext(Pace.FREE)
        return self._limited(source, now)

    @contextlib.contextmanager
    def _limited(self, source: IncomingRequest, now: float) -> Iterator[Pace]:
        peer = source.remote_id
        buckets = list(self._throttle(source)) if self._throttle is not None else []
        if self._limits.rate is not None:
            if self._total is None:
                self._total = rate_limit(self._limits.rate, now=now)
            buckets.append(self._total)
        if self._limits.rate_per_peer is not None:
            if peer not in self._peers:
                self._peers[peer] = rate_limit(self._limits.rate_per_peer, now=now)
            buckets.append(self._peers[peer])
        self._users[peer] += 1
        try:
            yield Pace(self._pacer, buckets)
        finally:
            self._users[peer] -= 1
            if not self._users[peer]:
                # A bucket fills within a fraction of a second: a new one is as good.
                del self._users[peer]
                self._peers.pop(peer, None)
