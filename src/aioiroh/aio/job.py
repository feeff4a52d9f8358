"""Work that tells how far it is: awaitable for its outcome, an async iterator of its progress."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Generator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from aioiroh.aio.watch import Watch

__all__ = ["Job"]

R = TypeVar("R")
P = TypeVar("P")


class Job(ABC, Generic[R, P]):
    """Work that starts when it is awaited, iterated or entered, or by `start`.

    `await job` gives the outcome. `async for progress in job` gives the latest progress after each
    change, coalesced, and raises what went wrong. Cancelling the task that does either cancels the work;
    leaving the iteration does not. As a context manager it is cancelled on the way out.
    """

    def __init__(self, name: str, progress: P) -> None:
        self._name = name
        self._progress = Watch(progress)
        self._task: asyncio.Task[R] | None = None

    @abstractmethod
    async def _run(self) -> R:
        """The work."""

    @property
    def progress(self) -> P:
        """How far it is."""
        return self._progress.value

    def start(self) -> asyncio.Task[R]:
        """Start it, unless it has been started."""
        if self._task is None:
            # The owner of the task is this object: whoever holds it sees the end.
            self._task = asyncio.get_running_loop().create_task(self._run(), name=self._name)
            self._task.add_done_callback(lambda _: self._progress.close())
        return self._task

    def cancel(self) -> None:
        """Stop it; whoever awaits it gets CancelledError."""
        if self._task is not None:
            self._task.cancel()

    def __await__(self) -> Generator[Any, None, R]:
        return self.start().__await__()

    async def __aiter__(self) -> AsyncIterator[P]:
        task = self.start()
        try:
            async for progress in self._progress:
                yield progress
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.wait([task])
            raise
        await task

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        task = self.start()
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
        elif not task.cancelled():
            task.exception()  # whoever did not ask does not want to hear of it
