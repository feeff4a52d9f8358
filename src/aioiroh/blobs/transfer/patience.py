"""How long a peer is waited for that moves little or nothing."""

from __future__ import annotations

import asyncio

from aioiroh.aio import within

__all__ = ["Patience", "StalledError"]


class StalledError(Exception):
    """The peer moved less than it has to."""


class Patience:
    """Wants something from a peer every `window` seconds, and `rate` bytes per second on the whole.

    So neither a peer that sleeps nor one that takes or brings a trickle keeps its place for ever. One
    for each transfer. What came at first counts for what comes later, because flow control lets bytes
    through in portions.
    """

    def __init__(self, window: float, rate: float, *, now: float) -> None:
        self.window = window
        self._rate = rate
        self._begun = now
        self._moved = 0
        self.due = now + window
        """When the peer is judged next."""

    def is_enough(self, now: float, moved: int, *, held: bool) -> bool:
        """Judges a peer that has `moved` so many bytes in all. What we hold up is not its fault."""
        if held:
            self._begun += self.window
        least = self._rate * (now - self._begun - self.window)
        enough = held or (moved > self._moved and moved >= least)
        self._moved = moved
        self.due = now + self.window
        return enough

    async def wait(self, event: asyncio.Event) -> bool:
        """Waits for an event; False if the peer has to be judged first."""
        left = self.due - asyncio.get_running_loop().time()
        if left <= 0:
            return False
        try:
            return await within(left, event.wait())
        except TimeoutError:
            return False
