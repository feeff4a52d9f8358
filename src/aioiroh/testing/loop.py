"""An event loop in which time is virtual, and everything repeats."""

from __future__ import annotations

import asyncio
import gc
import itertools
import selectors
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

from aioiroh.errors import AioirohError
from aioiroh.testing.secluded import SecludedLoop
from aioiroh.testing.stuck import describe_tasks

__all__ = ["DeadlockError", "SimulatedTimeoutError", "VirtualLoop"]

T = TypeVar("T")

NANOSECONDS = 1_000_000_000
COLLECT_EVERY = 50_000
"""Turns of the loop between two collections of garbage, which then happen at the same moments."""
END_OF_TIME = float(1 << 21)
"""24 virtual days: beyond, a float of seconds does not tell nanoseconds apart, and time would stand."""
GRACE = 300.0
"""Virtual seconds that clean-up may take after a simulation failed."""


class DeadlockError(AioirohError, RuntimeError):
    """Nothing is ready, no timer is set, and the program is not done."""


class SimulatedTimeoutError(AioirohError, TimeoutError):
    """The simulation reached its limit of virtual time."""


class VirtualLoop(SecludedLoop):
    """Runs callbacks, tasks and timers, but never waits: where others sleep, time jumps.

    `time()` begins at 0 and stands still while anything is ready; then it jumps to the next timer. A
    program that waits for something that cannot come raises DeadlockError, one that runs for more than
    `time_limit` virtual seconds (24 days at most) SimulatedTimeoutError; both list what every task
    waits for.

    The same program does the same things in the same order in each run, whatever the addresses of
    objects, hash seeds and the garbage collector do: sets of tasks and futures have one order, and garbage
    is collected at fixed moments. (A set of other objects may still be iterated in any order.)

    The outside world has another clock, so threads, sockets, pipes, processes and signals are refused
    with NotImplementedError. Use it as `asyncio.Runner(loop_factory=VirtualLoop)`, or through `run`.
    """

    def __init__(self, *, time_limit: float | None = None) -> None:
        self._nanoseconds = 0
        self._time_limit = END_OF_TIME if time_limit is None else min(time_limit, END_OF_TIME)
        self._turns = 0
        self._numbers = itertools.count(1)
        super().__init__(_Leap(self))
        # Timers count as due half a nanosecond early, which is what rounding may cost.
        self._clock_resolution = 0.5 / NANOSECONDS
        self.set_task_factory(_make_task)

    def run_forever(self) -> None:
        """See `asyncio.loop.run_forever`. The garbage collector rests meanwhile."""
        automatic = gc.isenabled()
        gc.disable()
        try:
            super().run_forever()
        finally:
            if automatic:
                gc.enable()

    def time(self) -> float:
        """Virtual seconds since the loop was made, in whole nanoseconds."""
        return self._nanoseconds / NANOSECONDS

    def _jump(self, timeout: float | None) -> None:
        # Between two turns: nothing, or over the `timeout` seconds to the next timer.
        self._turns += 1
        if self._turns % COLLECT_EVERY == 0:
            gc.collect()
        if timeout is None:
            raise DeadlockError(
                f"nothing can happen any more after {self.time():.3f} virtual seconds: nothing is "
                f"ready and no timer is set\n{describe_tasks(self)}"
            )
        if timeout <= 0:
            return
        self._nanoseconds += max(round(timeout * NANOSECONDS), 1)
        limit = self._time_limit
        if self.time() > limit:
            self._time_limit = self.time() + GRACE
            raise SimulatedTimeoutError(
                f"not done after {limit:.9g} virtual seconds\n{describe_tasks(self)}"
            )

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return _Future(loop=self)

    def _next_number(self) -> int:
        # For futures and tasks: each another one, the same in each run.
        return next(self._numbers)


class _Leap(selectors.SelectSelector):
    """Stands where a loop waits for descriptors; no descriptor is ever ready."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop._jump(timeout)
        return []


class _Future(asyncio.Future[T]):
    """A future that hashes by its number, so that a set of them has the same order in each run."""

    __slots__ = ("_number",)

    def __init__(self, *, loop: VirtualLoop) -> None:
        super().__init__(loop=loop)
        self._number = loop._next_number()

    def __hash__(self) -> int:
        return self._number


class _Task(asyncio.Task[T]):
    """The same for a task."""

    __slots__ = ("_number",)

    _number: int

    # The base class puts the task into a set while it is being initialised.
    def __new__(cls, _coro: object, *, loop: VirtualLoop, **_options: Any) -> _Task[T]:
        task = super().__new__(cls)
        task._number = loop._next_number()
        return task

    def __hash__(self) -> int:
        return self._number


def _make_task(
    loop: asyncio.AbstractEventLoop,
    coro: Coroutine[Any, Any, T] | Generator[Any, None, T],
    **options: Any,
) -> asyncio.Task[T]:
    assert isinstance(loop, VirtualLoop)
    return _Task(coro, loop=loop, **options)
