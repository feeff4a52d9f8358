"""Both ends of QUIC address discovery, on loopback."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from aioiroh import _native
from aioiroh.errors import ApplicationClosedError, ConnectionLostError
from aioiroh.net import SlotHost, SystemNetwork, UdpOptions, UdpSlot
from aioiroh.quic import Driver
from aioiroh.quic.discovery import CLOSE_CODE, AddressQuery
from aioiroh.relayserver.discovery import DiscoveryServer
from aioiroh.relayserver.metrics import DiscoveryCounters

PEM = (Path(__file__).parents[2] / "rust" / "relay" / "tests" / "relay.test.pem").read_bytes()
TRUSTING = _native.RelayTls(roots=PEM)
NAME = "relay.test"


@asynccontextmanager
async def serving(
    host: str = "127.0.0.1",
    metrics: DiscoveryCounters | None = None,
    network: SystemNetwork | None = None,
    **options: int,
) -> AsyncIterator[DiscoveryServer]:
    server = DiscoveryServer(
        network or SystemNetwork(),
        (host, 0),
        chain=PEM,
        key=PEM,
        metrics=metrics or DiscoveryCounters(),
        **options,
    )
    try:
        yield server
    finally:
        await server.aclose()


@asynccontextmanager
async def client(host: str = "127.0.0.1") -> AsyncIterator[tuple[Driver, UdpSlot]]:
    network = SystemNetwork()
    driver = Driver(_native.Engine(network.secret(32)))
    try:
        yield driver, network.bind_udp(driver, (host, 0), UdpOptions())
    finally:
        await driver.aclose()


async def until(happened: object) -> None:
    async with asyncio.timeout(10):
        while not happened():  # type: ignore[operator]
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_server_tells_the_client_its_address(host: str) -> None:
    heard: list[tuple[str, int]] = []
    counts = DiscoveryCounters()
    async with serving(host, counts) as server, client(host) as (driver, slot):
        query = AddressQuery(driver, server.address, NAME, TRUSTING, heard.append)
        assert await query.observed() == (host, slot.port)
        assert heard == [(host, slot.port)]
        assert query.rtt > 0
        assert server.connection_count == 1
        query.close()
        assert query.is_over
        await until(lambda: counts.qad_connections_closed)
    assert counts == DiscoveryCounters(1, 0, 1, 1, 0)


async def test_a_server_on_all_addresses_hears_both_ip_versions() -> None:
    async with serving("::") as server, client() as (old, slot), client("::1") as (new, other):
        for driver, host, port in [(old, "127.0.0.1", slot.port), (new, "::1", other.port)]:
            address = (host, server.address[1])
            query = AddressQuery(driver, address, NAME, TRUSTING)
            assert await query.observed() == (host, port)
            query.close()


class WithoutIPv6(SystemNetwork):
    def bind_udp(self, host: SlotHost, address: tuple[str, int], options: UdpOptions) -> UdpSlot:
        if ":" in address[0]:
            raise OSError(errno.EAFNOSUPPORT, "no such protocol")
        return super().bind_udp(host, address, options)


async def test_a_server_on_a_machine_without_ipv6_hears_ipv4() -> None:
    network = WithoutIPv6()
    async with serving("::", network=network) as server, client() as (driver, slot):
        query = AddressQuery(driver, ("127.0.0.1", server.address[1]), NAME, TRUSTING)
        assert await query.observed() == ("127.0.0.1", slot.port)
        query.close()
    with pytest.raises(OSError, match="no such protocol"):
        async with serving("::1", network=network):
            pass


async def test_a_server_of_another_name_is_no_answer() -> None:
    counts = DiscoveryCounters()
    async with serving(metrics=counts) as server, client() as (driver, _):
        query = AddressQuery(driver, server.address, "other.test", TRUSTING)
        with pytest.raises(ConnectionLostError, match="not valid for name"):
            await query.observed()
        assert query.is_over
        query.close()
        await until(lambda: counts.qad_incoming_error)
    assert counts == DiscoveryCounters(1, 1, 0, 0, 0)


async def test_peers_that_are_no_clients_come_to_nothing() -> None:
    counts = DiscoveryCounters()
    async with serving(metrics=counts) as server, client() as (driver, _):
        connection = driver.connect(server.address, bytes(32), [b"/iroh-qad/0"])
        with pytest.raises(ConnectionLostError):
            await connection.handshake_completed()
        await until(lambda: counts.qad_incoming_error)
        assert server.connection_count == 0


async def test_what_is_no_certificate_is_refused_and_the_old_one_stays() -> None:
    async with serving() as server, client() as (driver, _):
        with pytest.raises(ValueError):
            server.replace_certificate(b"", PEM)
        with pytest.raises(ValueError):
            server.replace_certificate(PEM, b"")
        server.replace_certificate(PEM, PEM)
        query = AddressQuery(driver, server.address, NAME, TRUSTING)
        await query.observed()
        query.close()


async def test_a_full_server_refuses_and_has_room_again() -> None:
    counts = DiscoveryCounters()
    # One address may hold a sixteenth of them, so one.
    async with serving(metrics=counts, max_connections=16) as server, client() as (driver, _):
        first = AddressQuery(driver, server.address, NAME, TRUSTING)
        await first.observed()
        with pytest.raises(ConnectionLostError):
            await AddressQuery(driver, server.address, NAME, TRUSTING).observed()
        assert counts.qad_incoming_error == 1
        first.close()
        await until(lambda: not server.connection_count)
        third = AddressQuery(driver, server.address, NAME, TRUSTING)
        await third.observed()
        third.close()


async def test_a_server_that_goes_tells_its_clients() -> None:
    async with client() as (driver, _):
        async with serving() as server:
            query = AddressQuery(driver, server.address, NAME, TRUSTING)
            await query.observed()
        await until(lambda: query.is_over)
        loss = query._state.lost
        assert isinstance(loss, ApplicationClosedError) and loss.code == CLOSE_CODE


async def test_many_strangers_have_to_prove_their_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aioiroh.relayserver.discovery.MAX_UNPROVED", 0)
    counts = DiscoveryCounters()
    async with serving(metrics=counts) as server, client() as (driver, slot):
        query = AddressQuery(driver, server.address, NAME, TRUSTING)
        assert await query.observed() == ("127.0.0.1", slot.port)
        query.close()
    # The first attempt got a Retry, the second one came with its token.
    assert (counts.qad_incoming, counts.qad_incoming_error, counts.qad_connections) == (2, 1, 1)


async def test_closing_an_endpoint_fails_the_query_at_once() -> None:
    async with serving() as server, client() as (driver, _):
        query = AddressQuery(driver, server.address, NAME, TRUSTING)
        await driver.aclose()
        with pytest.raises(ConnectionLostError):
            await query.observed()
