"""Several endpoints with routers and pools: whoever asks gets an answer, also after a restart.

As a program it prints fingerprints of the packets of the seeds it is given.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from random import Random

import pytest

from aioiroh import (
    BindError,
    ConnectError,
    ConnectionPool,
    ConnectTimeoutError,
    Endpoint,
    EndpointAddr,
    IpAddr,
    MemoryLookup,
    Router,
    SecretKey,
    testing,
)
from aioiroh.testing import Host, Link, VirtualNetwork, simulated

ALPN = b"aioiroh/test/double"


async def double(connection):
    """Answers each stream with its bytes twice."""

    async def answer(stream):
        await stream.write(2 * await stream.read_all(limit=10_000))

    await connection.serve(answer)


async def serve(host: Host, key: SecretKey, book: MemoryLookup, until: asyncio.Event) -> None:
    """An endpoint of this key, known to everybody, for a while."""
    async with (
        Endpoint.bind(network=host, secret_key=key, lookup=[book]) as endpoint,
        Router(endpoint, {ALPN: double}),
    ):
        book.set(endpoint.addr)
        await until.wait()


async def mesh(network: VirtualNetwork) -> None:
    """Five peers ask each other; one is restarted under load, at another port."""
    random = network.chance("mesh")
    book = MemoryLookup(clock=lambda: network.loop.time())
    links = [Link(latency=random.uniform(0, 0.05), loss=random.choice([0, 0.05])) for _ in range(5)]
    hosts = [network.host(f"peer{number}", link=link) for number, link in enumerate(links)]
    keys = [SecretKey(host.secret(32)) for host in hosts]
    first, rest = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        leaving = group.create_task(serve(hosts[0], keys[0], book, first))
        for host, key in zip(hosts[1:], keys[1:], strict=True):
            group.create_task(serve(host, key, book, rest))
        await asyncio.sleep(0.1)
        async with asyncio.TaskGroup() as askers:
            for number in range(1, 5):
                askers.create_task(ask(network, hosts[number], keys, book, number))
            await asyncio.sleep(random.uniform(0.2, 2))
            first.set()
            await leaving
            first.clear()
            group.create_task(serve(hosts[0], keys[0], book, first))
        first.set()
        rest.set()


async def ask(network, host: Host, keys, book: MemoryLookup, number: int) -> None:
    """Twenty questions to peers at random; a question whose connection breaks is asked again."""
    random = Random(f"{network.seed} asker {number}")
    async with (
        Endpoint.bind(network=host, lookup=[book]) as endpoint,
        ConnectionPool(endpoint, idle_timeout=1.0) as pool,
    ):
        for _ in range(20):
            question = random.randbytes(random.choice([1, 100, 5000]))
            peer = random.choice(keys).public
            for attempt in range(5):
                try:
                    async with asyncio.timeout(20):
                        assert await put(question, pool, peer) == 2 * question
                    break
                except (ConnectionError, TimeoutError):
                    assert attempt < 4
                    await asyncio.sleep(1)
            await asyncio.sleep(random.expovariate(5))


async def put(question: bytes, pool: ConnectionPool, peer) -> bytes:
    async with pool.connection(peer, ALPN) as connection, connection.open_bi() as stream:
        await stream.write(question)
        await stream.finish()
        return await stream.read_all(limit=10_000)


@simulated(seeds=10)
async def test_a_mesh_with_a_restart(network):
    await mesh(network)


def test_a_mesh_repeats(twice):
    first, second = twice(__file__, range(4))
    assert first == second
    assert len(set(first)) == 4


async def bound(network, stack, name, **options):
    host = network.host(name, **options)
    return await stack.enter_async_context(Endpoint.bind(network=host, alpns=[ALPN]))


@simulated()
async def test_the_first_address_that_answers_wins(network):
    """Four of five addresses lead nowhere; dialling takes no longer for them."""
    async with AsyncExitStack() as stack:
        near = await bound(network, stack, "near", link=Link(latency=0.05))
        far = await bound(network, stack, "far", link=Link(latency=0.0))
        accepting = asyncio.ensure_future(accept_one(far))
        addresses = [IpAddr.from_pair((f"101.9.9.{number}", 7)) for number in range(4)] + [
            *far.addr.addrs
        ]
        connection = await near.connect(EndpointAddr(far.id, addresses), alpn=ALPN)
        assert network.loop.time() == pytest.approx(0.1, abs=0.001)
        assert (await accepting).remote_id == near.id
        assert connection.remote_id == far.id


@simulated()
async def test_dialling_nobody_takes_the_idle_timeout_and_says_what_was_tried(network):
    async with AsyncExitStack() as stack:
        near = await bound(network, stack, "near")
        nobody = EndpointAddr(SecretKey(bytes(32)).public, [IpAddr.from_pair(("101.9.9.9", 7))])
        with pytest.raises(ConnectTimeoutError) as failure:
            await near.connect(nobody, alpn=ALPN)
        assert 29 < network.loop.time() < 31
        assert "101.9.9.9:7" in str(failure.value)
        start = network.loop.time()
        with pytest.raises(ConnectTimeoutError):
            await near.connect(nobody, alpn=ALPN, timeout=3)
        assert network.loop.time() - start == pytest.approx(3)


@simulated()
async def test_peers_of_different_ip_versions(network):
    async with AsyncExitStack() as stack:
        four = await bound(network, stack, "four", ipv6=False)
        six = await bound(network, stack, "six", ipv4=False)
        both = await bound(network, stack, "both")
        for near in (four, six):
            accepting = asyncio.ensure_future(accept_one(both))
            async with (
                near.connect(both.addr, alpn=ALPN) as connection,
                await accepting as accepted,
            ):
                assert (connection.remote_id, accepted.remote_id) == (both.id, near.id)
        with pytest.raises(ConnectError):
            await four.connect(six.addr, alpn=ALPN, timeout=5)


@simulated()
async def test_ports_are_taken_and_given_back(network):
    host = network.host()
    async with Endpoint.bind(network=host, bind="0.0.0.0:7000") as endpoint:
        assert endpoint.bound_sockets[0].port == 7000
        with pytest.raises(BindError, match="cannot bind"):
            await Endpoint.bind(network=host, bind="0.0.0.0:7000")
    async with Endpoint.bind(network=host, bind="0.0.0.0:7000"):
        pass


@simulated()
async def test_a_laptop_with_two_interfaces_stays_on_the_one_that_is_left(network):
    """A new connection works when the first interface is down."""
    async with AsyncExitStack() as stack:
        server = await bound(network, stack, "server")
        laptop = network.host("laptop")
        laptop.add_interface("wlan0", link=Link(latency=0.1))
        near = await stack.enter_async_context(Endpoint.bind(network=laptop))
        laptop.interfaces["eth0"].up = False
        accepting = asyncio.ensure_future(accept_one(server))
        connection = await near.connect(server.addr, alpn=ALPN)
        assert connection.rtt == pytest.approx(0.21, abs=0.05)
        await accepting


async def accept_one(endpoint):
    return await (await endpoint.accept()).accept()


if __name__ == "__main__":
    for seed in map(int, sys.argv[1:]):

        async def reported(network: VirtualNetwork) -> str:
            await mesh(network)
            return f"{network.log.fingerprint()} {network.log.count} {network.loop.time()}"

        print(seed, testing.run(reported, seed=seed), flush=True)
