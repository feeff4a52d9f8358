"""A relay's metrics: the text, and the listener that gives it."""

from __future__ import annotations

import asyncio
import re

from aioiroh.relayserver.metrics import (
    MAX_CONNECTIONS,
    MAX_HEAD,
    TIMEOUT,
    MetricsListener,
    metrics_text,
)
from aioiroh.testing import Host, VirtualNetwork, simulated

TEXT = "relayserver_accepts_total 3\n# EOF\n"


def test_names_as_upstream_writes_them() -> None:
    text = metrics_text({"accepts": 3, "bytes_rx_ratelimited_total": 7})
    assert text.endswith("\n# EOF\n")
    lines = text.splitlines()
    assert "# TYPE relayserver_accepts counter" in lines
    assert "relayserver_accepts_total 3" in lines
    # A name that says so already gets no second `_total`.
    assert "relayserver_bytes_rx_ratelimited_total 7" in lines
    assert "relayserver_unique_client_keys_total 3" in lines
    assert "relayserver_unknown_frames_total 0" in lines
    names = [line.split()[0] for line in lines if not line.startswith("#")]
    assert len(names) == len(set(names)) == 30
    assert all(re.fullmatch(r"relayserver_[a-z_]+_total", name) for name in names)


class Client(asyncio.Protocol):
    """Sends `request`, and collects what comes until the end."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.received = b""
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set_result(error)


@simulated()
async def test_every_request_is_answered(network: VirtualNetwork) -> None:
    server, scraper = network.host("server"), network.host("scraper")
    async with await MetricsListener.bind(server, ("0.0.0.0", 9090), lambda: TEXT):
        for request in (b"GET /metrics HTTP/1.1\r\n\r\n", b"POST /x HTTP/1.0\r\nA: b\r\n\r\nbody"):
            client = await scraper.connect_tcp(
                lambda r=request: Client(r), server.addresses[0], 9090
            )
            await client.ended
            head, body = client.received.split(b"\r\n\r\n")
            assert head.startswith(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
            )
            assert f"Content-Length: {len(TEXT)}".encode() in head
            assert body.decode() == TEXT


@simulated()
async def test_what_is_no_request_ends(network: VirtualNetwork) -> None:
    server, scraper = network.host("server"), network.host("scraper")
    others = [network.host(f"other {number}") for number in range(16)]
    loop = asyncio.get_running_loop()
    async with await MetricsListener.bind(server, ("0.0.0.0", 9090), lambda: TEXT):

        async def connect(request: bytes, host: Host = scraper) -> Client:
            return await host.connect_tcp(lambda: Client(request), server.addresses[0], 9090)

        endless = await connect(b"x" * (MAX_HEAD + 1))
        await endless.ended
        # Who says nothing is not waited for, and one address cannot take all places.
        silent = [await connect(b"GET /", others[0]) for _ in range(MAX_CONNECTIONS)]
        served = await connect(b"GET / HTTP/1.1\r\n\r\n")
        await served.ended
        assert served.received.endswith(TEXT.encode())
        silent += [await connect(b"GET /", other) for other in others[1:] for _ in range(4)]
        more = await connect(b"GET / HTTP/1.1\r\n\r\n")
        await more.ended
        assert more.received == b""
        begun = loop.time()
        for client in silent:
            await client.ended
            assert client.received == b""
        assert loop.time() - begun < TIMEOUT + 0.5


@simulated()
async def test_closing_ends_connections(network: VirtualNetwork) -> None:
    server, scraper = network.host("server"), network.host("scraper")
    async with await MetricsListener.bind(server, ("0.0.0.0", 9090), lambda: TEXT):
        client = await scraper.connect_tcp(lambda: Client(b"GET"), server.addresses[0], 9090)
        await asyncio.sleep(1)
    await client.ended
