"""Net reports by upstream's relay, and our address discovery as upstream's peer uses it."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack

import pytest

from aioiroh import Endpoint, EndpointAddr, EndpointId, NetReport, RelayConfig, RelayUrl
from aioiroh.net import SystemNetwork
from aioiroh.relayserver import DiscoveryServer
from aioiroh.relayserver.metrics import DiscoveryCounters
from relay_server import CERTIFICATE, RelayServer, free_port
from remote_peer import RemotePeer

UPSTREAM_QUIC_PORT = 7842
ADDRESS = "10.99.0.1"

Server = Callable[..., RelayServer]


async def first_report(endpoint: Endpoint) -> NetReport:
    async with asyncio.timeout(20):
        report = await endpoint.watch_net_report.wait_for(lambda report: report is not None)
    assert report is not None
    return report


def config(relay: RelayServer, quic_port: int | None) -> RelayConfig:
    return RelayConfig(RelayUrl(relay.url), quic_port=quic_port)


async def test_two_relays_of_upstream_tell_where_they_see_us(
    upstream_relay: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioiroh.whereabouts.HOME_PATIENCE", 0.2)
    async with AsyncExitStack() as stack:
        ports = [free_port() for _ in range(2)]
        relays = [
            await stack.enter_async_context(upstream_relay(tls=True, quic_port=port))
            for port in ports
        ]
        endpoint = await stack.enter_async_context(
            Endpoint.bind(
                bind="127.0.0.1:0",
                relays=[config(*pair) for pair in zip(relays, ports, strict=True)],
                relay_ca=CERTIFICATE,
            )
        )
        report = await first_report(endpoint)
        assert report.udp_v4 and not report.udp_v6
        assert report.mapping_varies_by_dest_ipv4 is False
        assert report.global_v4 is not None
        assert report.global_v4.pair == ("127.0.0.1", endpoint.bound_sockets[0].port)
        assert report.relay_latency.ipv4.keys() == {RelayUrl(relay.url) for relay in relays}
        async with asyncio.timeout(20):
            await endpoint.online()
        assert endpoint.home_relay is not None
        assert endpoint.home_relay.url == report.preferred_relay
        # What peers would be offered is of use only here, so it is told once, as our own address.
        assert len(endpoint.addr.ip_addrs) == 1
        # The relay that goes away is left, and its place is taken by the other one.
        home = next(relay for relay in relays if relay.url == report.preferred_relay)
        await home.stop()
        async with asyncio.timeout(40):
            await endpoint.watch_home_relay.wait_for(
                lambda status: status and status.url != home.url and status.is_connected
            )


async def test_a_relay_without_address_discovery_is_measured_over_https(
    upstream_relay: Server,
) -> None:
    async with (
        upstream_relay(tls=True) as relay,
        Endpoint.bind(
            bind="127.0.0.1:0", relays=[config(relay, None)], relay_ca=CERTIFICATE
        ) as endpoint,
    ):
        report = await first_report(endpoint)
        assert not report.has_udp and report.global_v4 is None
        assert report.relay_latency.https.keys() == {RelayUrl(relay.url)}
        assert report.preferred_relay == relay.url


@pytest.fixture
def routable(
    isolated_network: None, require: Callable[[object, str], None]
) -> Iterator[Callable[[], None]]:
    """An address that is not loopback, without which upstream asks nobody where it is."""

    def ip(verb: str) -> bool:
        command = ["ip", "address", verb, f"{ADDRESS}/32", "dev", "lo"]
        return subprocess.run(command, check=False).returncode == 0

    require(ip("add"), "no address can be added to the loopback device (as root, with iproute2)")
    yield lambda: None
    ip("del")


async def learn(relay: RelayServer, iroh_peer: Callable[..., RemotePeer]) -> None:
    """Upstream's peer offers for hole punching what it was told by discovery."""
    pem = CERTIFICATE.read_bytes()
    end = b"-----END CERTIFICATE-----"
    certificate = pem[pem.index(b"-----BEGIN CERTIFICATE") : pem.index(end)] + end
    options = {
        "alpns": {"queue": "queue"},
        "addr": "0.0.0.0:0",
        "ca": ssl.PEM_cert_to_DER_cert(certificate.decode()).hex(),
    }
    async with (
        iroh_peer(relay=relay.url, **options) as peer,
        Endpoint.bind(bind="0.0.0.0:0") as endpoint,
    ):
        port = int(peer.addrs[0].rpartition(":")[2])
        target = EndpointAddr(EndpointId.parse(peer.id)).with_ip(ADDRESS, port)
        async with (
            asyncio.timeout(20),
            endpoint.connect(target, alpn=b"queue") as connection,
        ):
            while ("127.0.0.1", port) not in connection.state.native.nat_remote():
                await asyncio.sleep(0.02)


async def test_upstream_learns_its_address_from_our_discovery_server(
    routable: object, upstream_relay: Server, iroh_peer: Callable[..., RemotePeer]
) -> None:
    pem = CERTIFICATE.read_bytes()
    metrics = DiscoveryCounters()
    server = DiscoveryServer(
        SystemNetwork(), ("127.0.0.1", UPSTREAM_QUIC_PORT), chain=pem, key=pem, metrics=metrics
    )
    try:
        async with upstream_relay(tls=True) as relay:
            await learn(relay, iroh_peer)
        async with asyncio.timeout(20):
            while server.connection_count:
                await asyncio.sleep(0.02)
    finally:
        await server.aclose()
    assert metrics.qad_connections == metrics.qad_connections_closed >= 1
    # When it ends, upstream's endpoint closes them with another code than those it needs no more.
    assert metrics.qad_incoming_error == 0


async def test_upstream_learns_its_address_from_our_relay(
    routable: object, our_relay: Server, iroh_peer: Callable[..., RemotePeer]
) -> None:
    async with our_relay(tls=True, quic_port=UPSTREAM_QUIC_PORT) as relay:
        await learn(relay, iroh_peer)
