"""What a relay server forwards, in virtual time: between endpoints, and whatever its clients do."""

from __future__ import annotations

import asyncio

from aioiroh import EndpointAddr, RelayAddr, Router, SecretKey
from aioiroh.relayserver import Limits, RateLimit
from aioiroh.testing import simulated
from relay_place import GONE, PING, STATUS, packet, relay

ALPN = b"echo"


async def echo(stream):
    await stream.write(await stream.read_all(limit=1 << 24))
    await stream.finish()


async def serve(connection):
    await connection.serve(echo, limit=10)


async def exchange(connection, size):
    data = bytes(range(251)) * (size // 251 + 1)
    async with connection.open_bi() as stream:
        await stream.write(data)
        await stream.finish()
        assert await stream.read_all(limit=1 << 24) == data


@simulated()
async def test_two_endpoints_meet(network):
    async with (
        relay(network) as place,
        place.endpoint() as client,
        place.endpoint() as server,
        Router(server, {ALPN: serve}),
    ):
        await asyncio.gather(client.online(), server.online())
        there = EndpointAddr(server.id, [RelayAddr(place.server.url)])
        async with client.connect(there, alpn=ALPN) as connection:
            await exchange(connection, 500_000)
        counters = place.server.counters
        assert counters["send_packets_sent"] == counters["send_packets_recv"] > 100
        assert place.server.clients == 2
    assert place.server.clients == 0


@simulated()
async def test_hostile_clients_hurt_themselves_alone(network):
    async with relay(network) as place:
        ours, theirs = SecretKey.generate(), SecretKey.generate()
        victim, friend = await place.client(ours), await place.client(theirs)
        for message in [
            packet(ours, b""),
            packet(ours, b"x" * 65_504),
            packet(ours, b"")[:20],
            b"",
            b"\x0e",
            b"\x06" + bytes(64),
            b"\x09short",
            b"\x0d\x01",
        ]:
            enemy = await place.client()
            enemy.send(packet(ours, b"from the enemy"))
            if len(message) < 65_536:
                enemy.send(message)
            else:
                enemy.write(b"\x82\xff" + len(message).to_bytes(8, "big") + bytes(4) + message)
            await enemy.lost
            assert (await victim.frame())[34:] == b"from the enemy"
            assert (await victim.frame())[0] == GONE
        for bytes_ in [
            b"\x82\x01x",
            b"\xc2\x80\0\0\0\0",
            b"\x80\x80\0\0\0\0",
            b"\x82\xff" + b"\xff" * 8,
        ]:
            enemy = await place.client()
            enemy.write(bytes_)
            await enemy.lost
        # Text is ignored, pings of WebSocket are answered, a message may come in pieces.
        friend.write(b"\x81\x81\0\0\0\0x" + b"\x89\x82\0\0\0\0hi")
        await friend.until(lambda received: received.startswith(b"\x8a\x02hi"))
        message = packet(ours, b"in pieces")
        friend.write(b"\x02\x85" + bytes(4) + message[:5])
        friend.write(b"\x80" + bytes((0x80 | len(message) - 5,)) + bytes(4) + message[5:])
        assert await victim.frame() == b"\x06" + bytes(theirs.public) + b"\0in pieces"
        friend.send(packet(ours, b"abcd", segment=2))
        assert await victim.frame() == b"\x07" + bytes(theirs.public) + b"\0\0\x02abcd"
        # A segment size of zero is none.
        friend.send(packet(ours, b"abcd", segment=0))
        assert await victim.frame() == b"\x06" + bytes(theirs.public) + b"\0abcd"


@simulated()
async def test_a_client_that_does_not_read(network):
    async with relay(network, limits=Limits(stuck_timeout=8)) as place:
        slow_key, key = SecretKey.generate(), SecretKey.generate()
        slow, other, sender = (
            await place.client(slow_key),
            await place.client(key),
            await place.client(),
        )
        slow.transport.pause_reading()
        started = network.loop.time()
        for number in range(900):
            sender.send(packet(slow_key, bytes(10_000)))
            sender.send(packet(key, number.to_bytes(2, "big")))
            await asyncio.sleep(0.01)
        for number in range(900):
            assert (await other.frame())[34:] == number.to_bytes(2, "big")
        # 4 MiB are on the way to it, 1 MiB waits.
        assert 250 < place.server.counters["queue_full_dropped"] < 500
        assert network.loop.time() - started < 10
        # Whoever takes nothing at all is given up.
        await asyncio.sleep(5)
        assert place.server.clients == 2 and not place.server.disconnect(slow_key.public)


@simulated()
async def test_clients_that_are_gone_without_a_word(network):
    async with relay(network) as place:
        raw = await place.client()
        started = network.loop.time()
        frame = await raw.frame()
        assert frame[0] == PING and 16 <= network.loop.time() - started <= 20.5
        raw.send(b"\x0a" + frame[1:])
        frame = await raw.frame()
        # This one is not answered.
        started = network.loop.time()
        await raw.lost
        assert network.loop.time() - started < 1
        assert place.server.clients == 0


@simulated()
async def test_what_waits_for_a_client_that_is_gone_keeps_nothing(network):
    async with relay(network) as place:
        key = SecretKey.generate()
        gone, sender = await place.client(key), await place.client()
        gone.host.up = False
        # Less than would hold the relay up, more than the network takes without an answer.
        sender.send(packet(key, bytes(50_000)))
        await asyncio.sleep(20.5 + 5.5 + 2.5)
        # Neither has answered a ping.
        assert place.server.counters["http_connections_closed"] == 2


@simulated()
async def test_the_same_key_twice(network):
    async with relay(network) as place:
        key, other = SecretKey.generate(), SecretKey.generate()
        old, peer = await place.client(key, version=1), await place.client(other)
        new = await place.client(key)
        assert b"Another connection" in await old.frame()
        peer.send(packet(key, b"hello"))
        assert (await new.frame())[34:] == b"hello"
        assert place.server.disconnect(key.public) is True
        await asyncio.gather(old.lost, new.lost)
        assert place.server.disconnect(key.public) is False
        # Both are gone, so nobody is there any more for the one who had got nothing from it.
        assert place.server.counters["disconnects"] == 2


@simulated()
async def test_a_rate_is_kept_and_told(network):
    rate = RateLimit(bytes_per_second=100_000, max_burst_bytes=50_000)
    async with relay(network, limits=Limits(rate=rate)) as place:
        key = SecretKey.generate()
        receiver, sender = await place.client(key), await place.client()
        started = network.loop.time()
        for _ in range(100):
            sender.send(packet(key, bytes(10_000)))
        for _ in range(100):
            await receiver.frame()
        # A burst is free, the rest takes its time.
        assert 8.5 < network.loop.time() - started < 11
        assert await sender.frame() == bytes((STATUS, 2))
        counters = place.server.counters
        assert counters["conns_rx_ratelimited_total"] == 1
        assert counters["bytes_rx_ratelimited_total"] > 900_000
        place.server.set_rate(None)
        started = network.loop.time()
        for _ in range(100):
            sender.send(packet(key, bytes(10_000)))
        for _ in range(100):
            await receiver.frame()
        assert network.loop.time() - started < 3
