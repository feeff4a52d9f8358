"""Turns of an engine's driver, and the futures whose tasks go on within them.

A task that waits for a plain future goes on in the next iteration of the loop. One that waits for a
`Waiter` goes on in the very callback that completes it, after everything else that the engine had to tell
is known and before the engine sends. So a request costs the loop one iteration, and its answer leaves in
one datagram together with the acknowledgement.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeVar

__all__ = ["Turns", "Waiter"]

T = TypeVar("T")


class Turns:
    """Whether a turn is under way, and who goes on at its end."""

    __slots__ = ("active", "loop", "next")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.active = False
        """Set only inside a callback of the loop, never inside a task: two tasks cannot run at once."""
        self.next: deque[Callable[[], None]] = deque()

    def call(self, function: Callable[[], None]) -> None:
        """Call it in this turn, or else in the next iteration of the loop."""
        if self.active:
            self.next.append(function)
        else:
            self.loop.call_soon(function)

    def proceed(self) -> None:
        """Let those go on who have been waiting. What they raise, which is to end the loop, is raised."""
        while self.next:
            self.next.popleft()()


class Waiter(asyncio.Future[T]):
    """A future for one task at a time."""

    __slots__ = ("_context", "_turns", "_wakeup")

    def __init__(self, turns: Turns) -> None:
        super().__init__(loop=turns.loop)
        self._turns = turns
        self._wakeup: Callable[[Waiter[T]], object] | None = None
        self._context: Context | None = None

    def complete(self, result: T) -> None:
        """Set the result, unless the waiting task was cancelled."""
        if not self.done():
            self.set_result(result)
            if self._wakeup is not None:
                self._turns.call(self._resume)

    def add_done_callback(
        self, fn: Callable[[Waiter[T]], object], /, *, context: Context | None = None
    ) -> None:
        """How a task waits."""
        if context is None or self._wakeup is not None or self.done():
            super().add_done_callback(fn, context=context)
        else:
            self._wakeup, self._context = fn, context

    def cancel(self, msg: Any | None = None) -> bool:
        """How a waiting task is cancelled: it goes on in the next iteration of the loop."""
        if not super().cancel(msg):
            return False
        if self._wakeup is not None:
            self._turns.loop.call_soon(self._resume)
        return True

    def _resume(self) -> None:
        wakeup, self._wakeup = self._wakeup, None
        if wakeup is not None and self._context is not None:
            self._context.run(wakeup, self)
