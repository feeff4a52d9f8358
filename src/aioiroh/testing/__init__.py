"""Virtual time and a virtual network, to test programs that use aioiroh.

Unchanged endpoints run in one process, without sockets, at thousands of simulated seconds per second,
and each run can be repeated by its seed::

    from aioiroh import testing

    @testing.simulated(seeds=30)
    async def test_greeting(network):
        link = testing.Link(latency=0.05, loss=0.1)
        async with testing.pair(network, link=link) as (client, server):
            async with client.open_uni() as stream:
                await stream.write(b"hello")
            assert await (await server.accept_uni()).read_all(limit=100) == b"hello"
"""

from aioiroh.testing.host import Host
from aioiroh.testing.link import Link
from aioiroh.testing.log import PacketLog, PacketRecord
from aioiroh.testing.loop import DeadlockError, SimulatedTimeoutError, VirtualLoop
from aioiroh.testing.nat import Nat
from aioiroh.testing.network import VirtualNetwork
from aioiroh.testing.pair import Pair, pair
from aioiroh.testing.router import Router
from aioiroh.testing.segment import Interface, Segment
from aioiroh.testing.simulation import chosen_seeds, run, run_seeds, simulated

__all__ = [
    "DeadlockError",
    "Host",
    "Interface",
    "Link",
    "Nat",
    "PacketLog",
    "PacketRecord",
    "Pair",
    "Router",
    "Segment",
    "SimulatedTimeoutError",
    "VirtualLoop",
    "VirtualNetwork",
    "chosen_seeds",
    "pair",
    "run",
    "run_seeds",
    "simulated",
]
