"""Links from good to terrible: a transfer comes through on every rung, directly and through a relay."""

from __future__ import annotations

import asyncio

import pytest

from aioiroh.testing import Link, simulated
from flows import Flow
from worlds import RELAY_URL, behind, connected, relay


def rung(bandwidth: float, rtt: float, loss: float) -> Link:
    """A link as people name them: bits per second, round trip in seconds, share of packets lost each way."""
    return Link(
        bandwidth=bandwidth,
        latency=rtt / 2,
        loss=loss,
        queue=max(round(bandwidth * rtt / 8), 64_000),
    )


LADDER = {
    "good Wi-Fi": rung(100e6, 0.016, 0.001),
    "poor Wi-Fi": rung(20e6, 0.03, 0.02),
    "mobile": rung(10e6, 0.08, 0.005),
    "far mobile": rung(2e6, 0.2, 0.03),
    "satellite": rung(25e6, 0.6, 0.015),
    "500k": rung(500e3, 0.45, 0.12),
    "256k": rung(256e3, 0.8, 0.25),
}


@pytest.mark.parametrize("name", LADDER)
@simulated(seeds=3)
async def test_a_transfer_on_every_rung(network, name):
    link = LADDER[name]
    near, far = network.host("near", link=link), network.host("far", link=Link(latency=0.0))
    async with connected(near, far, relays=()) as ends:
        size = round(min(max(link.bandwidth / 8 * 10, 100_000), 1_000_000))
        down = Flow(ends.server, ends.client, size=size, name="down")
        up = Flow(ends.client, ends.server, size=size // 10, name="up")
        async with asyncio.timeout(300):
            await down.done
            await up.done


# A client leaves a relay that does not answer within 5 s. TCP that loses every fourth packet cannot promise that.
@pytest.mark.parametrize("name", [name for name in LADDER if name != "256k"])
@simulated(seeds=3)
async def test_a_transfer_through_a_relay_on_every_rung(network, name):
    link = LADDER[name]
    near, far = behind(network, "moderate", "near", link), behind(network, "strict", "far")
    network.routers["near's router"].carries_udp = False
    async with relay(network, link=Link(latency=0.0)), connected(near, far) as ends:
        size = round(min(max(link.bandwidth / 8 * 10, 100_000), 1_000_000)) // 2
        async with asyncio.timeout(300):
            await Flow(ends.server, ends.client, size=size).done
        assert [str(path.relay) for path in ends.client.paths.value] == [RELAY_URL]
