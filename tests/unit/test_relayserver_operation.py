"""A relay as its configuration says, on a simulated network and on loopback."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aioiroh import Endpoint, EndpointAddr, RelayAddr, RelayState, Router, SecretKey, ping
from aioiroh.errors import BindError
from aioiroh.relayserver import Config, ConfigError, RelayOperation, operation, parse_config
from aioiroh.testing import Host, VirtualNetwork, simulated

PEM = Path(__file__).parents[2] / "rust" / "relay" / "tests" / "relay.test.pem"
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
        assert await relay.reload(denied) == []
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
        assert loop.time() - begun <= 20.1
        await endpoint.watch_home_relay.wait_for(
            lambda status: status and status.state is RelayState.DISCONNECTED
        )


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
        pem.write_bytes(b"")
        await logged("cannot be used: ")
        pem.write_bytes(PEM.read_bytes() + b"\n")
        await logged("the certificate was read again")
