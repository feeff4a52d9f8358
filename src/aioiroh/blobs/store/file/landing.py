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
        self._changed = asyncio.Event()

    async def put(self, blobs: Sequence[tuple[Hash, bytes]]) -> None:
        """Takes blobs that are not on their way yet, and waits if many are."""
        self._waiting.update(blobs)
        self._bytes += sum(len(data) for _, data in blobs)
        if self._task is None and self._waiting:
            self._task = self._tasks.spawn(self._run(), name="landing")
        while self._bytes > MOST:
            await self._change()

    async def all_down(self) -> None:
        """Waits until nothing is on its way."""
        while self._task is not None:
            await self._change()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _run(self) -> None:
        try:
            while self._waiting:
                blobs, self._waiting = self._waiting, {}
                failure: OSError | None = None
                try:
                    await self._worker.write_blobs(
                        [
                            (_native.Blob.inline(bytes(hash), data), self._layout.data(bytes(hash)))
                            for hash, data in blobs.items()
                        ]
                    )
                except OSError as error:
                    failure = error
                self._bytes -= sum(map(len, blobs.values()))
                self._on_landed(blobs, failure)
                self._changed.set()
        finally:
            self._task = None
            self._changed.set()
