"""Connections on bad networks: what they survive, how they end, and that nothing is lost."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from aioiroh.errors import (
    ApplicationClosedError,
    ConnectionTimeoutError,
    StatelessResetError,
    StreamResetError,
    StreamStoppedError,
)
from aioiroh.quic import TransportConfig
from aioiroh.testing import Link, pair, simulated

MIB = 1 << 20
PAYLOAD = Random(7).randbytes(3 * MIB)


async def exchange(connection, peer, data=PAYLOAD):
    """Sends `data` both ways on one stream, and returns the virtual seconds that it took."""

    async def echo():
        stream = await peer.accept_bi()
        async with stream:
            async for chunk in stream:
                await stream.write(chunk)

    async def send(stream):
        await stream.write(data)
        await stream.finish()

    loop = asyncio.get_running_loop()
    start = loop.time()
    async with asyncio.TaskGroup() as group:
        group.create_task(echo())
        stream = await connection.open_bi()
        group.create_task(send(stream))
        assert await stream.read_all(limit=len(data)) == data
    return loop.time() - start


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.05, 0.1, 0.2])
@simulated(seeds=2)
async def test_loss(network, loss):
    async with pair(network, link=Link(latency=0.02, loss=loss)) as (client, server):
        await exchange(client, server, PAYLOAD[:MIB])
        await exchange(server, client, PAYLOAD[:MIB])
    assert bool(network.log.totals().get("lost")) == bool(loss)


@pytest.mark.parametrize(
    "link",
    [
        Link(latency=0.02, reorder=0.1, reorder_delay=0.04),
        Link(latency=0.02, duplicate=0.2),
        Link(latency=0.02, jitter=0.1),
        Link(latency=0.02, reorder=0.05, duplicate=0.1, jitter=0.01, loss=0.02),
        Link(latency=0.3, loss=0.015, bandwidth=25e6),
        Link(latency=0.0),
        Link(latency=0.001, mtu=1280),
    ],
    ids=["reorder", "duplicate", "jitter", "mixed", "satellite", "instant", "small packets"],
)
@simulated(seeds=2)
async def test_bad_links(network, link):
    async with pair(network, link=link) as (client, server):
        await exchange(client, server)


@simulated()
async def test_a_narrow_link_is_used_well(network):
    link = Link(latency=0.02, bandwidth=8e6, queue=64_000)
    async with pair(network, link=link) as (client, server):
        # 3 MiB each way at once: 3.1 s are the least.
        assert await exchange(client, server) < 4.5


@simulated()
async def test_marks_of_congestion_slow_the_sender_down_before_anything_is_lost(network):
    link = Link(latency=0.02, bandwidth=8e6, queue=128_000, mark_above=16_000)
    async with pair(network, link=link) as (client, server):
        # Beyond slow start, which finds the end of the queue by running into it.
        await exchange(client, server, PAYLOAD[:MIB])
        dropped = network.log.totals().get("queue full", 0)
        await exchange(client, server)
        assert network.log.totals().get("queue full", 0) == dropped


@simulated()
async def test_larger_packets_are_found_and_lost_again(network):
    async with pair(network, link=Link(latency=0.01)) as (client, server):
        await exchange(client, server)
        assert client.state.native.info()["mtu"] == 1452
        network.hosts["client"].set_link(Link(latency=0.01, mtu=1300))
        await exchange(client, server)
        assert client.state.native.info()["mtu"] < 1300


@pytest.mark.parametrize("outage", [0.5, 5.0, 12.0, 25.0])
@simulated(seeds=3)
async def test_an_outage_shorter_than_the_idle_timeout(network, outage):
    """A transfer goes on, and so does an idle connection."""
    async with pair(network, link=Link(latency=0.02)) as (client, server):
        transfer = asyncio.create_task(exchange(client, server))
        await asyncio.sleep(0.1)
        network.hosts["client"].up = False
        await asyncio.sleep(outage)
        assert not transfer.done()
        network.hosts["client"].up = True
        assert await transfer < 2.5 * outage + 5

        await asyncio.sleep(60)
        network.hosts["server"].up = False
        await asyncio.sleep(outage)
        network.hosts["server"].up = True
        await asyncio.sleep(60)
        await exchange(client, server, b"still there")


@simulated(seeds=3)
async def test_an_outage_longer_than_the_idle_timeout_ends_both_ends(network):
    async with pair(network) as (client, server):
        reader = asyncio.create_task(server.accept_uni())
        await asyncio.sleep(1)
        network.hosts["client"].up = False
        start = network.loop.time()
        for connection in (client, server):
            assert isinstance(await connection.closed(), ConnectionTimeoutError)
        assert 20 < network.loop.time() - start < 45
        with pytest.raises(ConnectionTimeoutError):
            await reader


@simulated(seeds=3)
async def test_an_idle_connection_survives_by_keep_alives(network):
    async with pair(network, link=Link(latency=0.05, loss=0.05)) as (client, server):
        before = network.log.count
        await asyncio.sleep(600)
        assert client.close_reason is server.close_reason is None
        # A ping each 5 s and its acknowledgement, from both sides; sent and received.
        assert 200 < network.log.count - before < 1500
        await exchange(client, server, b"still there")


@simulated(seeds=3)
async def test_what_is_acknowledged_has_reached_the_peer(network):
    """The sender is gone before the reader looks: everything acknowledged is there to be read."""
    async with pair(network, link=Link(latency=0.02, loss=0.1)) as (client, server):
        data = PAYLOAD[:500_000]
        stream = await client.open_uni()
        await stream.write(data)
        await stream.finish()
        await stream.acked()
        network.hosts["client"].up = False
        client.close(9)
        assert isinstance(await server.closed(), ConnectionTimeoutError)
        received = await server.accept_uni()
        assert await received.read_all(limit=len(data)) == data


@simulated(seeds=3)
async def test_leaving_a_connection_waits_for_what_was_finished(network):
    async with pair(network, link=Link(latency=0.02, loss=0.05)) as (client, server):
        async with client, client.open_uni() as stream:
            await stream.write(PAYLOAD[:200_000])
        received = await server.accept_uni()
        assert await received.read_all(limit=200_000) == PAYLOAD[:200_000]
        reason = await server.closed()
        # The close itself may be lost; then silence tells, or an answer to a later packet.
        kinds = (ApplicationClosedError, StatelessResetError, ConnectionTimeoutError)
        assert isinstance(reason, kinds)


@simulated(seeds=5)
async def test_resets_and_stops_carry_their_codes(network):
    async with pair(network, link=Link(latency=0.02, loss=0.1)) as (client, server):
        stream = await client.open_bi()
        await stream.write(b"begins")
        peer = await server.accept_bi()
        assert await peer.read() == b"begins"
        stream.send.reset(41)
        with pytest.raises(StreamResetError) as reset:
            await peer.read()
        assert reset.value.code == 41
        stream.recv.stop(42)
        with pytest.raises(StreamStoppedError) as stopped:
            while True:
                await peer.write(bytes(1000))
                await asyncio.sleep(0.01)
        assert stopped.value.code == 42
        assert await peer.send.stopped() == 42


@simulated(seeds=5)
async def test_a_close_carries_its_code_and_reason(network):
    async with pair(network, link=Link(latency=0.02)) as (client, server):
        server.close(77, b"enough")
        reason = await client.closed()
        assert isinstance(reason, ApplicationClosedError)
        assert (reason.code, reason.reason) == (77, b"enough")


@simulated(seeds=2)
async def test_datagrams_arrive_unchanged_or_not_at_all(network):
    async with pair(network, link=Link(latency=0.02, loss=0.1, duplicate=0.1)) as (client, server):
        sent = [number.to_bytes(2, "big") * 300 for number in range(1000)]
        received = []

        async def receive():
            async for datagram in server.datagrams():
                received.append(datagram)

        reader = asyncio.create_task(receive())
        for datagram in sent:
            await client.send_datagram_wait(datagram)
            await asyncio.sleep(0.02)
        await asyncio.sleep(10)
        reader.cancel()
        # One in ten is lost, none comes twice, and order is kept where the network keeps it.
        assert 850 < len(received) < 950
        assert received == [datagram for datagram in sent if datagram in set(received)]


@simulated(seeds=2)
async def test_unread_datagrams_are_bounded_and_the_oldest_go_first(network):
    transport = TransportConfig(datagram_receive_buffer=50_000)
    async with pair(network, transport=transport) as (client, server):
        for number in range(200):
            client.send_datagram(bytes([number]) * 1000)
            await asyncio.sleep(0.01)
        await asyncio.sleep(1)
        server_has = []
        while len(server_has) < 48:
            server_has.append((await server.read_datagram())[0])
        assert server_has == list(range(152, 200))


@simulated()
async def test_a_sleeping_reader_loses_nothing(network):
    """60 s asleep under twenty streams of 1 MB in packets of 200 bytes."""
    streams, size, piece = 20, 1_000_000, 200
    window = 16 * MIB
    data = [Random(number).randbytes(size) for number in range(streams)]
    most = 0

    async def send(connection, number):
        # Streams take turns, so that each piece is a packet of its own.
        await asyncio.sleep(number * 0.0001)
        async with connection.open_uni() as stream:
            for start in range(0, size, piece):
                await stream.write(data[number][start : start + piece])
                await asyncio.sleep(streams * 0.0001)
        await stream.acked()

    async def receive(connection, number, stream):
        received = await stream.read_all(limit=size)
        assert received in data
        data[data.index(received)] = None

    async def watch(connection):
        nonlocal most
        while True:
            most = max(most, connection.state.native.info()["stashed"])
            await asyncio.sleep(0.1)

    async with pair(network, link=Link(latency=0.005)) as (client, server):
        watcher = asyncio.create_task(watch(server))
        async with asyncio.TaskGroup() as group:
            for number in range(streams):
                group.create_task(send(client, number))
            await asyncio.sleep(60)
            assert client.close_reason is server.close_reason is None
            assert server.stats()["udp_rx_datagrams"] > 70_000
            for number in range(streams):
                group.create_task(receive(server, number, await server.accept_uni()))
        watcher.cancel()
    assert data == [None] * streams
    assert 4 * MIB < most <= window


@pytest.mark.loops
async def test_a_pair_in_real_time():
    async with pair(link=Link(latency=0.001)) as (client, server):
        await exchange(client, server, PAYLOAD[:200_000])


@simulated(seeds=2)
async def test_a_request_costs_one_datagram_each_way(network):
    """Tasks go on before the engine sends: acknowledgements leave with what they answer."""
    async with pair(network, link=Link(latency=0.005)) as (client, server):

        async def answer(stream):
            await stream.write(await stream.read_all(limit=100))

        serving = asyncio.create_task(server.serve(answer))

        async def ask():
            async with client.open_bi() as stream:
                await stream.write(b"question")
                await stream.finish()
                assert await stream.read_all(limit=100) == b"question"

        for _ in range(5):
            await ask()
        # Whatever the handshake still had to say has been said.
        await asyncio.sleep(1)
        await ask()
        before = network.log.totals()["sent"]
        for _ in range(50):
            await ask()
        assert network.log.totals()["sent"] - before == 100
        # However many tasks go on in a turn, the engine sends once.
        before = network.log.totals()["sent"]
        await asyncio.gather(*(ask() for _ in range(30)))
        assert network.log.totals()["sent"] - before < 15
        serving.cancel()


@simulated()
async def test_own_data_on_the_way_do_not_make_another_path_look_better(network):
    # A queue of 100 ms at a slow link, and an address of the other IP version that looks idle.
    link = Link(latency=0.02, bandwidth=20e6)
    async with pair(network, link=link) as (client, server):
        seen = set()

        async def watch():
            async for paths in client.paths:
                seen.update(path.remote for path in paths if path.status == "available")

        watching = asyncio.create_task(watch())
        for _ in range(4):
            await exchange(client, server)
        watching.cancel()
        assert len({remote[0] for remote in seen}) == 1
