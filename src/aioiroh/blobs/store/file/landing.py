"""Small blobs on their way to files of their own, in a store that others leave as files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from aioiroh import _native
from aioiroh.aio import Tasks

from ...hash import Hash
from ..worker import DiskWorker
from .layout import Layout

__all__ = ["Landing"]

MOST: Final = 2 * 1024 * 1024
"""Bytes on their way before whoever brings more waits."""
EACH: Final = 1024
"""Bytes that a blob counts for besides its own: thousands of tiny ones are much, too."""
ENOUGH: Final = 32
"""Blobs that are written at once; fewer wait for others, for `DELAY` seconds: jobs cost more than files."""
DELAY: Final = 0.005

Landed = Callable[[Mapping[Hash, bytes], OSError | None], None]
"""Called with blobs that are in their files, or with why they are not."""


class Landing:
    """Writes blobs in the order in which they come: all that have come while others were written at once."""

    def __init__(self, layout: Layout, worker: DiskWorker, on_landed: Landed, tasks: Tasks) -> None:
        self._layout = layout
        self._worker = worker
        self._on_landed = on_landed
        self._tasks = tasks
        self._waiting: dict[Hash, bytes] = {}
        self._bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()

    async def put(self, blobs: Sequence[tuple[Hash, bytes]]) -> None:
        """Takes blobs that are not on their way yet, and waits if many are."""
        self._waiting.update(blobs)
        self._bytes += sum(EACH + len(data) for _, data in blobs)
        if len(self._waiting) >= ENOUGH:
            self._begin()
        else:
            self._begin_soon()
        while self._bytes > MOST:
            await self._change()

    async def all_down(self) -> None:
        """Waits until nothing is on its way."""
        while self._waiting or self._task is not None:
            self._begin()
            await self._change()

    def _begin_soon(self) -> None:
        if self._timer is None and self._waiting:
            self._timer = asyncio.get_running_loop().call_later(DELAY, self._begin)

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is None and self._waiting:
            self._task = self._tasks.spawn(self._run(), name="landing")

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _run(self) -> None:
        try:
            while True:
                blobs, self._waiting = self._waiting, {}
                failure: OSError | None = None
                try:
                    await self._worker.write_blobs(
                        [
                            (
                                _native.Blob.inline(bytes(hash), data),
                                self._layout.data_name(bytes(hash)),
                            )
                            for hash, data in blobs.items()
                        ]
                    )
                except OSError as error:
                    failure = error
                self._bytes -= sum(EACH + len(data) for data in blobs.values())
                self._on_landed(blobs, failure)
                self._changed.set()
                if len(self._waiting) < ENOUGH:
                    return
        finally:
            self._task = None
            self._begin_soon()
            self._changed.set()
