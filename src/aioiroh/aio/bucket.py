"""How much may pass when a rate is to be kept."""

from __future__ import annotations

__all__ = ["TokenBucket"]


class TokenBucket:
    """Tokens (bytes, requests) that come at a steady rate and are kept up to a limit.

    Has no clock: `now` is a time in seconds that never goes back. What is taken without being there
    is owed and comes out of what the bucket gets later.
    """

    __slots__ = ("_level", "_since", "burst", "rate")

    def __init__(self, rate: float, burst: float, *, now: float) -> None:
        """`rate`: tokens per second. `burst`: how many it holds; it starts full."""
        if not (rate > 0 and burst > 0):
            raise ValueError("rate and burst must be positive")
        self.rate = rate
        self.burst = burst
        self._level = burst
        self._since = now

    def level(self, now: float) -> float:
        """Tokens that are there; below 0: owed."""
        if now > self._since:
            self._level = min(self._level + (now - self._since) * self.rate, self.burst)
            self._since = now
        return self._level

    def take(self, now: float, tokens: float) -> None:
        """Take tokens, whether they are there or not; a negative number gives some back."""
        self._level = min(self.level(now) - tokens, self.burst)

    def delay(self, now: float, tokens: float = 0.0) -> float:
        """Seconds until so many are there (0: until none is owed). At most a full bucket is waited for."""
        return max(0.0, (min(tokens, self.burst) - self.level(now)) / self.rate)
