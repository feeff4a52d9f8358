"""How fast something goes, from what was seen in the last seconds. No clock of its own."""

from __future__ import annotations

from collections import deque
from typing import Final

__all__ = ["Meter"]

WINDOW: Final = 5.0
"""Seconds that the rate is taken over."""
STEP: Final = 0.1
"""Seconds between two samples that are kept."""


class Meter:
    """Rate of a growing amount. Standing still lowers it, and after `WINDOW` seconds it is 0."""

    def __init__(self, now: float, amount: int = 0) -> None:
        self._samples: deque[tuple[float, int]] = deque([(now, amount)])

    def add(self, now: float, amount: int) -> None:
        """At `now` (seconds) the amount was `amount`."""
        samples = self._samples
        if len(samples) > 1 and now - samples[-2][0] < STEP:
            samples[-1] = now, amount
        else:
            samples.append((now, amount))
        while len(samples) > 2 and now - samples[1][0] >= WINDOW:
            samples.popleft()

    def rate(self, now: float, amount: int) -> float:
        """Units in a second up to `now`."""
        self.add(now, amount)
        begin, before = self._samples[0]
        return max(0.0, (amount - before) / (now - begin)) if now > begin else 0.0
