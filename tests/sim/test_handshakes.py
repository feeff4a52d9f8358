"""How many round trips things take; in virtual time that can be counted exactly."""

from __future__ import annotations

import asyncio

import pytest

from aioiroh import ConnectError, Endpoint, Router
from aioiroh.testing import Link, simulated
from boxes import Box

ALPN = b"aioiroh/test/handshakes"
RTT = 0.2


async def echo(connection):
    async for stream in connection.incoming_bi():
        async with stream:
            await stream.write(await stream.read_all(limit=1000))


async def ask(connection, question=b"?"):
    async with connection.open_bi() as stream:
        await stream.write(question)
        await stream.finish()
        return await stream.read_all(limit=1000)


class Echo:
    """A handler that takes early data."""

    async def on_accepting(self, incoming):
        return incoming.accept_early()

    async def accept(self, connection):
        await echo(connection)


def hosts(network, link=None):
    link = link or Link(latency=RTT / 2)
    server = network.host("server", link=Link(latency=0.0), ipv6=False)
    return server, network.host("client", link=link)


class RoundTrips:
    """Counts from when it was made. The sender's pacing adds up to a quarter: 27 ms a packet at first."""

    def __init__(self, network):
        self.network = network
        self.start = network.loop.time()

    def __call__(self):
        return int((self.network.loop.time() - self.start) / RTT + 0.75 - 1e-6)


@simulated()
async def test_the_first_answer_takes_two_round_trips(network):
    server_host, client_host = hosts(network)
    async with (
        Endpoint.bind(network=server_host) as server,
        Endpoint.bind(network=client_host) as client,
        Router(server, {ALPN: echo}),
    ):
        trips = RoundTrips(network)
        async with client.connect(server.addr, alpn=ALPN) as connection:
            assert trips() == 1
            assert await ask(connection, b"!") == b"!"
            assert trips() == 2


@simulated()
async def test_early_data_save_one(network):
    server_host, client_host = hosts(network)
    async with (
        Endpoint.bind(network=server_host) as server,
        Endpoint.bind(network=client_host) as client,
        Router(server, {ALPN: Echo()}),
    ):
        async with client.connect(server.addr, alpn=ALPN) as connection:
            await ask(connection)
            # Tickets come after the handshake.
            await asyncio.sleep(RTT)
        trips = RoundTrips(network)
        async with client.connect(server.addr, alpn=ALPN, early_data=True) as connection:
            assert connection.is_early
            assert trips() == 0
            assert await ask(connection, b"early") == b"early"
            assert trips() == 1
            assert await connection.handshake_completed()


@simulated(seeds=10)
async def test_early_data_on_a_bad_link(network):
    """They arrive, or they are refused and sent again; never lost, never twice."""
    server_host, client_host = hosts(network, Link(latency=0.05, loss=0.2))
    questions = []

    class Once(Echo):
        async def accept(self, connection):
            async for stream in connection.incoming_bi():
                async with stream:
                    questions.append(await stream.read_all(limit=1000))
                    await stream.write(questions[-1])

    async with (
        Endpoint.bind(network=server_host) as server,
        Endpoint.bind(network=client_host) as client,
        Router(server, {ALPN: Once()}),
    ):
        for number in range(10):
            question = b"%d" % number
            async with client.connect(server.addr, alpn=ALPN, early_data=True) as connection:
                early = connection.is_early
                try:
                    assert await ask(connection, question) == question
                except ConnectionError:
                    assert early and not await connection.handshake_completed()
                    assert await ask(connection, question) == question
                await asyncio.sleep(1)
    assert questions == [b"%d" % number for number in range(10)]


@simulated()
async def test_retry_costs_one_and_a_token_saves_it(network):
    server_host, client_host = hosts(network)
    async with (
        Endpoint.bind(network=server_host, retry_above=0) as server,
        Endpoint.bind(network=client_host) as client,
        Router(server, {ALPN: echo}),
    ):
        trips = RoundTrips(network)
        async with client.connect(server.addr, alpn=ALPN) as connection:
            assert trips() == 2
            await ask(connection)
            # Tokens come after the handshake, too.
            await asyncio.sleep(RTT)
        trips = RoundTrips(network)
        async with client.connect(server.addr, alpn=ALPN) as connection:
            assert trips() == 1


@simulated(seeds=20)
async def test_handshakes_on_bad_links(network):
    """Far from the 10 s after which a router gives a handshake up."""
    random = network.chance("links")
    link = Link(
        latency=random.uniform(0, 0.2),
        loss=random.uniform(0, 0.2),
        duplicate=random.choice([0, 0.3]),
        reorder=random.choice([0, 0.3]),
        bandwidth=random.choice([None, 256_000]),
        queue=10_000,
    )
    server_host, client_host = hosts(network, link)
    retry = random.choice([None, 0])
    async with (
        Endpoint.bind(network=server_host, retry_above=retry) as server,
        Endpoint.bind(network=client_host) as client,
        Router(server, {ALPN: echo}),
    ):
        for _ in range(5):
            async with client.connect(server.addr, alpn=ALPN) as connection:
                assert await ask(connection, b"!") == b"!"


@simulated(seeds=3)
async def test_fifty_at_once(network):
    link = Link(latency=0.05, loss=0.05, bandwidth=10e6)
    server_host, client_host = hosts(network, link)
    async with (
        Endpoint.bind(network=server_host) as server,
        Endpoint.bind(network=client_host) as client,
        Router(server, {ALPN: echo}),
    ):

        async def one(number):
            async with client.connect(server.addr, alpn=ALPN) as connection:
                assert await ask(connection, b"%d" % number) == b"%d" % number

        async with asyncio.TaskGroup() as group:
            for number in range(50):
                group.create_task(one(number))


@simulated()
async def test_a_protocol_that_is_not_spoken_is_refused_at_once(network):
    server_host, client_host = hosts(network)
    async with (
        Endpoint.bind(network=server_host) as server,
        Endpoint.bind(network=client_host) as client,
        Router(server, {b"another": echo}),
    ):
        trips = RoundTrips(network)
        with pytest.raises(ConnectError, match="does not serve the protocol"):
            await client.connect(server.addr, alpn=ALPN)
        assert trips() == 1


@simulated()
async def test_an_endpoint_that_serves_nothing_refuses_at_once(network):
    server_host, client_host = hosts(network)
    async with (
        Endpoint.bind(network=server_host) as server,
        Endpoint.bind(network=client_host) as client,
    ):
        trips = RoundTrips(network)
        with pytest.raises(ConnectError, match="refused"):
            await client.connect(server.addr, alpn=ALPN)
        assert trips() == 1


@simulated()
async def test_what_cannot_be_read_is_no_peer(network):
    """The first packet of a server that was left comes late, for example: it looks like that of a client."""
    here, stranger = network.host("here"), Box(network.host("stranger"))
    async with Endpoint.bind(network=here, alpns=[ALPN]) as server:
        # RFC 9000, 17.2.2: an Initial packet, version 1, with connection ids of 8 bytes and no token.
        header = b"\xc3\x00\x00\x00\x01\x08" + bytes(8) + b"\x08" + bytes(8) + b"\x00\x44\x96"
        target = (here.addresses[0], server.bound_sockets[0].port)
        stranger.bind()
        stranger.send(target, header + bytes(1200 - len(header)))
        await asyncio.sleep(1)
        accepting = asyncio.ensure_future(server.accept())
        async with Endpoint.bind(network=network.host("peer")) as client:
            dialling = asyncio.ensure_future(client.connect(server.addr, alpn=ALPN))
            async with await (await accepting).accept() as accepted, await dialling as dialled:
                assert accepted.remote_id == client.id and dialled.remote_id == server.id
