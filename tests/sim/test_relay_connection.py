"""How connections to relays end at the client."""

from __future__ import annotations

import asyncio

from aioiroh import Endpoint, RelayUrl, SecretKey
from aioiroh.relay.connection import CLOSE_TIMEOUT, RelayConnection
from aioiroh.testing import simulated


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
