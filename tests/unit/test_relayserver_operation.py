"""A relay as its configuration says, on a simulated network and on loopback."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aioiroh import (
    Endpoint,
    EndpointAddr,
    RelayAddr,
    RelayState,
    Router,
    SecretKey,
    _native,
    ping,
)
from aioiroh.errors import BindError
from aioiroh.net import SystemNetwork, UdpOptions
from aioiroh.quic import Driver
from aioiroh.quic.discovery import AddressQuery
from aioiroh.relayserver import Config, ConfigError, RelayOperation, operation, parse_config
from aioiroh.testing import Host, VirtualNetwork, simulated

PEM = Path(__file__).parents[2] / "rust" / "relay" / "tests" / "relay.test.pem"
RENEWED = Path(__file__).parents[1] / "e2e" / "renewed.test.pem"
KEY = SecretKey(bytes([7]) * 32)


def at(host: Host, relay: Host, **options: object) -> object:
    return Endpoint.bind(network=host, bind=(), relays=[f"http://{relay.addresses[0]}/"], **options)  # type: ignore[arg-type]


@simulated()
async def test_a_relay_by_default(network: VirtualNetwork) -> None:
    """All interfaces, upstream's ports; clients over IPv4 and IPv6."""
    server = network.host("relay")
    async with RelayOperation.start(Config(), network=server) as relay:
        assert relay.addresses == {"http": ("::", 80), "metrics": ("::", 9090)}
        async with (
            at(network.host("a"), server) as ours,
            at(network.host("b"), server) as theirs,
            Router(theirs, ping.HANDLERS),
        ):
            await theirs.online()
            target = EndpointAddr(theirs.id, [RelayAddr(f"http://{server.addresses[0]}/")])
            async with ours.connect(target, alpn=[*ping.HANDLERS]) as connection:
                assert await ping.ping(connection) > 0
        assert relay.counters["accepts"] == 2


@simulated()
async def test_changes(network: VirtualNetwork) -> None:
    server = network.host("relay")
    async with (
        RelayOperation.start(Config(), network=server) as relay,
        at(network.host("a"), server, secret_key=KEY) as known,
        at(network.host("b"), server) as other,
    ):
        await known.online()
        await other.online()
        assert relay.clients == 2
        denied = parse_config(f'access.denylist = ["{KEY.public}"]')
        # Twice: what is as it was disturbs nobody.
        assert await relay.reload(denied) == [] == await relay.reload(denied)
        assert relay.config == denied
        await known.watch_home_relay.wait_for(
            lambda status: status and "not authorized" in (status.problem or "")
        )
        assert relay.clients == 1 and other.home_relay.is_connected
        moved = parse_config('http_bind_addr = "0.0.0.0:8080"\n')
        assert await relay.reload(moved) == ["http_bind_addr", "metrics_bind_addr"]
        await known.online()
        assert relay.clients == 2


@simulated()
async def test_a_change_that_cannot_be_changes_nothing(network: VirtualNetwork) -> None:
    async with RelayOperation.start(Config(), network=network.host("relay")) as relay:
        with pytest.raises(ConfigError, match="at least one token"):
            await relay.reload(parse_config("access.shared_token = []"))
        with pytest.raises(ConfigError, match="no ACME client"):
            await relay.reload(parse_config('[tls]\ncert_mode = "LetsEncrypt"\n'))
        assert relay.config == Config()


@simulated()
async def test_draining(network: VirtualNetwork) -> None:
    server = network.host("relay")
    loop = asyncio.get_running_loop()
    async with (
        RelayOperation.start(Config(), network=server) as relay,
        at(network.host("a"), server) as endpoint,
    ):
        await endpoint.online()
        begun = loop.time()
        await relay.drain(20.0)
        assert loop.time() - begun < 0.5
        await endpoint.watch_home_relay.wait_for(
            lambda status: status and status.state is RelayState.DISCONNECTED
        )


@simulated()
async def test_so_many_connections_in_a_second(network: VirtualNetwork) -> None:
    server, client = network.host("relay"), network.host("client")
    text = "[limits]\naccept_conn_limit = 2\naccept_conn_burst = 3\n"

    async def come(count: int) -> int:
        """How many of that many may stay."""
        lost: list[object] = []

        class Newcomer(asyncio.Protocol):
            def connection_lost(self, error: Exception | None) -> None:
                lost.append(self)

        for _ in range(count):
            await client.connect_tcp(Newcomer, server.addresses[0], 80)
        await asyncio.sleep(0.1)
        return count - len(lost)

    async with RelayOperation.start(parse_config(text), network=server) as relay:
        assert await come(5) == 3
        assert relay.counters["connections_refused"] == 2
        await asyncio.sleep(1)
        assert await come(5) == 2
        await relay.reload(Config())
        assert await come(50) == 50
        # Those that say nothing go by themselves.
        await asyncio.sleep(60)
        assert relay.counters["http_connections_closed"] == 55


@simulated()
async def test_an_address_that_is_taken_is_named(network: VirtualNetwork) -> None:
    server = network.host("relay")
    async with RelayOperation.start(Config(), network=server):
        with pytest.raises(BindError, match=r"cannot listen at \[::\]:80: .* another relay"):
            await RelayOperation.start(Config(), network=server)
    # What was begun is undone.
    config = parse_config('http_bind_addr = "0.0.0.0:81"\nmetrics_bind_addr = "9.9.9.9:1"')
    with pytest.raises(BindError, match=r"9\.9\.9\.9:1"):
        await RelayOperation.start(config, network=server)
    async with RelayOperation.start(Config(), network=server):
        pass


async def test_who_waits_for_an_answer_is_judged_by_the_new_rules() -> None:
    knocked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        knocked.set()
        await reader.read()
        writer.close()

    places = 'http_bind_addr = "127.0.0.1:0"\nenable_metrics = false\n'
    async with await asyncio.start_server(silent, "127.0.0.1", 0) as service:
        port = service.sockets[0].getsockname()[1]
        config = parse_config(f'{places}access.http.url = "http://127.0.0.1:{port}/"\n')
        async with RelayOperation.start(config) as relay:
            assert relay.server is not None
            async with Endpoint.bind(bind=(), relays=[relay.server.url]) as endpoint:
                async with asyncio.timeout(20):
                    await knocked.wait()
                    await relay.reload(parse_config(places))
                    await endpoint.online()
            assert relay.counters["access_denied"] == 0


async def discover(address: tuple[str, int], trusted: Path) -> None:
    """Ask there for our own address."""
    network = SystemNetwork()
    driver = Driver(_native.Engine(network.secret(32)))
    try:
        slot = network.bind_udp(driver, ("127.0.0.1", 0), UdpOptions())
        tls = _native.RelayTls(roots=trusted.read_bytes())
        query = AddressQuery(driver, address, "relay.test", tls)
        assert await query.observed() == ("127.0.0.1", slot.port)
        query.close()
    finally:
        await driver.aclose()


async def test_files_that_are_renewed_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(operation, "LOOK_AT_CERTIFICATE", 0.01)
    caplog.set_level("INFO", "aioiroh.relayserver")
    pem = tmp_path / "both.pem"
    pem.write_bytes(PEM.read_bytes())
    config = parse_config(
        f"""
        enable_relay = false
        enable_metrics = false
        enable_quic_addr_discovery = true
        [tls]
        cert_mode = "Reloading"
        quic_bind_addr = "127.0.0.1:0"
        manual_cert_path = "{pem}"
        manual_key_path = "{pem}"
        """
    )

    async def logged(words: str) -> None:
        async with asyncio.timeout(20):
            while words not in caplog.text:
                await asyncio.sleep(0.01)

    async with RelayOperation.start(config) as relay:
        assert list(relay.addresses) == ["quic"] and relay.clients == 0
        await discover(relay.addresses["quic"], PEM)
        pem.write_bytes(b"")
        await logged("cannot be used: ")
        await discover(relay.addresses["quic"], PEM)
        pem.write_bytes(RENEWED.read_bytes())
        await logged("the certificate was read again")
        await discover(relay.addresses["quic"], RENEWED)
        assert relay.counters["qad_connections"] == 3
