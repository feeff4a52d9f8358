"""Keeping transfers to a rate: streams are given their bytes a little at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar, Final, Protocol

from aioiroh.aio import TokenBucket

__all__ = ["Flow", "Pace", "Pacer", "rate_limit"]

TICK: Final = 0.02
"""Seconds between two portions."""
BURST: Final = 0.1
"""Seconds of a rate that may be made up for after a pause."""
SMALLEST_BURST: Final = 4096


class Flow(Protocol):
    """A stream whose native end moves no more bytes than it was allowed."""

    def allow(self, bytes: int) -> int:
        """Lets it move so many bytes more; gives how many it has left."""
        ...


def rate_limit(rate: float, *, now: float) -> TokenBucket:
    """What `Pacer.paced` takes: a limit of `rate` bytes per second for all flows that name it."""
    return TokenBucket(rate, max(rate * BURST, SMALLEST_BURST), now=now)


@dataclass(slots=True, eq=False)
class _Paced:
    flow: Flow
    limits: Sequence[TokenBucket]
    priority: int
    room: float
    wants: int = 0
    was_held: bool = False


class Pacer:
    """Shares out what limits allow among the flows under them.

    Who has the higher priority takes first; flows of one priority share evenly, and what one does not
    need the others get. Costs nothing while there are no flows. Belongs to one event loop.
    """

    def __init__(self) -> None:
        self._flows: dict[Flow, _Paced] = {}
        self._timer: asyncio.TimerHandle | None = None

    @contextlib.contextmanager
    def paced(
        self, flow: Flow, limits: Sequence[TokenBucket], *, priority: int = 0
    ) -> Iterator[None]:
        """Within, the flow moves only what every one of `limits` allows; all of it if there are none."""
        if not limits:
            yield
            return
        self._flows[flow] = _Paced(flow, limits, priority, min(limit.burst for limit in limits))
        flow.allow(0)
        if self._timer is None:
            self._tick()
        try:
            yield
        finally:
            del self._flows[flow]
            left = flow.allow(0)
            for limit in limits:
                limit.take(self._now(), -left)

    def was_held(self, flow: Flow) -> bool:
        """Whether a flow has used up what it was allowed, and stood still, since this was asked last."""
        paced = self._flows.get(flow)
        if paced is None:
            return False
        was_held, paced.was_held = paced.was_held or not flow.allow(0), False
        return was_held

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _tick(self) -> None:
        self._timer = None
        if not self._flows:
            return
        self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)
        for paced in self._flows.values():
            left = paced.flow.allow(0)
            paced.was_held |= not left
            paced.wants = max(0, int(paced.room) - left)
        # Those who want least first: what they leave is for the others.
        order = sorted(self._flows.values(), key=lambda paced: (-paced.priority, paced.wants))
        for _, equals in groupby(order, key=lambda paced: paced.priority):
            self._share(list(equals), self._now())

    @staticmethod
    def _share(flows: list[_Paced], now: float) -> None:
        users = Counter(limit for paced in flows for limit in paced.limits)
        for paced in flows:
            granted = min(
                paced.wants, *(int(limit.level(now) / users[limit]) for limit in paced.limits)
            )
            users.subtract(paced.limits)
            if granted > 0:
                paced.flow.allow(granted)
                for limit in paced.limits:
                    limit.take(now, granted)


@dataclass(frozen=True, slots=True)
class Pace:
    """The limits under which one transfer runs, and who keeps it to them."""

    pacer: Pacer
    limits: Sequence[TokenBucket] = ()
    priority: int = 0
    FREE: ClassVar[Pace]

    def kept(self, flow: Flow) -> contextlib.AbstractContextManager[None]:
        """See `Pacer.paced`."""
        return self.pacer.paced(flow, self.limits, priority=self.priority)

    def was_held(self, flow: Flow) -> bool:
        """See `Pacer.was_held`."""
        return self.pacer.was_held(flow)


Pace.FREE = Pace(Pacer())
