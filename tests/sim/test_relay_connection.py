"""How connections to relays end at the client."""

from __future__ import annotations

import asyncio

import pytest

from aioiroh import Endpoint, RelayUrl, SecretKey
from aioiroh.relay.connection import CLOSE_TIMEOUT, RelayConnection
from aioiroh.testing import simulated
from worlds import RELAY, RELAY_URL, relay


class Deaf(asyncio.Protocol):
    def connection_made(self, transport):
        transport.pause_reading()


class Talk:
    """In place of the native protocol: has much to say once."""

    counters = (0, 0)

    def __init__(self):
        self.waiting = bytes(16 << 20)

    def take(self):
        waiting, self.waiting = self.waiting, b""
        return waiting

    def close(self):
        self.waiting = b"goodbye"


@simulated()
async def test_a_relay_that_takes_nothing_keeps_no_socket(network):
    listener = await network.host("relay").listen_tcp(Deaf, "0.0.0.0", 80)
    ignored = {"on_event": print, "on_datagrams": print, "on_frames": print}
    connection = await network.host("client").connect_tcp(
        lambda: RelayConnection(Talk(), **ignored), "relay", 80
    )
    await asyncio.sleep(1)
    connection.close()
    await asyncio.sleep(1)
    assert not connection.ended.done()
    async with asyncio.timeout(CLOSE_TIMEOUT):
        assert (await connection.ended).kind == "lost"
    listener.close()


@simulated()
async def test_a_relay_that_becomes_home_while_another_is_left_stays(network):
    names = [RelayUrl(f"http://relay{number}/") for number in range(3)]
    async with Endpoint.bind(network=network.host("us"), relays=names[:1]) as endpoint:
        relays = endpoint._where._relays
        for url in names[1:]:
            relays.way_to(url, SecretKey.generate().public)
        leave, left = relays._leave, []

        async def leaving(url):
            await leave(url)
            left.append(url)
            if len(left) == 1:
                relays.set_home(names[2])

        relays._leave = leaving
        await asyncio.sleep(90)
        assert left == [names[1]]
        assert names[2] in relays._clients


@pytest.mark.parametrize("six", ["answers", "is silent", "refuses"])
@simulated()
async def test_a_relay_with_both_ip_versions_is_reached_by_either(network, six):
    """IPv6 first, and a quarter of a second later IPv4 beside it (RFC 8305)."""
    machine = network.host(RELAY)
    [four] = [ip for ip in machine.addresses if ":" not in ip]
    [works] = [ip for ip in machine.addresses if ":" in ip]
    silent, other = network.host("silent"), network.host("other")
    silent.up = False
    answers = {"answers": works, "is silent": silent.addresses[1], "refuses": other.addresses[1]}
    resolve = network.resolve
    network.resolve = lambda name: (answers[six], four) if name == RELAY else resolve(name)
    async with relay(network), Endpoint.bind(network=network.host("us"), relays=[RELAY_URL]) as us:
        begun = network.loop.time()
        await us.online()
        took = network.loop.time() - begun
        [(client, _)] = us._where._relays._clients.values()
        assert (":" in client._connection.local_ip) is (six == "answers")
        assert int(took / 0.25) == {"answers": 0, "is silent": 1, "refuses": 0}[six], took
