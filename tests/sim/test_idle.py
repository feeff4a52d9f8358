"""What endpoints do while nobody asks anything of them: little, and always the same little."""

from __future__ import annotations

import asyncio

import pytest

from aioiroh.testing import simulated
from worlds import behind, connected, direct, relay


@pytest.mark.parametrize("apart", ["connected", "online"])
@simulated(time_limit=None)
async def test_twenty_minutes_of_nothing(network, apart):
    """Two endpoints with a home relay; connected ones have a direct path, too."""
    loop = network.loop
    async with (
        relay(network),
        connected(behind(network, "none", "near"), behind(network, "moderate", "far")) as ends,
    ):
        await direct(ends.client)
        if apart == "online":
            ends.client.close()
            await ends.server.closed()
        await asyncio.sleep(120)
        before, turns, packets = loop.time(), loop._turns, network.log.count
        await asyncio.sleep(1200)
        seconds = loop.time() - before
        # Every turn of the loop costs a real machine a wake-up. A path costs a ping every 5 s.
        assert (loop._turns - turns) / seconds < (20 if apart == "connected" else 7)
        assert (network.log.count - packets) / seconds < (7 if apart == "connected" else 2)
