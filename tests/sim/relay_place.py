"""A relay server on a virtual network, and clients of it that speak byte by byte."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from contextlib import asynccontextmanager
from pathlib import Path

from blake3 import blake3

from aioiroh import Endpoint, SecretKey
from aioiroh.relayserver import RelayServer

__all__ = [
    "GONE",
    "PEM",
    "PING",
    "RESTARTING",
    "STATUS",
    "UPGRADE",
    "Place",
    "Raw",
    "packet",
    "relay",
]

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


def packet(to, contents, segment=None):
    head = b"\x04" if segment is None else b"\x05"
    middle = b"\x00" if segment is None else b"\x00" + segment.to_bytes(2, "big")
    return head + bytes(to.public) + middle + contents
