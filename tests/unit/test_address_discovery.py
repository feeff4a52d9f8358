"""Both ends of QUIC address discovery, on loopback."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aioiroh import _native
from aioiroh.errors import ConnectionLostError
from aioiroh.net import SystemNetwork, UdpOptions, UdpSlot
from aioiroh.quic import Driver
from aioiroh.quic.discovery import ALPN, AddressQuery

PEM = (Path(__file__).parents[2] / "rust" / "relay" / "tests" / "relay.test.pem").read_bytes()
TRUSTING = _native.RelayTls(roots=PEM)


def bound(host: str = "127.0.0.1", **options: object) -> tuple[Driver, UdpSlot]:
    network = SystemNetwork()
    driver = Driver(_native.Engine(network.secret(32), **options))  # type: ignore[arg-type]
    return driver, network.bind_udp(driver, (host, 0), UdpOptions())


class Server:
    """Accepts whoever knocks, and says what it sees if `reports`."""

    def __init__(self, host: str = "127.0.0.1", *, reports: bool = True) -> None:
        transport = _native.Transport(send_observed_addresses=reports, max_paths=0)
        self.driver, slot = bound(host, alpns=[ALPN], transport=transport)
        self.driver.engine.use_certificate(PEM, PEM)
        self.address = (host, slot.port)
        self._serving = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        connections = []
        while True:
            connections.append((await self.driver.accept()).accept())

    async def close(self) -> None:
        self._serving.cancel()
        await self.driver.aclose()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_server_tells_the_client_its_address(host: str) -> None:
    server = Server(host)
    driver, slot = bound(host)
    heard: list[tuple[str, int]] = []
    query = AddressQuery(driver, server.address, "relay.test", TRUSTING, heard.append)
    assert await query.observed() == (host, slot.port)
    assert heard == [(host, slot.port)]
    assert query.rtt > 0
    query.close()
    assert query.is_over
    await driver.aclose()
    await server.close()


async def test_a_server_of_another_name_is_no_answer() -> None:
    server = Server()
    driver, _ = bound()
    query = AddressQuery(driver, server.address, "other.test", TRUSTING)
    with pytest.raises(ConnectionLostError, match="not valid for name"):
        await query.observed()
    assert query.is_over
    query.close()
    await driver.aclose()
    await server.close()


async def test_a_certificate_that_is_none_is_refused() -> None:
    driver, _ = bound()
    with pytest.raises(ValueError):
        driver.engine.use_certificate(b"", PEM)
    with pytest.raises(ValueError):
        driver.engine.use_certificate(PEM, b"")
    await driver.aclose()


async def test_closing_an_endpoint_fails_the_query_at_once() -> None:
    server = Server()
    driver, _ = bound()
    query = AddressQuery(driver, server.address, "relay.test", TRUSTING)
    await driver.aclose()
    with pytest.raises(ConnectionLostError):
        await query.observed()
    await server.close()
