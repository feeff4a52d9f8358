"""Traffic that knows what must arrive: what a reader got is a prefix of what was written, always."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from random import Random

from aioiroh import Connection

PIECE = 16_384


@lru_cache(maxsize=64)
def _piece(name: str, number: int) -> bytes:
    return Random(f"{name} {number}").randbytes(PIECE)


def content(name: str, start: int, size: int) -> bytes:
    """Bytes of an endless text that `name` stands for."""
    numbers = range(start // PIECE, -(-(start + size) // PIECE))
    whole = b"".join(_piece(name, number) for number in numbers)
    return whole[start % PIECE :][:size]


class Flow:
    """One stream from `source` to `target`: `size` bytes (None: until `stop`), `rate` bytes a second (None: as
    fast as they go), a piece each `tick` seconds.

    Await `done` for the end: then everything was acknowledged, and the reader has it all.
    """

    def __init__(
        self,
        source: Connection,
        target: Connection,
        *,
        size: int | None = None,
        rate: float | None = None,
        tick: float = 0.05,
        name: str = "flow",
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._size = size
        self._rate = rate
        self._tick = tick
        self._name = name
        self._stopping = False
        self._last = self._loop.time()
        self.written = 0
        self.received = 0
        self._longest = 0.0
        self.done = asyncio.gather(self._send(source), self._receive(target))

    async def _send(self, connection: Connection) -> None:
        async with connection.open_uni() as stream:
            while not self._stopping and self.written != self._size:
                size = PIECE if self._size is None else min(PIECE, self._size - self.written)
                if self._rate is not None:
                    size = min(size, max(round(self._rate * self._tick), 1))
                    await asyncio.sleep(size / self._rate)
                data = content(self._name, self.written, size)
                self.written += size
                await stream.write(data)
            await stream.finish()
            await stream.acked()

    async def _receive(self, connection: Connection) -> None:
        stream = await connection.accept_uni()
        self._last = self._loop.time()
        while data := await stream.read(PIECE):
            now = self._loop.time()
            self._longest = self.longest
            self._last = now
            expected = content(self._name, self.received, len(data))
            assert data == expected, f"{self._name}: other bytes than were written"
            self.received += len(data)
            assert self.received <= self.written, f"{self._name}: more bytes than were written"
        assert self.received == self.written, f"{self._name}: the end came too early"

    @property
    def longest(self) -> float:
        """Seconds of the longest silence that the reader saw, or sees."""
        return max(self._longest, self._loop.time() - self._last)

    def watch_again(self) -> None:
        """Forget the silences so far."""
        self._longest = 0.0
        self._last = self._loop.time()

    async def stop(self) -> None:
        """Write no more, and wait for the end."""
        self._stopping = True
        await self.done
