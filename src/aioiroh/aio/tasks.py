"""The owner of background tasks: no task outlives its owner, no failure is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

__all__ = ["Tasks"]

T = TypeVar("T")
logger = logging.getLogger("aioiroh.tasks")


class Tasks:
    """Tasks that are spawned one by one and end together.

    A task that raises is logged, and the first failure is kept for `raise_if_failed`. An owner that
    knows what to do with failures passes `on_error(task, error)`; then they count as handled.
    Cancellation is no failure.

    As an async context manager it cancels what is left at the end of the block and, if the block
    itself went well, raises the first failure.
    """

    def __init__(
        self,
        name: str,
        on_error: Callable[[asyncio.Task[Any], BaseException], None] | None = None,
        *,
        limit: int | None = None,
    ) -> None:
        """`limit`: how many tasks may run at once; None: the owner keeps count by other means."""
        self.name = name
        self._on_error = on_error
        self._limit = limit
        self._running: set[asyncio.Task[Any]] = set()
        self._waiting: set[asyncio.Future[None]] = set()
        self._failure: BaseException | None = None
        self._closed = False

    def __len__(self) -> int:
        """How many tasks are running."""
        return len(self._running)

    @property
    def closed(self) -> bool:
        """Whether `aclose` was called; nothing can be spawned any more."""
        return self._closed

    @property
    def full(self) -> bool:
        """Whether `limit` tasks are running."""
        return self._limit is not None and len(self._running) >= self._limit

    def spawn(
        self, coroutine: Coroutine[Any, Any, T], *, name: str | None = None
    ) -> asyncio.Task[T]:
        """Start a task. RuntimeError: closed, or full (see `room`)."""
        if self._closed or self.full:
            coroutine.close()
            state = "closed" if self._closed else f"full ({self._limit} tasks are running)"
            raise RuntimeError(f"{self.name} is {state}")
        label = f"{self.name}: {name or getattr(coroutine, '__qualname__', 'task')}"
        task = asyncio.get_running_loop().create_task(coroutine, name=label)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def raise_if_failed(self) -> None:
        """Raise the first unhandled failure, if there was one."""
        if self._failure is not None:
            raise self._failure

    async def room(self) -> None:
        """Wait until another task may be spawned. RuntimeError: closed meanwhile."""
        while self.full and not self._closed:
            await self._change()
        if self._closed:
            raise RuntimeError(f"{self.name} is closed")

    async def join(self) -> None:
        """Wait until no task is running, without cancelling any."""
        current = asyncio.current_task()
        while self._running - {current}:
            await self._change()

    async def aclose(self) -> None:
        """Cancel every task and wait until all have ended. May be called again, and from a task
        of its own, which then is not waited for.
        """
        self._closed = True
        self._wake()
        current = asyncio.current_task()
        for task in self._running - {current}:
            task.cancel(f"{self.name} closes")
        await self.join()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
        if error is None:
            self.raise_if_failed()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        self._wake()
        error = None if task.cancelled() else task.exception()
        if error is None:
            return
        if self._on_error is not None:
            try:
                self._on_error(task, error)
            except Exception as second:  # noqa: BLE001 - kept and logged below
                second.__context__ = error
                error = second
            else:
                return
        if self._failure is None:
            self._failure = error
        logger.error("background task failed: %s", task.get_name(), exc_info=error)

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiter)
        try:
            await waiter
        finally:
            self._waiting.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
