"""Networks with relays and NATs, and endpoints on them, for simulations of whole endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aioiroh import Connection, Endpoint, EndpointAddr
from aioiroh.address import DEFAULT_QUIC_PORT
from aioiroh.relayserver import DiscoveryServer, RelayServer
from aioiroh.relayserver.metrics import DiscoveryCounters
from aioiroh.testing import Host, Link, Nat, Router, VirtualNetwork

ALPN = b"worlds"
RELAY, OTHER_RELAY = "relay.example", "other.relay.example"
RELAY_URL, OTHER_URL = f"http://{RELAY}/", f"http://{OTHER_RELAY}/"
CERTIFICATE = Path(__file__).with_name("relays.pem")
KINDS = ("none", "open", "moderate", "strict")


@asynccontextmanager
async def relay(network: VirtualNetwork, name: str = RELAY, **host) -> AsyncIterator[RelayServer]:
    """A relay on a host of that name, at `http://NAME/`, which also tells addresses (QUIC address discovery)."""
    machine = network.hosts.get(name) or network.host(name, **host)
    async with RelayServer.bind(network=machine, http=("::", 80)) as server:
        pem = CERTIFICATE.read_bytes()
        discovery = DiscoveryServer(
            machine, ("::", DEFAULT_QUIC_PORT), chain=pem, key=pem, metrics=DiscoveryCounters()
        )
        try:
            yield server
        finally:
            await discovery.aclose()


@asynccontextmanager
async def relays(network: VirtualNetwork, **host) -> AsyncIterator[tuple[str, ...]]:
    """Two relays, so that a changing mapping shows; gives their URLs."""
    async with relay(network, RELAY, **host), relay(network, OTHER_RELAY, **host):
        yield RELAY_URL, OTHER_URL


def behind(
    network: VirtualNetwork,
    kind: str,
    name: str,
    link: Link | None = None,
    *,
    inside: str | None = None,
) -> Host:
    """A host behind a router of that kind (or on the internet); `link` leads to the internet. IPv4 only.

    `inside`: the network of the host; by default all homes have the same one.
    """
    nat = Nat.kind(kind)
    if nat is None:
        return network.host(name, ipv6=False, link=link)
    router = network.router(f"{name}'s router", nat=nat, link=link, ipv4=inside)
    return network.host(name, segment=router.inside)


def router_of(host: Host) -> Router:
    """The router that `behind` made."""
    return host.network.routers[f"{host.name}'s router"]


@dataclass
class Ends:
    """Both ends of a connection, and their endpoints."""

    client: Connection
    server: Connection
    client_endpoint: Endpoint
    server_endpoint: Endpoint


@asynccontextmanager
async def connected(
    client: Host,
    server: Host,
    *,
    relays: tuple[str, ...] = (RELAY_URL,),
    by_relay: bool = False,
    **options,
) -> AsyncIterator[Ends]:
    """Endpoints on two hosts, online where there are relays, and a connection. `by_relay`: the client knows
    nothing but the server's relay.
    """
    if relays:
        options = {"relays": relays, "relay_ca": CERTIFICATE, **options}
    async with AsyncExitStack() as stack:
        listening = await stack.enter_async_context(
            Endpoint.bind(network=server, alpns=[ALPN], **options)
        )
        dialling = await stack.enter_async_context(Endpoint.bind(network=client, **options))
        if relays:
            await listening.online()
            await dialling.online()
        address = listening.addr
        if by_relay:
            address = EndpointAddr(listening.id).with_relay(str(address.relay_urls[0]))
        accepting = asyncio.ensure_future(_accept(listening))
        try:
            near = await dialling.connect(address, alpn=ALPN)
            far = await accepting
        finally:
            accepting.cancel()
        yield Ends(near, far, dialling, listening)


async def _accept(endpoint: Endpoint) -> Connection:
    return await (await endpoint.accept()).accept()


def is_direct(connection: Connection) -> bool:
    """Whether its data take a path without a relay."""
    return any(path.relay is None and path.status == "available" for path in connection.paths.value)


async def direct(connection: Connection) -> None:
    """Wait until data take a direct path."""
    async for _ in connection.paths:
        if is_direct(connection):
            return
