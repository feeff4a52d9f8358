"""Custom transports: datagrams of endpoints in a way of their own, here through memory."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from aioiroh import ConnectError, CustomAddr, CustomTransport, Endpoint, EndpointAddr, SecretKey
from aioiroh import custom as rules
from aioiroh.testing import Link, simulated

ALPN = b"custom"
NUMBER = 0x20


class Wire:
    """Joins transports by their names; every datagram takes `latency`."""

    def __init__(self, network, latency=0.01, loss=0.0):
        self.network = network
        self.latency = latency
        self.loss = loss
        self.ends = {}
        self.chance = network.chance("wire")

    def carry(self, source, target, datagram):
        end = self.ends.get(target.data)
        if end is not None and self.chance.random() >= self.loss:
            self.network.loop.call_later(self.latency, end.port.received, source, datagram)


class Memory(CustomTransport):
    id = NUMBER

    def __init__(self, wire, name):
        self.wire = wire
        self.own = CustomAddr(NUMBER, name)
        self.closed = False

    async def start(self, port):
        self.port = port
        self.wire.ends[self.own.data] = self
        port.set_local_addrs([self.own])

    def send(self, address, datagram):
        assert 0 < len(datagram) <= 1500
        self.wire.carry(self.own, address, datagram)

    async def aclose(self):
        self.closed = True
        del self.wire.ends[self.own.data]


@asynccontextmanager
async def two(network, wire, **options):
    near, far = Memory(wire, b"near"), Memory(wire, b"far")
    async with (
        Endpoint.bind(
            network=network.host("far"), alpns=[ALPN], custom_transports=[far], **options
        ) as server,
        Endpoint.bind(network=network.host("near"), custom_transports=[near], **options) as client,
    ):
        yield client, server
    assert near.closed and far.closed and not wire.ends


async def meet(client, server, target):
    accepting = asyncio.ensure_future(server.accept())
    connecting = asyncio.ensure_future(client.connect(target, alpn=ALPN))
    accepted = await (await accepting).accept()
    return await connecting, accepted


async def exchange(connection, peer, size=200_000):
    async def serve():
        stream = await peer.accept_bi()
        await stream.write(await stream.read_all(limit=1 << 22))
        await stream.finish()

    serving = asyncio.ensure_future(serve())
    async with connection.open_bi() as stream:
        await stream.write(bytes(size))
        await stream.finish()
        assert await stream.read_all(limit=1 << 22) == bytes(size)
    await serving


@simulated(seeds=3)
async def test_nothing_but_a_custom_transport(network):
    wire = Wire(network, loss=0.05)
    async with two(network, wire, bind=()) as (client, server):
        address = CustomAddr(NUMBER, b"far")
        assert server.addr.addrs == (address,)
        connection, accepted = await meet(client, server, server.addr)
        await exchange(connection, accepted)
        (path,) = connection.paths.value
        assert (path.custom, path.relay) == (address, None)
        assert accepted.paths.value[0].custom == CustomAddr(NUMBER, b"near")
        (known,) = client.remote_info(server.id).addresses
        assert (known.addr, known.is_active) == (address, True)
        counted = client.metrics.snapshot()["socket"]
        assert (counted["paths_custom"], counted["paths_direct"]) == (1, 0)
        assert counted["recv_data_custom"] > 200_000
        connection.close()
        await accepted.closed()
        # By the id alone, since the address is remembered.
        connection, accepted = await meet(client, server, server.id)
        await exchange(connection, accepted, 10)


@simulated()
async def test_a_shorter_way_is_found_beside_it(network):
    network.link = Link(latency=0.005)
    async with two(network, Wire(network, latency=0.2)) as (client, server):
        target = EndpointAddr(server.id, [CustomAddr(NUMBER, b"far")])
        connection, accepted = await meet(client, server, target)
        assert connection.paths.value[0].custom is not None
        await connection.paths.wait_for(
            lambda paths: (
                {(p.custom is None, p.status) for p in paths}
                == {(True, "available"), (False, "backup")}
            )
        )
        await exchange(connection, accepted)


@simulated()
async def test_what_goes_wrong(network, caplog):
    wire = Wire(network)
    async with two(network, wire) as (client, server):
        with pytest.raises(ConnectError, match="no custom transport 99"):
            target = EndpointAddr(SecretKey.generate().public, [CustomAddr(0x99, b"x")])
            await client.connect(target, alpn=ALPN)
        end = wire.ends[b"near"]
        with pytest.raises(ValueError, match="no address of transport 20"):
            end.port.set_local_addrs([CustomAddr(0x21, b"x")])
        for junk in (b"", b"x", bytes(70_000), bytes(2000)):
            end.port.received(CustomAddr(NUMBER, b"stranger"), junk)
        # A mistake of the transport is its own.
        connection, accepted = await meet(client, server, server.addr)
        end.send = None
        await exchange(connection, accepted)
        connection.close()
    with pytest.raises(ValueError, match="two custom transports 20"):
        await Endpoint.bind(
            network=network.host(), custom_transports=[Memory(wire, b"a"), Memory(wire, b"b")]
        )


@simulated()
async def test_peers_are_bounded(network, monkeypatch):
    monkeypatch.setattr(rules, "MAX_PEERS", 8)
    wire = Wire(network)
    async with two(network, wire, bind=()) as (client, server):
        connection, accepted = await meet(client, server, server.addr)
        port = wire.ends[b"far"].port
        for number in range(1000):
            port.received(CustomAddr(NUMBER, b"%d" % number), b"not QUIC")
            if number % 5 == 0:
                await exchange(connection, accepted, 10)
        (carrier,) = server._where._carriers
        assert len(carrier._by_ip) == 8
