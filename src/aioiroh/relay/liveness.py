"""The core that finds out whether a relay is still there (relay protocol, sections 4.1 and 5.5).

No clock and no chance of its own: times are seconds of any monotonic clock, `data` are 8 random bytes.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["Liveness"]

INTERVAL: Final = 15.0
"""Seconds without a frame after which the relay is asked for a sign of life."""
UNHEARD: Final = 3.0
"""The same where something was sent meanwhile: peers would have answered."""
PATIENCE_WITH_DATA: Final = 2.0
"""Seconds for the answer then, at least: it waits behind what is sent."""
FIRST_DEADLINE: Final = 5.0
"""Seconds for the first answer, when nothing is known of the way."""
MIN_DEADLINE: Final = 0.5
MAX_DEADLINE: Final = 5.0
RTT_FACTOR: Final = 3.0


class Liveness:
    """Pings of one connection. Call `act` when `deadline` has come, and after each input."""

    __slots__ = ("_asked", "_last_frame", "_pending", "_unheard", "rtt")

    def __init__(self, now: float) -> None:
        """The handshake is done: the first ping is due at once."""
        self.rtt: float | None = None
        """Seconds that the last answer took; None until the first."""
        self._last_frame = now - INTERVAL
        self._pending: bytes | None = None
        self._asked = now
        self._unheard: float | None = None

    @property
    def deadline(self) -> float:
        """When `act` has something to do."""
        if self._pending is not None:
            return self._asked + self._patience()
        if self._unheard is not None:
            return min(self._last_frame + INTERVAL, self._unheard + UNHEARD)
        return self._last_frame + INTERVAL

    def frame_came(self, now: float) -> None:
        """Any frame: the relay is there."""
        self._last_frame = now
        self._unheard = None

    def sent(self, now: float) -> bool:
        """Something was sent; whether `deadline` may be another one now."""
        if self._unheard is not None:
            return False
        self._unheard = now
        return True

    def pong_came(self, now: float, data: bytes) -> bool:
        """An answer. True if it is the one that is waited for."""
        if data != self._pending:
            return False
        self._pending = None
        self.rtt = now - self._asked
        return True

    def ask(self, now: float, data: bytes) -> None:
        """A ping with these bytes is sent. Only the latest one counts."""
        self._pending = data
        self._asked = now

    def ask_now(self) -> None:
        """Something has happened: a ping is due, even while another one is under way."""
        self._pending = None
        self._last_frame = -math.inf

    def is_dead(self, now: float) -> bool:
        """Whether the answer is overdue."""
        return self._pending is not None and now >= self.deadline

    def should_ask(self, now: float) -> bool:
        """Whether a ping is due."""
        return self._pending is None and now >= self.deadline

    def _patience(self) -> float:
        if self.rtt is None:
            return FIRST_DEADLINE
        least = MIN_DEADLINE if self._unheard is None else PATIENCE_WITH_DATA
        return min(max(RTT_FACTOR * self.rtt, least), MAX_DEADLINE)
