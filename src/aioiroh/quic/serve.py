"""Tasks that serve the streams of a connection.

A task takes the next stream when it is done with one: making a task costs more than many an answer. A
stream that nobody has taken yet is given to a task that waits for one, else to a new task.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import TYPE_CHECKING

from aioiroh import _native
from aioiroh._native import Waiter
from aioiroh.aio import Tasks
from aioiroh.errors import BusyError, ConnectionLostError, StreamResetError, StreamStoppedError
from aioiroh.quic.state import BI
from aioiroh.quic.streams import BiStream

if TYPE_CHECKING:
    from aioiroh.quic.connection import Connection

__all__ = ["serve"]

logger = logging.getLogger("aioiroh.quic")

Handler = Callable[[BiStream], Awaitable[object]]

MAX_IDLE = 4
"""Tasks of one connection that wait for a stream; others end."""
IN_A_ROW = 8
"""Streams that a task serves before others have their turn, and what it said is sent."""


async def serve(connection: Connection, handler: Handler, limit: int) -> None:
    """See `Connection.serve`."""
    if limit < 1:
        raise ValueError("limit must be at least 1")
    state = connection.state
    if state.taker is not None:
        raise BusyError("another task serves this connection")
    workers = _Workers(connection, handler, limit)
    async with workers.tasks:
        state.taker = workers.distribute
        # Streams may be there already.
        state.driver.turns.call(workers.distribute)
        try:
            await connection.closed()
        finally:
            state.taker = None
            workers.ended = True


class _Workers:
    """The tasks that serve one connection."""

    def __init__(self, connection: Connection, handler: Handler, limit: int) -> None:
        self._connection = connection
        self._native = connection.state.native
        self._turns = connection.state.driver.turns
        self._handler = handler
        self._limit = limit
        self._count = 0
        self._idle: list[Waiter[BiStream]] = []
        self.tasks = Tasks("serve")
        self.ended = False

    def distribute(self) -> None:
        """Find a task for the next stream, if there is one. Called inside a turn or by the loop.

        It comes back for the one after that: until then the task may have taken it.
        """
        if self.ended or not (self._idle or self._count < self._limit):
            return
        stream = self._take()
        if stream is None:
            return
        if self._idle:
            self._idle.pop().complete(stream)
        else:
            self._count += 1
            self.tasks.spawn(self._work(stream), name="streams")
        self._turns.call(self.distribute)

    def _take(self) -> BiStream | None:
        """The next stream that the peer has opened; without one an event will tell."""
        try:
            stream = self._native.accept(BI)
        except _native.NativeError:
            # The connection is over.
            return None
        if stream is None:
            return None
        # The peer may open another one in its place.
        self._turns.touch()
        return BiStream(self._connection, stream)

    async def _work(self, first: BiStream) -> None:
        stream: BiStream | None = first
        task = asyncio.current_task()
        assert task is not None
        pristine = copy_context()
        try:
            while True:
                for _ in range(IN_A_ROW):
                    if stream is None:
                        stream = self._take()
                    if stream is None:
                        if len(self._idle) >= MAX_IDLE:
                            return
                        stream = await self._given()
                    await self._answer(stream)
                    stream = None
                    # What a handler leaves behind must not reach the next one.
                    if task.cancelling() or copy_context() != pristine:
                        return
                await asyncio.sleep(0)
        finally:
            self._count -= 1
            self._turns.call(self.distribute)

    async def _given(self) -> BiStream:
        waiter: Waiter[BiStream] = Waiter(self._turns)
        self._idle.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter in self._idle:
                self._idle.remove(waiter)
            raise
        return waiter.value

    async def _answer(self, stream: BiStream) -> None:
        clean = False
        try:
            try:
                await self._handler(stream)
                clean = True
            finally:
                stream.leave(clean)
        except (ConnectionLostError, StreamResetError, StreamStoppedError) as error:
            # The peer went away or lost interest: nothing that this side could do better.
            logger.debug("%r ended: %s", stream, error)
        except Exception:
            logger.exception("the handler of %r failed; the stream was reset", stream)
