"""Moving blobs that are complete here into the bucket, in the background, until it succeeds."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from aioiroh import _native
from aioiroh.aio import Backoff, Tasks

from ...errors import StorageError
from ...hash import Hash
from ..reader import PIECE, read_slowly

__all__ = ["Uploads", "pieces_of"]

logger = logging.getLogger("aioiroh.blobs.store")

AT_ONCE: Final = 8
"""Blobs that are written to the bucket at once."""
RETRY: Final = (1.0, 60.0)
"""Seconds between two attempts after a failure: at first, and at most."""

Upload = Callable[[Hash], Awaitable[None]]


class Uploads:
    """Hashes that wait for their upload, once each."""

    def __init__(self, upload: Upload, limit: int) -> None:
        """`upload(hash)` raises StorageError if it fails. `limit`: bytes that may wait."""
        self._upload = upload
        self._limit = limit
        self._tasks = Tasks("uploads to the bucket")
        self._sizes: dict[Hash, int] = {}
        """All that are not in the bucket yet, in bytes."""
        self._bytes = 0
        self._waiting: deque[Hash] = deque()
        self._failed: list[Hash] = []
        self.failure: StorageError | None = None
        """Why the last attempt failed; None: it did not."""
        # There is nobody to be out of step with.
        self._backoff = Backoff(*RETRY, jitter=0.0, random=lambda: 0.0)
        self._running = 0
        self._changed = asyncio.Event()
        self._retry: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._sizes)

    def __contains__(self, hash: Hash) -> bool:
        return hash in self._sizes

    def add(self, hash: Hash, size: int) -> None:
        if hash not in self._sizes:
            self._sizes[hash] = size
            self._bytes += size
            self._waiting.append(hash)
            self._start()

    def forget(self, hash: Hash) -> None:
        """It need not be uploaded any more."""
        self._bytes -= self._sizes.pop(hash, 0)
        self._changed.set()

    async def room(self) -> None:
        """Waits until more may come. StorageError: too much waits, and the bucket fails."""
        while self._bytes > self._limit:
            if self.failure is not None:
                raise StorageError(
                    f"{len(self)} blobs wait for the bucket, which takes no more: {self.failure}"
                )
            await self._change()

    async def flush(self) -> None:
        """Tries all now and waits for the outcome. StorageError: some still are not there."""
        self._again()
        while self._waiting or self._running:
            await self._change()
        if self._failed and self.failure is not None:
            raise self.failure

    async def aclose(self) -> None:
        await self._tasks.aclose()

    def _start(self) -> None:
        while self._waiting and self._running < AT_ONCE:
            self._running += 1
            self._tasks.spawn(self._run())

    async def _run(self) -> None:
        try:
            while self._waiting:
                hash = self._waiting.popleft()
                if hash not in self._sizes:
                    continue
                try:
                    await self._upload(hash)
                except StorageError as error:
                    self._fail(hash, error)
                except Exception as error:  # noqa: BLE001 - whatever it is, the blob stays here
                    self._fail(hash, StorageError(f"blob {hash} could not be moved: {error!r}"))
                else:
                    self.forget(hash)
                    self.failure = None
                    self._backoff.reset()
                self._changed.set()
        finally:
            self._running -= 1
            self._changed.set()

    def _fail(self, hash: Hash, error: StorageError) -> None:
        logger.warning("%s; it is kept here and tried again", error)
        self._failed.append(hash)
        self.failure = error
        if self._retry is None or self._retry.done():
            self._retry = self._tasks.spawn(self._try_later())

    async def _try_later(self) -> None:
        await asyncio.sleep(self._backoff.next())
        self._again()

    def _again(self) -> None:
        self._waiting += self._failed
        self._failed.clear()
        self._start()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


async def pieces_of(handle: _native.Blob, size: int) -> AsyncIterator[bytes]:
    """The data of a complete blob."""
    for offset in range(0, size, PIECE):
        yield await read_slowly(handle, offset, min(PIECE, size - offset))
