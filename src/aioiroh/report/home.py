"""The core that chooses the home relay (endpoint reference, section 5.4)."""

from __future__ import annotations

from collections import deque
from typing import Final

from aioiroh.address import RelayUrl
from aioiroh.report.report import RelayLatencies

__all__ = ["HomeChoice"]

MAX_AGE: Final = 300.0
"""Seconds for which a latency counts."""
MAX_REPORTS: Final = 64
"""Reports that are remembered; with more of them the oldest are forgotten."""
BETTER: Final = 2 / 3
"""A relay has to be that much nearer than the home relay to take its place."""


class HomeChoice:
    """Remembers the latencies of recent reports. No clock of its own: times are seconds of any monotonic one."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, RelayLatencies]] = deque(maxlen=MAX_REPORTS)

    def forget(self) -> None:
        """The network is another one: what was measured means nothing any more."""
        self._recent.clear()

    def choose(
        self, now: float, latencies: RelayLatencies, home: RelayUrl | None, *, asked_all: bool
    ) -> RelayUrl | None:
        """The relay to be home from now on; None: nothing was measured, and there is no `home`.

        Of the relays that were measured, that with the lowest recent latency wins, if it is clearly better
        than `home`. Unless all were asked (`asked_all`), `home` counts with its recent latency, too; upstream
        leaves it for any relay that it happened to measure alone.
        """
        self._recent.append((now, latencies))
        while now - self._recent[0][0] > MAX_AGE:
            self._recent.popleft()
        measured = latencies.relays
        if not measured:
            return home
        scores = {url: self._best(url) for url in measured}
        if home is not None and not asked_all:
            scores[home] = self._best(home)
        winner = min(scores, key=lambda url: (scores[url], url))
        if home is None or home not in scores or winner == home:
            return winner
        current = latencies.get(home)
        if current is None:
            current = scores[home]
        clearly = scores[winner] < current and scores[winner] <= current * BETTER
        return winner if clearly else home

    def _best(self, url: RelayUrl) -> float:
        known = (latencies.get(url) for _, latencies in self._recent)
        return min((latency for latency in known if latency is not None), default=float("inf"))
