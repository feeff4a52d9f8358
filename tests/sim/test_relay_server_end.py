"""The end of a relay server, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from aioiroh import SecretKey
from aioiroh.relayserver import Allow, RelayServer, server
from aioiroh.testing import simulated
from relay_place import RESTARTING, Raw, packet, relay


@pytest.fixture
def one_a_second(monkeypatch):
    """Clients of a relay that restarts are sent away more slowly, so that more happens meanwhile."""
    monkeypatch.setattr(server, "LEAVING", 1)


async def told(raw):
    """After how many seconds the relay wants to see this client again."""
    frame = await raw.frame()
    assert frame[0] == RESTARTING and len(frame) == 9
    return int.from_bytes(frame[1:5], "big") / 1000


@simulated()
async def test_a_relay_that_drains(network, one_a_second):
    async with relay(network) as place:
        key = SecretKey.generate()
        clients = [await place.client(), await place.client(key), await place.client()]
        knocking = await place.raw()
        started, address = network.loop.time(), place.server.http_address
        draining = asyncio.ensure_future(place.server.drain(5))
        assert [await told(raw) for raw in clients] == [1, 2, 3]
        # Who is not in yet need not wait.
        await knocking.lost
        assert network.loop.time() - started < 0.5
        with pytest.raises(ConnectionRefusedError):
            await network.host("late").connect_tcp(Raw, *address)
        clients[2].send(packet(key, b"still forwarded"))
        assert (await clients[1].frame())[34:] == b"still forwarded"
        for turn, raw in enumerate(clients, 1):
            await raw.lost
            assert turn <= network.loop.time() - started < turn + 0.5
        await asyncio.gather(draining, place.server.closed())
        assert network.loop.time() - started < 3.5
    assert place.server.clients == 0


@simulated()
async def test_all_leave_within_the_time(network, one_a_second):
    async with relay(network) as place:
        clients = [await place.client() for _ in range(4)]
        started = network.loop.time()
        draining = asyncio.ensure_future(place.server.drain(2))
        assert [await told(raw) for raw in clients] == [0.5, 1, 1.5, 2]
        await draining
        assert 2 <= network.loop.time() - started < 2.5


@simulated()
async def test_nobody_waits_for_those_who_have_left(network, one_a_second):
    async with relay(network) as place:
        clients = [await place.client() for _ in range(3)]
        draining = asyncio.ensure_future(place.server.drain(5))
        await asyncio.sleep(0.2)
        for raw in clients:
            raw.transport.close()
        async with asyncio.timeout(0.5):
            await draining


@simulated()
async def test_clients_come_to_the_next_relay_at_the_time_they_were_told(network, one_a_second):
    async with relay(network) as place, place.endpoint() as first, place.endpoint() as second:
        await asyncio.gather(first.online(), second.online())
        await asyncio.sleep(5)  # long enough for a connection that was of use
        started, address = network.loop.time(), place.server.http_address
        draining = asyncio.ensure_future(place.server.drain(5))
        await asyncio.sleep(0)
        came = []

        async def access(request):
            came.append((request.endpoint_id, network.loop.time() - started))
            return Allow()

        async with RelayServer.bind(http=address, access=access, network=place.host) as after:
            await draining
            while after.clients < 2:
                await asyncio.sleep(0.1)
        assert {who for who, _ in came} == {first.id, second.id}
        for turn, (_, at) in enumerate(came, 1):
            assert turn <= at < turn + 0.5


@simulated()
async def test_a_relay_that_ends_writes_what_waits(network):
    key = SecretKey.generate()
    async with relay(network) as place:
        receiver, sender = await place.client(key), await place.client()
        sender.send(packet(key, bytes(60_000)))
        await asyncio.sleep(0.2)
    assert len(await receiver.frame()) == 60_034
    await receiver.lost
    with pytest.raises(OSError):
        async with place.endpoint() as endpoint:
            await asyncio.wait_for(endpoint.online(), 5)


@simulated()
async def test_an_end_that_is_not_waited_for(network):
    async with relay(network) as place:
        key = SecretKey.generate()
        gone, sender = await place.client(key), await place.client()
        gone.host.up = False
        sender.send(packet(key, bytes(50_000)))
        await asyncio.sleep(1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await place.server.aclose()
        await asyncio.sleep(0)
        assert place.server.counters["http_connections_closed"] == 2
        await place.server.closed()
