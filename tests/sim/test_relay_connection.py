"""The client's end of a connection to a relay that takes nothing."""

from __future__ import annotations

import asyncio

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
