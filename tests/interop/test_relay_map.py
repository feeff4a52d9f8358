"""Relays that come and go while an endpoint lives."""

from __future__ import annotations

import asyncio

import pytest

from aioiroh import Endpoint, EndpointAddr, RelayAddr, RelayConfig
from aioiroh.net import NetworkState
from aioiroh.relay import relays
from relayed import ALPN, NOWHERE, Server, at, echoing, exchange


async def home_is(endpoint: Endpoint, url: str | None) -> None:
    async with asyncio.timeout(10):
        await endpoint.watch_home_relay.wait_for(
            lambda status: (status.url if status and status.is_connected else None) == url
        )


async def test_relays_that_are_inserted_and_removed(relay_server: Server) -> None:
    async with (
        relay_server() as one,
        relay_server() as two,
        Endpoint.bind(bind=NOWHERE) as server,
        echoing(server),
        at(one, bind=()) as client,
    ):
        assert server.insert_relay(one.url) is None
        await home_is(server, one.url)
        assert server.insert_relay(two.url) is None
        assert server.home_relay is not None and server.home_relay.url == one.url
        async with client.connect(server.addr, alpn=ALPN, timeout=10) as before:
            removed = server.remove_relay(one.url)
            assert removed == RelayConfig(one.url)
            await home_is(server, two.url)
            assert RelayAddr(two.url) in server.addr.addrs
            assert RelayAddr(one.url) not in server.addr.addrs
            target = EndpointAddr(server.id, [RelayAddr(two.url)])
            async with client.connect(target, alpn=ALPN, timeout=10) as connection:
                await exchange(connection, 100_000)
            # It is still there for those who use it.
            await exchange(before, 100_000)
        assert server.remove_relay(one.url) is None
        server.remove_relay(two.url)
        assert server.home_relay is None
        assert not server.addr.relay_urls
        changes = server.metrics.snapshot()["socket"]["relay_home_change"]
        assert changes == 3


async def test_another_token_is_used_at_once(relay_server: Server) -> None:
    async with (
        relay_server(access={"shared_token": ["sesame"]}) as relay,
        Endpoint.bind(bind=NOWHERE, relays=[relay.url]) as endpoint,
    ):
        async with asyncio.timeout(10):
            await endpoint.watch_home_relay.wait_for(lambda status: status and status.problem)
        endpoint.insert_relay(RelayConfig(relay.url, auth_token="sesame"))
        await home_is(endpoint, relay.url)


async def test_a_relay_that_is_not_needed_is_left(
    relay_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "IDLE_TIMEOUT", 0.4)
    async with (
        relay_server() as home,
        relay_server() as far,
        at(far, bind=()) as server,
        echoing(server),
        at(home, bind=()) as client,
    ):
        ways = []
        for _ in range(2):
            async with client.connect(server.addr, alpn=ALPN, timeout=10) as connection:
                await exchange(connection, 10_000)
                ways.append(connection.paths.value[0].remote)
            counted = client.metrics.socket
            async with asyncio.timeout(10):
                while counted.relay_conns_closed < len(ways):
                    await asyncio.sleep(0.05)
            assert client.home_relay is not None and client.home_relay.is_connected
        # Nothing is left of it in the engine, and it comes back as it was.
        assert ways[0] == ways[1]
        assert not client._driver.engine.drop_route(ways[0][0])


async def test_what_becomes_of_relay_connections_when_the_network_changes(
    relay_server: Server,
) -> None:
    async with relay_server() as relay, at(relay) as endpoint:
        counted = endpoint.metrics.socket
        loopback = NetworkState.of(endpoint.network)
        endpoint._where.network_changed(loopback, major=True)
        await asyncio.sleep(0.1)
        assert (counted.relay_conns_success, counted.relay_conns_closed) == (1, 0)
        # The address that it was made from is gone.
        endpoint._where.network_changed(NetworkState((), ()), major=True)
        async with asyncio.timeout(10):
            while counted.relay_conns_success < 2:
                await asyncio.sleep(0.01)
        await home_is(endpoint, relay.url)
