"""TCP on the virtual network: streams arrive whole over any link, and end as real ones do."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from aioiroh.testing import Link, simulated


class Peer(asyncio.Protocol):
    """Keeps what happens, and lets a test wait for it."""

    def __init__(self, *, stays_half_open=False):
        self.transport = None
        self.received = bytearray()
        self.happened = []
        self.eof = asyncio.Event()
        self.lost = asyncio.get_running_loop().create_future()
        self.writable = asyncio.Event()
        self.writable.set()
        self.stays_half_open = stays_half_open

    def connection_made(self, transport):
        self.transport = transport
        self.happened.append("made")

    def data_received(self, data):
        self.received += data

    def eof_received(self):
        self.happened.append("eof")
        self.eof.set()
        return self.stays_half_open

    def pause_writing(self):
        self.writable.clear()

    def resume_writing(self):
        self.writable.set()

    def connection_lost(self, error):
        self.happened.append("lost")
        self.lost.set_result(error)


class Listening:
    """A host that listens, and the protocols of the connections it took."""

    def __init__(self, **options):
        self.peers = asyncio.Queue()
        self._options = options

    def __call__(self):
        peer = Peer(**self._options)
        self.peers.put_nowait(peer)
        return peer


async def connected(network, link=None, **options):
    """Both ends of a connection that passes `link` each way."""
    client = network.host("client", link=link)
    server = network.host("server", link=Link(latency=0.0))
    listening = Listening(**options)
    listener = await server.listen_tcp(listening, "0.0.0.0", 80)
    near = await client.connect_tcp(lambda: Peer(**options), server.addresses[0], 80)
    return near, await listening.peers.get(), listener


LINKS = {
    "good": Link(latency=0.008, bandwidth=100e6, loss=0.001),
    "lossy": Link(latency=0.05, loss=0.1),
    "reordering": Link(latency=0.02, jitter=0.01, reorder=0.1, duplicate=0.05),
    "narrow": Link(latency=0.05, bandwidth=1e6, queue=20_000),
    "far": Link(latency=0.3, bandwidth=25e6, loss=0.015),
}


@pytest.mark.parametrize("link", LINKS)
@simulated(seeds=3)
async def test_a_stream_arrives_whole(network, link):
    near, far, _ = await connected(network, LINKS[link])
    data = network.chance("data").randbytes(500_000)
    for position in range(0, len(data), 50_000):
        await near.writable.wait()
        near.transport.write(data[position : position + 50_000])
        far.transport.write(data[position : position + 1_000])
    near.transport.write_eof()
    await far.eof.wait()
    assert far.received == data
    assert await far.lost is None
    assert await near.lost is None
    assert len(near.received) == 10_000


@simulated()
async def test_a_round_trip_takes_the_links_time(network):
    near, far, _ = await connected(network, Link(latency=0.05))
    assert network.loop.time() == pytest.approx(0.15)  # the server has it half a round trip later
    near.transport.write(b"x")
    await asyncio.sleep(0.051)
    assert far.received == b"x"
    assert near.transport.get_extra_info("peername") == ("101.0.2.1", 80)
    assert far.transport.get_extra_info("peername") == near.transport.get_extra_info("sockname")


@simulated()
async def test_bandwidth_holds(network):
    near, far, _ = await connected(network, Link(latency=0.01, bandwidth=8e6, queue=100_000))
    began = network.loop.time()
    near.transport.write(bytes(2_000_000))
    near.transport.write_eof()
    await far.eof.wait()
    assert 2.0 < network.loop.time() - began < 3.5


@simulated()
async def test_a_reader_that_pauses_holds_the_writer(network):
    near, far, _ = await connected(network, Link(latency=0.01))
    far.transport.pause_reading()
    near.transport.set_write_buffer_limits(high=100_000)
    near.transport.write(bytes(20_000_000))
    await asyncio.sleep(60)
    assert not near.writable.is_set()
    assert not far.received
    assert 20_000_000 - near.transport.get_write_buffer_size() > 4 << 20
    far.transport.resume_reading()
    near.transport.close()
    await far.eof.wait()
    assert len(far.received) == 20_000_000


@simulated()
async def test_a_window_that_opens_is_noticed_without_the_packet_that_says_so(network):
    near, far, _ = await connected(network, Link(latency=0.01))
    far.transport.pause_reading()
    near.transport.write(bytes(10_000_000))
    near.transport.write_eof()
    await asyncio.sleep(10)
    network.hosts["client"].up = False
    far.transport.resume_reading()
    await asyncio.sleep(1)
    network.hosts["client"].up = True
    await far.eof.wait()
    assert len(far.received) == 10_000_000


@simulated()
async def test_half_close(network):
    near, far, _ = await connected(network, stays_half_open=True)
    near.transport.write(b"question")
    near.transport.write_eof()
    await far.eof.wait()
    far.transport.write(b"answer")
    await asyncio.sleep(1)
    assert near.received == b"answer"
    assert not near.lost.done()
    with pytest.raises(RuntimeError):
        near.transport.write(b"more")
    far.transport.close()
    await near.eof.wait()
    near.transport.close()
    assert await near.lost is None
    assert near.happened == ["made", "eof", "lost"]


@simulated()
async def test_a_peer_that_closes_ends_a_protocol_that_does_not_object(network):
    near, far, _ = await connected(network)
    far.transport.write(b"bye")
    far.transport.close()
    assert await near.lost is None
    assert near.received == b"bye"


@simulated()
async def test_abort_resets_the_peer(network):
    near, far, _ = await connected(network)
    near.transport.abort()
    assert await near.lost is None
    assert isinstance(await far.lost, ConnectionResetError)


@simulated()
async def test_writing_to_one_that_has_closed_is_reset(network):
    near, far, _ = await connected(network, stays_half_open=True)
    far.transport.close()
    await near.eof.wait()
    near.transport.write(b"anybody?")
    assert isinstance(await near.lost, ConnectionResetError)


@simulated()
async def test_a_peer_that_never_ends_is_forgotten(network):
    near, far, _ = await connected(network, stays_half_open=True)
    near.transport.close()
    await far.eof.wait()
    await asyncio.sleep(50)
    assert network.hosts["client"]._tcp._connections
    await asyncio.sleep(20)
    assert not network.hosts["client"]._tcp._connections
    # As on Linux it hears that when it says something.
    far.transport.write(b"still there?")
    assert isinstance(await far.lost, ConnectionResetError)


@simulated()
async def test_nobody_listens(network):
    client, server = network.host("client"), network.host("server")
    with pytest.raises(ConnectionRefusedError):
        await client.connect_tcp(Peer, server.addresses[0], 80)
    with pytest.raises(ConnectionRefusedError):
        await client.connect_tcp(Peer, "server", 80)


@simulated()
async def test_a_listener_that_is_closed_takes_no_more(network):
    near, far, listener = await connected(network)
    listener.close()
    await listener.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        await network.hosts["client"].connect_tcp(Peer, *listener_address(network))
    near.transport.write(b"still here")
    await asyncio.sleep(1)
    assert far.received == b"still here"


def listener_address(network):
    return network.hosts["server"].addresses[0], 80


@simulated()
async def test_no_way(network):
    client = network.host("client", ipv6=False)
    with pytest.raises(OSError) as failed:
        await client.connect_tcp(Peer, "101.9.9.9", 80)
    assert failed.value.errno == errno.EHOSTUNREACH
    with pytest.raises(OSError) as failed:
        await client.connect_tcp(Peer, "2a0a::1", 80)
    assert failed.value.errno == errno.ENETUNREACH
    with pytest.raises(socket.gaierror):
        await client.connect_tcp(Peer, "nowhere.example", 80)
    client.up = False
    with pytest.raises(OSError) as failed:
        await client.connect_tcp(Peer, "101.9.9.9", 80)
    assert failed.value.errno == errno.ENETUNREACH


@simulated()
async def test_a_host_that_does_not_answer(network):
    client, server = network.host("client"), network.host("server")
    server.up = False
    with pytest.raises(TimeoutError):
        await client.connect_tcp(Peer, server.addresses[0], 80)
    assert 60 < network.loop.time() < 300


@simulated()
async def test_a_dial_that_is_cancelled_leaves_nothing(network):
    client, server = network.host("client"), network.host("server", link=Link(latency=1.0))
    listening = Listening()
    await server.listen_tcp(listening, "::", 80)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5):
            await client.connect_tcp(Peer, "server", 80)
    await asyncio.sleep(10)
    assert listening.peers.empty()
    assert not client._tcp._connections
    assert not server._tcp._connections


@simulated()
async def test_names_and_the_other_address_after_a_while(network):
    client = network.host("client")
    server = network.host("Relay.example")
    listening = Listening()
    listener = await server.listen_tcp(listening, server.addresses[0], 443)
    assert listener.address == (server.addresses[0], 443)
    near = await client.connect_tcp(Peer, "relay.example.", 443)
    assert near.transport.get_extra_info("peername")[0] == server.addresses[0]
    assert network.loop.time() < 0.1


@simulated()
async def test_an_address_that_swallows_packets_is_not_waited_for(network):
    client = network.host("client")
    server = network.host("server", ipv6=False)
    silent = server.add_interface("eth1", ipv4=False)
    silent.up = False
    listening = Listening()
    await server.listen_tcp(listening, "0.0.0.0", 443)
    await client.connect_tcp(Peer, "server", 443)
    assert 0.25 < network.loop.time() < 0.3


@simulated()
async def test_loopback(network):
    host = network.host()
    listening = Listening()
    listener = await host.listen_tcp(listening, "127.0.0.1", 0)
    near = await host.connect_tcp(Peer, *listener.address)
    near.transport.write(bytes(100_000))
    far = await listening.peers.get()
    await asyncio.sleep(0.01)
    assert len(far.received) == 100_000
    with pytest.raises(OSError) as failed:
        await host.listen_tcp(listening, "127.0.0.1", listener.address[1])
    assert failed.value.errno == errno.EADDRINUSE


@simulated()
async def test_a_long_outage_breaks_it(network):
    near, far, _ = await connected(network)
    network.hosts["client"].up = False
    near.transport.write(b"x")
    assert isinstance(await near.lost, TimeoutError)
    assert 600 < network.loop.time() < 1500
    assert not far.lost.done()
    network.hosts["client"].up = True
    far.transport.write(b"x")
    assert isinstance(await far.lost, ConnectionResetError)


@simulated()
async def test_a_short_outage_does_not(network):
    near, far, _ = await connected(network)
    network.hosts["client"].up = False
    near.transport.write(b"x")
    await asyncio.sleep(20)
    network.hosts["client"].up = True
    await asyncio.sleep(20)
    assert far.received == b"x"


@simulated()
async def test_a_protocol_that_fails_ends_its_connection_only(network):
    class Failing(Peer):
        def data_received(self, data):
            raise ValueError("not like this")

    reported = []
    network.loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
    server, client = network.host("server"), network.host("client")
    await server.listen_tcp(Failing, "::", 80)
    near = await client.connect_tcp(Peer, "server", 80)
    near.transport.write(b"x")
    assert isinstance(await near.lost, ConnectionResetError)
    assert [str(error) for error in reported] == ["not like this"]


@simulated()
async def test_streams_of_asyncio(network):
    async def serve(reader, writer):
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()

    def protocol():
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(), serve)

    server, client = network.host("server"), network.host("client")
    await server.listen_tcp(protocol, "::", 80)
    reader = asyncio.StreamReader()
    near = await client.connect_tcp(lambda: asyncio.StreamReaderProtocol(reader), "server", 80)
    near._transport.write(b"hello\n")
    assert await reader.read() == b"HELLO\n"
