"""The pool: one connection per peer and protocol, dialled once, replaced when it fails."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from aioiroh import (
    ConnectError,
    Connection,
    ConnectionPool,
    Endpoint,
    EndpointAddr,
    EndpointClosedError,
    Router,
    SecretKey,
    presets,
)

ALPN, OTHER = b"test/1", b"other/1"


def bind(**options):
    return Endpoint.bind(preset=presets.loopback, **options)


class Server:
    """Keeps what connects to it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.connections: list[Connection] = []

    async def accept(self, connection: Connection) -> None:
        self.connections.append(connection)
        await connection.closed()

    @property
    def alive(self) -> int:
        return sum(connection.close_reason is None for connection in self.connections)


@asynccontextmanager
async def pooled(**options) -> AsyncIterator[tuple[ConnectionPool, Server]]:
    """A pool on a client, and a server."""
    async with bind() as endpoint, bind() as client:
        server = Server(endpoint)
        async with (
            Router(endpoint, {ALPN: server, OTHER: server}),
            ConnectionPool(client, **options) as pool,
        ):
            yield pool, server


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.loops
async def test_a_connection_is_shared():
    async with pooled() as (pool, server):
        async with pool.connection(server.endpoint, ALPN) as one:
            async with pool.connection(server.endpoint.addr, ALPN) as two:
                assert one is two
            async with pool.connection(server.endpoint, OTHER) as three:
                assert three is not one
                assert three.alpn == OTHER
        async with pool.connection(server.endpoint, ALPN) as again:
            assert again is one
        assert len(pool) == 2
        assert len(server.connections) == 2
    assert one.close_reason is not None


@pytest.mark.loops
async def test_dials_at_the_same_time_are_one():
    async with pooled() as (pool, server):

        async def use() -> Connection:
            async with pool.connection(server.endpoint, ALPN) as connection:
                await asyncio.sleep(0.01)
                return connection

        used = await asyncio.gather(*(use() for _ in range(20)))
        assert len(set(map(id, used))) == 1
        assert len(server.connections) == 1


async def test_who_gives_up_waiting_does_not_stop_the_others():
    async with pooled() as (pool, server):

        async def use() -> Connection:
            async with pool.connection(server.endpoint, ALPN) as connection:
                return connection

        tasks = [asyncio.ensure_future(use()) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(outcomes[0], asyncio.CancelledError)
        assert outcomes[1] is outcomes[2]


async def test_a_dial_that_nobody_waits_for_is_given_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        target = EndpointAddr(SecretKey.generate().public).with_ip(*silent.getsockname())
        async with bind() as client, ConnectionPool(client) as pool:

            async def use() -> None:
                async with pool.connection(target, ALPN):
                    raise AssertionError

            task = asyncio.ensure_future(use())
            await asyncio.sleep(0.05)
            assert len(pool) == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(pool) == 0
            await until(lambda: not client._roster.dials)


async def test_idle_connections_are_closed_in_time():
    async with pooled(idle_timeout=0.1) as (pool, server):
        async with pool.connection(server.endpoint, ALPN) as connection:
            await asyncio.sleep(0.2)
            assert connection.close_reason is None
        async with pool.connection(server.endpoint, ALPN) as same:
            assert same is connection
        await until(lambda: len(pool) == 0)
        assert connection.close_reason is not None
        await until(lambda: server.alive == 0)


async def test_failed_connections_are_replaced():
    async with pooled() as (pool, server):
        async with pool.connection(server.endpoint, ALPN) as first:
            server.connections[0].close(5)
            await first.closed()
            # Also while the failed one is still held.
            async with pool.connection(server.endpoint, ALPN) as second:
                assert second is not first
        async with pool.connection(server.endpoint, ALPN) as third:
            assert third is second
        assert len(pool) == 1


async def test_a_failed_dial_is_everybodys_failure_once():
    async with bind() as silent, bind() as client, ConnectionPool(client) as pool:

        async def use() -> None:
            async with pool.connection(silent, ALPN):
                raise AssertionError

        outcomes = await asyncio.gather(*(use() for _ in range(3)), return_exceptions=True)
        assert all(isinstance(outcome, ConnectError) for outcome in outcomes)
        assert len({id(outcome) for outcome in outcomes}) == 3
        assert len(pool) == 0


async def test_connect_timeout():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        target = EndpointAddr(SecretKey.generate().public).with_ip(*silent.getsockname())
        async with bind() as client, ConnectionPool(client, connect_timeout=0.1) as pool:
            with pytest.raises(TimeoutError):
                async with pool.connection(target, ALPN):
                    raise AssertionError


async def test_a_full_pool_evicts_the_idle_and_makes_others_wait():
    async with pooled(max_connections=1) as (pool, server):
        async with pool.connection(server.endpoint, ALPN) as one:
            pass
        async with pool.connection(server.endpoint, OTHER) as other:
            assert one.close_reason is not None

            async def use() -> Connection:
                async with pool.connection(server.endpoint, ALPN) as connection:
                    return connection

            waiting = [asyncio.ensure_future(use()) for _ in range(3)]
            await asyncio.sleep(0.05)
            assert not any(task.done() for task in waiting)
            waiting.pop(0).cancel()
        async with asyncio.timeout(5):
            used = await asyncio.gather(*waiting)
        assert used[0] is used[1]
        assert other.close_reason is not None
        assert len(pool) == 1


@pytest.mark.loops
async def test_closing_the_pool():
    async with pooled() as (pool, server):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            target = EndpointAddr(SecretKey.generate().public).with_ip(*silent.getsockname())

            async def use() -> None:
                async with pool.connection(target, ALPN):
                    raise AssertionError

            dialling = asyncio.ensure_future(use())
            async with pool.connection(server.endpoint, ALPN) as connection:
                await pool.aclose()
                assert connection.close_reason is not None
            with pytest.raises(EndpointClosedError):
                await dialling
            with pytest.raises(EndpointClosedError):
                async with pool.connection(server.endpoint, ALPN):
                    raise AssertionError
            await pool.aclose()


async def test_a_pool_has_room_for_something():
    async with bind() as client:
        with pytest.raises(ValueError, match="max_connections"):
            ConnectionPool(client, max_connections=0)


async def test_who_waits_for_room_shares_what_another_dialled_meanwhile():
    async with pooled(max_connections=1) as (pool, server), bind() as endpoint:
        other = Server(endpoint)
        users: list[int] = []

        async def use(number: int) -> None:
            async with pool.connection(other.endpoint, ALPN):
                users.append(number)
                await asyncio.sleep(60)

        async with Router(endpoint, {ALPN: other}):
            async with pool.connection(server.endpoint, ALPN):
                tasks = [asyncio.create_task(use(number)) for number in range(3)]
                await asyncio.sleep(0.02)
            await until(lambda: len(users) == 3)
            assert other.alive == 1
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def test_who_gives_up_waiting_for_room_is_forgotten():
    async with (
        pooled(max_connections=1) as (pool, server),
        pool.connection(server.endpoint, ALPN),
    ):
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01), pool.connection(server.endpoint, OTHER):
                    pass
        assert not pool._waiting
