"""A relay and its clients on real sockets, on every event loop; all else is tested in virtual time (tests/sim)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aioiroh import Endpoint, EndpointAddr, RelayAddr, Router, SecretKey
from aioiroh.relayserver import (
    AccessRequest,
    Allow,
    Certificate,
    Limits,
    RateLimit,
    RelayServer,
)
from aioiroh.relayserver.connection import ClientConnection
from relay_place import Raw, packet

PEM = Path(__file__).parents[2] / "rust" / "relay" / "tests" / "relay.test.pem"
ALPN = b"echo"
KEY = SecretKey(bytes([7]) * 32)
MUCH = bytes(range(250)) * 8000


async def echo(stream):
    await stream.write(await stream.read_all(limit=1 << 24))
    await stream.finish()


async def serve(connection):
    await connection.serve(echo, limit=10)


@pytest.mark.loops
@pytest.mark.parametrize("tls", [False, True])
async def test_two_endpoints_at_a_relay(tls: bool) -> None:
    options = {}
    if tls:
        certificate = Certificate(PEM.read_bytes(), PEM.read_bytes())
        options = {"https": ("127.0.0.1", 0), "certificate": certificate}
    async with RelayServer.bind(**options) as relay:
        alone = {"bind": (), "relays": [relay.url], "relay_ca": PEM}
        async with (
            asyncio.timeout(20),
            Endpoint.bind(**alone) as client,
            Endpoint.bind(**alone) as server,
            Router(server, {ALPN: serve}),
        ):
            await asyncio.gather(client.online(), server.online())
            there = EndpointAddr(server.id, [RelayAddr(relay.url)])
            async with (
                client.connect(there, alpn=ALPN) as connection,
                connection.open_bi() as stream,
            ):
                await stream.write(MUCH)
                await stream.finish()
                assert await stream.read_all(limit=1 << 24) == MUCH
        assert relay.counters["bytes_sent"] > 2 * len(MUCH)


@pytest.mark.loops
async def test_http_on_real_sockets() -> None:
    async with RelayServer.bind() as relay:
        reader, writer = await asyncio.open_connection(*relay.http_address)
        writer.write(
            b"GET /ping HTTP/1.1\r\n\r\nGET /healthz HTTP/1.1\r\nConnection: close\r\n\r\nGET /late HTTP/1.1\r\n\r\n"
        )
        async with asyncio.timeout(20):
            answers = await reader.read()
        assert answers.count(b"HTTP/1.1 200 OK") == 2 and answers.endswith(b"}")
        writer.close()
    assert (relay.clients, relay.counters["http_connections_closed"]) == (0, 1)


def test_options_that_do_not_fit() -> None:
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


async def test_a_file_without_certificates_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("what is this?")
    with pytest.raises(ValueError, match=r"ca\.pem: there is no certificate in it"):
        await Endpoint.bind(bind="127.0.0.1:0", relay_ca=tmp_path / "ca.pem")


def test_places_are_not_more_than_files_may_be_open() -> None:
    few = Limits().within(1024)
    assert (few.connections, few.pending) == (896, 448)
    assert Limits().within(1 << 20) == Limits()
    assert (Limits().within(0).connections, Limits().within(0).pending) == (1, 1)


async def test_nobody_is_let_in_whose_connection_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """It did what it must not while it waited, and the answer comes before it is gone."""
    left: list[object] = []
    asked, is_over = asyncio.Event(), asyncio.Event()

    async def access(_request: AccessRequest) -> Allow:
        asked.set()
        await is_over.wait()
        return Allow()

    def close(connection, close=ClientConnection.close):
        is_over.set()
        close(connection)

    async with RelayServer.bind(
        access=access, on_disconnect=lambda *who: left.append(who)
    ) as relay:
        loop = asyncio.get_running_loop()
        _, raw = await loop.create_connection(Raw, *relay.http_address)
        entering = asyncio.create_task(raw.enter(KEY))
        await asked.wait()
        monkeypatch.setattr(ClientConnection, "close", close)
        raw.send(packet(KEY, b"too early"))
        await raw.lost
        with pytest.raises(AssertionError):
            await entering
        assert (relay.clients, left, relay.counters["accepts"]) == (0, [], 0)
