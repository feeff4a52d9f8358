"""Dialling on bad networks, in virtual time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from aioiroh import (
    Connection,
    ConnectTimeoutError,
    Endpoint,
    EndpointAddr,
    LookupItem,
    LookupService,
    Router,
    SecretKey,
)
from aioiroh.lookup import EndpointData
from aioiroh.testing import Link, simulated

ALPN = b"test/1"
NOBODY = [("198.51.100.1", 5), ("198.51.100.2", 5), ("2001:db8::1", 5)]


async def hold(connection: Connection) -> None:
    await connection.closed()


def also_nowhere(addr: EndpointAddr) -> EndpointAddr:
    for pair in NOBODY:
        addr = addr.with_ip(*pair)
    return addr


@asynccontextmanager
async def serving(network, name="server", **options):
    async with (
        Endpoint.bind(network=network.host(name, **options)) as endpoint,
        Router(endpoint, {ALPN: hold}),
    ):
        yield endpoint


def now() -> float:
    return asyncio.get_running_loop().time()


@simulated()
async def test_nobody_answers_for_thirty_seconds(network):
    async with Endpoint.bind(network=network.host()) as client:
        started = now()
        with pytest.raises(ConnectTimeoutError) as caught:
            await client.connect(also_nowhere(EndpointAddr(SecretKey(bytes(32)).public)), alpn=ALPN)
        assert now() - started == pytest.approx(30, abs=0.1)
        assert {attempt.reason for attempt in caught.value.attempts} == {"no answer"}
        assert len(caught.value.attempts) == len(NOBODY)


@simulated(seeds=2)
async def test_the_nearest_of_several_addresses_wins(network):
    link = Link(latency=0.05)
    async with (
        serving(network, link=link) as server,
        Endpoint.bind(network=network.host(link=link)) as client,
    ):
        started = now()
        connection = await client.connect(also_nowhere(server.addr), alpn=ALPN)
        # One round trip for the handshake, and a little for the simulated machines.
        assert now() - started < 0.25
        assert connection.paths.value[0].remote in [ip.pair for ip in server.addr.ip_addrs]
        connection.close()


@simulated(seeds=3)
async def test_dials_survive_loss(network):
    link = Link(latency=0.02, loss=0.1, jitter=0.01, duplicate=0.05)
    async with (
        serving(network, link=link) as server,
        Endpoint.bind(network=network.host(link=link)) as client,
    ):
        target = also_nowhere(server.addr)

        async def one() -> None:
            async with client.connect(target, alpn=ALPN) as connection:
                assert connection.remote_id == server.id

        await asyncio.gather(*(one() for _ in range(30)))


class Late(LookupService):
    """Knows the answer after a while."""

    provenance = "late"

    def __init__(self, delay: float, addr: EndpointAddr) -> None:
        self.delay, self.addr = delay, addr

    async def resolve(self, id):
        await asyncio.sleep(self.delay)
        yield LookupItem(id, EndpointData(self.addr.addrs), self.provenance)


@pytest.mark.parametrize("delay", [0.0, 0.3, 2.0, 20.0])
@simulated()
async def test_an_address_that_comes_late_is_used_at_once(network, delay):
    link = Link(latency=0.02)
    async with serving(network, link=link) as server:
        late = Late(delay, server.addr)
        async with Endpoint.bind(network=network.host(link=link), lookup=[late]) as client:
            started = now()
            async with client.connect(
                also_nowhere(EndpointAddr(server.id)), alpn=ALPN
            ) as connection:
                assert connection.remote_id == server.id
                assert now() - started < delay + 0.15


@simulated(seeds=3)
async def test_many_strangers_among_the_addresses(network):
    """Whoever answers first, the right peer is found in the end, and soon."""
    async with (
        serving(network, link=Link(latency=0.1)) as server,
        serving(network, "near", link=Link(latency=0.001)) as near,
        serving(network, "far", link=Link(latency=0.08)) as far,
        Endpoint.bind(network=network.host()) as client,
    ):
        addrs = [*server.addr.addrs, *near.addr.addrs, *far.addr.addrs]
        started = now()
        async with client.connect(EndpointAddr(server.id, addrs), alpn=ALPN) as connection:
            assert connection.remote_id == server.id
            assert now() - started < 1.5


@simulated(seeds=2)
async def test_a_peer_that_comes_back_is_reached_again(network):
    key = SecretKey(bytes(range(32)))
    host, client_host = network.host("server"), network.host("client")
    async with Endpoint.bind(network=client_host) as client:
        addr = None
        for _ in range(3):
            binding = Endpoint.bind(network=host, secret_key=key, bind=("0.0.0.0", 4433))
            async with binding as endpoint, Router(endpoint, {ALPN: hold}):
                addr = addr or endpoint.addr
                connection = await client.connect(addr, alpn=ALPN)
                assert connection.remote_id == key.public
            await connection.closed()
