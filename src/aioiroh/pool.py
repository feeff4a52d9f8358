"""Shared connections: one per peer and protocol, for as long as somebody uses it or soon will."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aioiroh.address import Dialable, EndpointAddr
from aioiroh.aio import Closing, Tasks
from aioiroh.endpoint import Endpoint
from aioiroh.errors import AioirohError, EndpointClosedError
from aioiroh.keys import EndpointId
from aioiroh.quic import Connection, TransportConfig
from aioiroh.quic.causes import loss_copy

__all__ = ["ConnectionPool"]

IDLE_TIMEOUT = 5.0
MAX_CONNECTIONS = 1024

Key = tuple[EndpointId, bytes]


class ConnectionPool(Closing):
    """Gives out connections and dials only where there is none that lives.

    Who asks for a peer that is being dialled waits for that dial. A connection that nobody uses is
    closed with code 0 after the idle timeout; one that has failed is replaced for the next user. When
    the pool is full an idle connection makes room, or the user waits.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        idle_timeout: float = IDLE_TIMEOUT,
        max_connections: int = MAX_CONNECTIONS,
        connect_timeout: float | None = None,
        transport: TransportConfig | None = None,
    ) -> None:
        """Times in seconds. `connect_timeout` and `transport` are those of `Endpoint.connect`."""
        if max_connections < 1:
            raise ValueError("max_connections must be 1 or more")
        self._endpoint = endpoint
        self._idle_timeout = idle_timeout
        self._max = max_connections
        self._connect_timeout = connect_timeout
        self._transport = transport
        self._shared: dict[Key, _Shared] = {}
        # Unused ones, the one that has been for longest first.
        self._idle: dict[Key, asyncio.TimerHandle] = {}
        # Users for whom there is no room, in order.
        self._waiting: dict[asyncio.Future[None], Key] = {}
        # Whoever waits for a dial learns of its failure.
        self._tasks = Tasks("connection pool", on_error=lambda task, error: None)

    def __len__(self) -> int:
        """Connections that exist or are being dialled."""
        return len(self._shared)

    @asynccontextmanager
    async def connection(self, target: Dialable, alpn: bytes) -> AsyncIterator[Connection]:
        """A connection to use in the block; others may use it, too, so do not close it.

        Addresses in `target` matter only if this dials. Raises what `Endpoint.connect` raises,
        EndpointClosedError after `aclose`.
        """
        addr = EndpointAddr.coerce(target)
        key = addr.id, alpn
        shared = await self._take(key, addr)
        try:
            yield await self._dialled(shared)
        finally:
            self._leave(key, shared)

    async def _dialled(self, shared: _Shared) -> Connection:
        try:
            # Only this user gives up when cancelled: others may wait for the same dial.
            return await asyncio.shield(shared.dial)
        except asyncio.CancelledError:
            if self._tasks.closed and shared.dial.cancelled():
                raise EndpointClosedError(_CLOSED) from None
            raise
        except AioirohError as error:
            # A shared instance would collect the tracebacks of all who wait.
            raise loss_copy(error) from error.__cause__

    async def _take(self, key: Key, addr: EndpointAddr) -> _Shared:
        while True:
            if self._tasks.closed:
                raise EndpointClosedError(_CLOSED)
            shared = self._shared.get(key)
            if shared is not None and shared.is_dead:
                self._remove(key)
                shared = None
            if shared is None:
                if len(self._shared) >= self._max and not self._evict():
                    await self._room(key)
                    continue
                dial = self._tasks.spawn(self._dial(addr, key[1]), name=f"dial {key[0].short()}")
                shared = self._shared[key] = _Shared(dial)
                self._wake_sharers(key)
            timer = self._idle.pop(key, None)
            if timer is not None:
                timer.cancel()
            shared.users += 1
            return shared

    async def _dial(self, addr: EndpointAddr, alpn: bytes) -> Connection:
        return await self._endpoint.connect(
            addr, alpn=alpn, timeout=self._connect_timeout, transport=self._transport
        )

    def _leave(self, key: Key, shared: _Shared) -> None:
        shared.users -= 1
        if shared.users:
            return
        if self._shared.get(key) is not shared:
            shared.close()
        elif shared.is_dead or not shared.dial.done():
            self._remove(key)
        else:
            loop = asyncio.get_running_loop()
            self._idle[key] = loop.call_later(self._idle_timeout, self._remove, key)
            # Somebody who waits for room can have this one's.
            self._wake()

    def _evict(self) -> bool:
        key = next(iter(self._idle), None)
        if key is None:
            return False
        self._remove(key)
        return True

    def _remove(self, key: Key) -> None:
        shared = self._shared.pop(key)
        timer = self._idle.pop(key, None)
        if timer is not None:
            timer.cancel()
        if not shared.users:
            shared.close()
        self._wake()

    async def _room(self, key: Key) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[waiter] = key
        try:
            await waiter
        except asyncio.CancelledError:
            if self._waiting.pop(waiter, None) is None:
                # It was this one's turn; let the next one have it.
                self._wake()
            raise

    def _wake(self) -> None:
        """There is room for one more connection."""
        while self._waiting:
            waiter = next(iter(self._waiting))
            del self._waiting[waiter]
            if not waiter.done():
                waiter.set_result(None)
                return

    def _wake_sharers(self, key: Key) -> None:
        """Those who wait for room to dial this peer need none any more."""
        for waiter in [waiter for waiter, wanted in self._waiting.items() if wanted == key]:
            del self._waiting[waiter]
            if not waiter.done():
                waiter.set_result(None)

    async def aclose(self) -> None:
        """Close all connections with code 0, those in use as well; dials are given up."""
        await self._tasks.aclose()
        for key in tuple(self._shared):
            self._shared[key].close()
            self._remove(key)
        while self._waiting:
            self._wake()


class _Shared:
    """One connection, or the dial that will give it, and how many use it."""

    __slots__ = ("dial", "users")

    def __init__(self, dial: asyncio.Task[Connection]) -> None:
        self.dial = dial
        self.users = 0

    @property
    def _failed(self) -> bool:
        return self.dial.done() and (self.dial.cancelled() or self.dial.exception() is not None)

    @property
    def is_dead(self) -> bool:
        """Whether there is no connection and will be none."""
        if self._failed:
            return True
        return self.dial.done() and self.dial.result().close_reason is not None

    def close(self) -> None:
        if not self.dial.done():
            self.dial.cancel()
        elif not self._failed:
            self.dial.result().close()


_CLOSED = "the connection pool is closed; make a new one"
