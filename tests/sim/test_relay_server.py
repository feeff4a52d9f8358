"""A relay server in virtual time: endpoints, hostile clients, limits, and its end."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from blake3 import blake3

from aioiroh import (
    Endpoint,
    EndpointAddr,
    RelayAddr,
    RelayConfig,
    RelayState,
    Router,
    SecretKey,
)
from aioiroh.relayserver import Allow, Certificate, Deny, Limits, RateLimit, RelayServer
from aioiroh.relayserver.http import Listener
from aioiroh.relayserver.http import answer as http_answer
from aioiroh.testing import simulated

ALPN = b"echo"
PEM = Path(__file__).parents[2].joinpath("rust/relay/tests/relay.test.pem").read_bytes()
UPGRADE = (
    b"GET /relay%b HTTP/1.1\r\nHost: r\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: %b\r\nSec-WebSocket-Version: 13\r\nsec-websocket-protocol: iroh-relay-v%d\r\n\r\n"
)
RESTARTING, STATUS, PING, GONE = 12, 13, 9, 8


class Raw(asyncio.Protocol):
    """A client of a relay, byte by byte. `frames` are the messages that came after the handshake."""

    def __init__(self):
        self.received = bytearray()
        self.lost = asyncio.get_running_loop().create_future()
        self._came = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.received += data
        self._came.set()

    def connection_lost(self, error):
        self.lost.set_result(error)
        self._came.set()

    def write(self, data):
        self.transport.write(data)

    async def until(self, wanted):
        """Wait for what `wanted(received)` finds, and give it."""
        while not (found := wanted(self.received)):
            assert not self.lost.done(), bytes(self.received)
            self._came.clear()
            await self._came.wait()
        return found

    async def head(self):
        """The head of an HTTP response, with its body, and takes it off."""

        def whole(received):
            head, end, rest = bytes(received).partition(b"\r\n\r\n")
            size = next(
                (
                    int(line[15:])
                    for line in head.lower().split(b"\r\n")
                    if b"content-length" in line
                ),
                0,
            )
            return (head, rest[:size], len(head) + 4 + size) if end and len(rest) >= size else None

        head, body, size = await self.until(whole)
        del self.received[:size]
        return head.decode(), body

    async def frame(self):
        """The next message of the relay, and takes it off."""

        def whole(received):
            if len(received) < 2:
                return None
            size, start = received[1], 2
            if size == 126:
                size, start = int.from_bytes(received[2:4], "big"), 4
            end = start + size
            return (bytes(received[start:end]), end) if len(received) >= end else None

        message, end = await self.until(whole)
        del self.received[:end]
        return message

    def send(self, message):
        """A message, under a mask of zeros."""
        size = len(message)
        head = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        self.write(b"\x82" + head + bytes(4) + message)

    async def enter(self, key, *, version=2, query=b""):
        """Goes through the handshake; gives the relay's last word."""
        self.write(UPGRADE % (query, b64encode(bytes(16)), version))
        head, _ = await self.head()
        assert head.startswith("HTTP/1.1 101"), head
        challenge = (await self.frame())[1:]
        context = "iroh-relay handshake v1 challenge signature"
        message = blake3(challenge, derive_key_context=context).digest()
        self.send(b"\x01" + bytes(key.public) + b"\x40" + bytes(key.sign(message)))
        return await self.frame()


class Place:
    """A relay on a virtual network, and ways to reach it."""

    def __init__(self, network, server, host):
        self.network, self.server, self.host = network, server, host

    async def raw(self):
        host = self.network.host(f"raw {len(self.network.hosts)}")
        raw = await host.connect_tcp(Raw, *(self.server.https_address or self.server.http_address))
        raw.host = host
        return raw

    async def client(self, key=None, **options):
        raw = await self.raw()
        assert await raw.enter(key or SecretKey.generate(), **options) == b"\x02"
        return raw

    @asynccontextmanager
    async def endpoint(self, **options):
        host = self.network.host(f"endpoint {len(self.network.hosts)}")
        options = {"bind": (), "relays": [self.server.url], "network": host, **options}
        async with Endpoint.bind(**options) as endpoint:
            yield endpoint


@asynccontextmanager
async def relay(network, *, certificate=None, **options):
    host = network.host("relay", ipv6=False)
    [address] = host.addresses
    if certificate is not None:
        options = {"https": (address, 443), "certificate": certificate, **options}
    async with RelayServer.bind(http=(address, 80), network=host, **options) as server:
        yield Place(network, server, host)


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


def packet(to, contents, segment=None):
    head = b"\x04" if segment is None else b"\x05"
    middle = b"\x00" if segment is None else b"\x00" + segment.to_bytes(2, "big")
    return head + bytes(to.public) + middle + contents


# --- endpoints


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
async def test_the_certificate_can_be_replaced(network):
    async with relay(network, certificate=Certificate(PEM, PEM)) as place:
        async with place.endpoint() as stranger:
            status = await stranger.watch_home_relay.wait_for(
                lambda status: status and status.state is RelayState.DISCONNECTED
            )
            assert "TLS" in status.problem
        place.server.set_certificate(Certificate(PEM, PEM))
        raw = await place.raw()
        # Who speaks no TLS hears so, and is gone.
        raw.write(b"GET / HTTP/1.1\r\n\r\n")
        await raw.lost
        assert raw.received[:1] == b"\x15"
        assert place.server.http_address == (place.host.addresses[0], 80)
    with pytest.raises(ValueError, match="certificate"):
        Certificate(b"", PEM)
    with pytest.raises(ValueError, match="key"):
        Certificate(PEM, b"")


# --- HTTP


async def ask(raw, line, *headers):
    raw.write("\r\n".join([f"{line} HTTP/1.1", *headers, "", ""]).encode())
    return await raw.head()


@simulated()
async def test_what_http_requests_get(network):
    async with relay(network) as place:
        raw = await place.raw()
        for line, status, body in [
            ("GET /ping", 200, b""),
            ("GET /ping?x=1", 200, b""),
            ("GET /healthz", 200, b'"status": "ok"'),
            ("GET /", 200, b"iroh"),
            ("GET /index.html", 200, b"iroh"),
            ("GET /robots.txt", 200, b"User-agent: *\nDisallow: /\n"),
            ("GET /derp", 404, b"Not Found"),
            ("HEAD /ping", 404, b"Not Found"),
            ("OPTIONS /relay", 404, b"Not Found"),
            ("GET /generate_204", 204, b""),
        ]:
            head, content = await ask(raw, line)
            assert head.startswith(f"HTTP/1.1 {status} "), line
            assert body in content and (body or not content), line
            assert "Strict-Transport-Security: max-age=63072000" in head
        head, _ = await ask(raw, "GET /generate_204", "X-Iroh-Challenge: ts_r.example")
        assert "X-Iroh-Response: response ts_r.example" in head
        head, _ = await ask(raw, "GET /generate_204", "X-Iroh-Challenge: <script>")
        assert "X-Iroh-Response" not in head


@simulated()
async def test_with_tls_the_other_port_only_checks_for_portals(network):
    async with relay(network, certificate=Certificate(PEM, PEM)) as place:
        raw = await network.host("asking").connect_tcp(Raw, *place.server.http_address)
        assert (await ask(raw, "GET /ping"))[0].startswith("HTTP/1.1 404")
        head, _ = await ask(raw, "GET /generate_204", "X-Iroh-Challenge: a")
        assert "X-Iroh-Response: response a" in head and "Strict" not in head


@simulated()
async def test_when_an_http_connection_ends(network):
    async with relay(network) as place:
        for line, *headers in [
            ("GET /ping", "Connection: close"),
            ("POST /ping", "Content-Length: 5"),
            ("POST /ping", "Transfer-Encoding: chunked"),
        ]:
            raw = await place.raw()
            assert "Connection: close" in (await ask(raw, line, *headers))[0]
            await raw.lost
        # One that asks and asks, one that asks slowly, one that does not wait for answers.
        raw = await place.raw()
        for _ in range(100):
            await ask(raw, "GET /ping")
        await raw.lost
        raw = await place.raw()
        started = network.loop.time()
        while not raw.lost.done():
            raw.write(b"G")
            await asyncio.sleep(1)
        assert 30 <= network.loop.time() - started < 32
        raw = await place.raw()
        raw.write(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 5000)
        await raw.lost


@simulated()
async def test_upgrades_that_are_refused(network):
    good = {
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "x",
        "Sec-WebSocket-Version": "13",
        "sec-websocket-protocol": "iroh-relay-v2",
    }
    async with relay(network) as place:
        raw = await place.raw()
        for name, value in [*((name, None) for name in good), ("Sec-WebSocket-Version", "8")]:
            headers = {**good, name: value}
            lines = [f"{name}: {value}" for name, value in headers.items() if value]
            head, body = await ask(raw, "GET /relay", *lines)
            assert head.startswith("HTTP/1.1 400 ") and body
            assert ("Sec-WebSocket-Version: 13" in head) == (value == "8")
        # The same connection may still do better.
        assert await raw.enter(SecretKey.generate()) == b"\x02"


# --- who is let in


@simulated()
async def test_access_decides(network):
    seen, left = [], []

    async def access(request):
        seen.append(request)
        match request.token:
            case "sesame":
                return Allow()
            case "slow":
                await asyncio.sleep(3600)
            case "broken":
                raise RuntimeError("out of order")
            case "reason":
                return Deny("not on a Sunday")
        return Deny()

    def gone(*who):
        left.append(who)

    async with relay(network, access=access, on_disconnect=gone) as place:
        key = SecretKey.generate()
        raw = await place.client(key, query=b"?token=sesame&x=1")
        assert (seen[0].endpoint_id, seen[0].version) == (key.public, 2)
        assert seen[0].query == [("token", "sesame"), ("x", "1")]
        assert seen[0].remote == raw.transport.get_extra_info("sockname")[:2]
        for token, reason in [
            (b"", b"not authorized"),
            (b"?token=slow", b"not authorized"),
            (b"?token=broken", b"not authorized"),
            (b"?token=reason", b"not on a Sunday"),
        ]:
            denied = await place.raw()
            assert await denied.enter(key, query=token) == b"\x03" + bytes((len(reason),)) + reason
            await denied.lost
        assert (place.server.clients, left) == (1, [])
        raw.transport.close()
        await raw.lost
        await asyncio.sleep(1)
        assert left == [(key.public, seen[0].connection_id)]
        assert place.server.counters["access_denied"] == 4
        relays = [RelayConfig(place.server.url, auth_token="sesame")]
        async with place.endpoint(relays=relays) as endpoint:
            await endpoint.online()
        # Another rule, from now on.
        place.server.access = lambda _request: asyncio.sleep(0, Allow())
        await place.client(key)


@simulated()
async def test_nobody_is_judged_who_has_gone(network):
    began, ended = asyncio.Event(), asyncio.Event()

    async def access(_request):
        began.set()
        try:
            await asyncio.sleep(8)
        finally:
            ended.set()
        return Allow()

    async with relay(network, access=access, limits=Limits(pending=1)) as place:
        raw = await place.raw()
        entering = asyncio.create_task(raw.enter(SecretKey.generate()))
        await began.wait()
        raw.transport.abort()
        async with asyncio.timeout(1):
            await ended.wait()
        entering.cancel()
        # It has left its place to others.
        await place.client()


@simulated()
async def test_a_call_back_that_fails_holds_nothing_up(network):
    def gone(*_who):
        raise RuntimeError("out of order")

    async with relay(network, on_disconnect=gone) as place:
        raw, other = await place.client(), await place.client()
        raw.transport.close()
        await asyncio.sleep(1)
        assert place.server.clients == 1
    await other.lost


@simulated()
async def test_a_relay_that_drops_everybody_is_dialled_less_and_less(network):
    async def drop(server):
        while True:
            await asyncio.sleep(0.2)
            for endpoint_id in server.endpoint_ids:
                server.disconnect(endpoint_id)

    async with relay(network) as place, place.endpoint() as endpoint:
        await endpoint.online()
        dropping = asyncio.create_task(drop(place.server))
        await asyncio.sleep(60)
        accepted = place.server.counters["accepts"]
        dropping.cancel()
        assert accepted < 15
        await endpoint.online()


@simulated()
async def test_a_key_has_to_be_proved(network):
    async with relay(network) as place:
        raw = await place.raw()
        raw.write(UPGRADE % (b"", b64encode(bytes(16)), 2))
        await raw.head()
        await raw.frame()
        key = SecretKey.generate()
        raw.send(b"\x01" + bytes(key.public) + b"\x40" + bytes(key.sign(b"something else")))
        assert await raw.frame() == b"\x03\x11signature invalid"
        await raw.lost
        # Not in time.
        raw = await place.raw()
        raw.write(UPGRADE % (b"", b64encode(bytes(16)), 2))
        await raw.head()
        started = network.loop.time()
        await raw.lost
        assert 9.9 < network.loop.time() - started < 10.5
        # Frames before the answer.
        asked = asyncio.Event()
        place.server.access = lambda _request: asked.wait()
        raw = await place.raw()
        entering = asyncio.ensure_future(raw.enter(key))
        await asyncio.sleep(2)
        raw.send(packet(key, b"x"))
        await raw.lost
        with pytest.raises(AssertionError):
            await entering


@simulated()
async def test_there_is_room_for_so_many(network):
    async with relay(network, limits=Limits(connections=3, pending=2)) as place:
        first = [await place.raw() for _ in range(2)]
        late = await place.raw()
        await late.lost
        # These two are pending no more.
        for raw in first:
            await raw.enter(SecretKey.generate())
        third = await place.raw()
        await third.enter(SecretKey.generate())
        late = await place.raw()
        await late.lost
        assert place.server.counters["connections_refused"] == 2


@simulated()
async def test_one_address_cannot_take_all_places(network):
    async with relay(network, limits=Limits(pending=48)) as place:
        hostile, address = network.host("hostile"), place.server.http_address
        [*_, late] = [await hostile.connect_tcp(Raw, *address) for _ in range(4)]
        await late.lost
        # Others come in, and are not counted there any more.
        for _ in range(5):
            await place.client()
        await asyncio.sleep(31)
        raw = await hostile.connect_tcp(Raw, *address)
        assert await raw.enter(SecretKey.generate()) == b"\x02"


# --- forwarding


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


# --- its end


@simulated()
async def test_a_relay_that_drains(network):
    async with relay(network) as place:
        key = SecretKey.generate()
        staying, leaving, sender = (
            await place.client(key),
            await place.client(),
            await place.client(),
        )
        address = place.server.http_address
        draining = asyncio.ensure_future(place.server.drain(5))
        for raw in (staying, leaving, sender):
            frame = await raw.frame()
            assert frame[0] == RESTARTING and len(frame) == 9
        leaving.transport.close()
        sender.send(packet(key, b"still forwarded"))
        assert (await staying.frame())[34:] == b"still forwarded"
        with pytest.raises(ConnectionRefusedError):
            await network.host("late").connect_tcp(Raw, *address)
        started = network.loop.time()
        await asyncio.gather(draining, staying.lost, place.server.closed())
        assert 4 < network.loop.time() - started < 6
    assert place.server.clients == 0


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


def test_who_asks_for_its_health_makes_no_work():
    asked = [http_answer(Listener.MAIN, "GET", "/healthz", {}) for _ in range(2)]
    assert asked[0].body is asked[1].body


def test_options_that_do_not_fit():
    with pytest.raises(ValueError, match="go together"):
        RelayServer.bind(https=("127.0.0.1", 0))
    with pytest.raises(ValueError, match="without an address"):
        RelayServer.bind(http=None)
    with pytest.raises(ValueError, match="at least 10"):
        RateLimit(9)
    for sizes in [(1 << 32,), (100, 1 << 32)]:
        with pytest.raises(ValueError, match="4 GiB"):
            RateLimit(*sizes)
    assert RateLimit(1000).burst == 100
