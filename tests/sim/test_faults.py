"""Random networks, and everything that can happen to them, one thing after another: data arrive as they were written.

As a program it prints fingerprints of the packets of the seeds it is given.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from random import Random

from aioiroh import testing
from aioiroh.testing import Host, Link, VirtualNetwork, simulated
from flows import Flow
from worlds import KINDS, OTHER_RELAY, RELAY, Ends, behind, connected, relays

LONGEST = 28.0
"""Seconds that any trouble lasts: then the network is whole again."""
REST = 10.0
"""Seconds between two troubles."""
TROUBLES = 3


def random_link(random: Random) -> Link:
    return Link(
        latency=random.choice([0.002, 0.02, 0.05, 0.12]),
        jitter=random.choice([0.0, 0.0, 0.01]),
        loss=random.choice([0.0, 0.0, 0.01, 0.05]),
        burst=random.choice([0.0, 0.0, 0.001]),
        duplicate=random.choice([0.0, 0.02]),
        reorder=random.choice([0.0, 0.02]),
        bandwidth=random.choice([None, 2e6, 20e6]),
        queue=random.choice([64_000, 256_000]),
    )


class World:
    """Two hosts somewhere, relays, and what can go wrong with them."""

    def __init__(self, network: VirtualNetwork, random: Random) -> None:
        self.network = network
        self.random = random
        self.hosts = [
            behind(network, random.choice(KINDS), name, random_link(random))
            for name in ("near", "far")
        ]
        self._relays = AsyncExitStack()

    async def open_relays(self) -> tuple[str, ...]:
        self._relays = AsyncExitStack()
        return await self._relays.enter_async_context(relays(self.network))

    async def close_relays(self) -> None:
        await self._relays.aclose()

    def some_host(self) -> Host:
        return self.random.choice(self.hosts)

    async def trouble(self) -> None:
        """One thing happens, and is over."""
        things: list[Callable[[float], Awaitable[None]]] = [
            self.no_interface,
            self.silence,
            self.bad_link,
            self.other_address,
            self.forgetful_router,
            self.no_udp,
            self.no_relays,
            self.other_uplink,
            self.wrong_clock,
        ]
        await self.random.choice(things)(self.random.uniform(0.1, LONGEST))

    async def no_interface(self, lasting: float) -> None:
        host = self.some_host()
        host.up = False
        await asyncio.sleep(lasting)
        host.up = True

    async def silence(self, lasting: float) -> None:
        """Nobody is told of it."""
        await self._with_link(Link(loss=1.0), lasting)

    async def bad_link(self, lasting: float) -> None:
        await self._with_link(Link(latency=0.3, loss=0.2, bandwidth=500e3), lasting)

    async def _with_link(self, link: Link, lasting: float) -> None:
        host = self.some_host()
        faces = tuple(host.interfaces.values())
        before = [face.uplink for face in faces]
        for face in faces:
            face.uplink = face.downlink = link
        await asyncio.sleep(lasting)
        for face, old in zip(faces, before, strict=True):
            face.uplink = face.downlink = old

    async def other_address(self, _: float) -> None:
        for face in self.some_host().interfaces.values():
            face.renumber()

    async def forgetful_router(self, _: float) -> None:
        for router in self.network.routers.values():
            if self.random.random() < 0.5:
                router.flush()
            else:
                router.outside.renumber()

    async def no_udp(self, lasting: float) -> None:
        for router in self.network.routers.values():
            router.carries_udp = False
        await asyncio.sleep(lasting)
        for router in self.network.routers.values():
            router.carries_udp = True

    async def no_relays(self, lasting: float) -> None:
        for name in (RELAY, OTHER_RELAY):
            self.network.hosts[name].crash()
        await self.close_relays()
        await asyncio.sleep(lasting / 2)
        await self.open_relays()

    async def other_uplink(self, lasting: float) -> None:
        host = self.some_host()
        old = next(iter(host.interfaces.values()))
        host.add_interface(f"wlan{self.network.loop.time():.0f}", link=random_link(self.random))
        await asyncio.sleep(lasting if self.random.random() < 0.5 else 0.0)
        host.remove_interface(old.name)

    async def wrong_clock(self, _: float) -> None:
        self.some_host().clock_ahead += self.random.choice([-3600.0, 30.0, 86_400.0])


async def scenario(network: VirtualNetwork) -> None:
    random = network.chance("scenario")
    world = World(network, random)
    urls = await world.open_relays()
    async with connected(*world.hosts, relays=urls) as ends:
        flows = [flow(ends, number, random) for number in range(random.randint(1, 3))]
        for _ in range(TROUBLES):
            await asyncio.sleep(random.uniform(0.0, REST))
            await world.trouble()
            await asyncio.sleep(REST)
        await asyncio.gather(*(each.stop() for each in flows))
        assert ends.client.close_reason is None
        assert ends.server.close_reason is None
    await world.close_relays()


def flow(ends: Ends, number: int, random: Random) -> Flow:
    # Streams are accepted in the order in which the peer opened them: one name for each direction and place.
    source, target = (ends.client, ends.server) if number % 2 else (ends.server, ends.client)
    return Flow(
        source, target, rate=random.choice([100, 1_000, 5_000]), tick=0.3, name=f"flow {number}"
    )


async def reported(network: VirtualNetwork) -> str:
    await scenario(network)
    return f"{network.log.fingerprint()} {network.log.count} {network.loop.time()}"


@simulated(seeds=50)
async def test_random_troubles(network):
    await scenario(network)


@simulated(seeds=5)
async def test_what_was_acknowledged_is_there_though_the_network_is_gone(network):
    near, far = (network.host(name, link=random_link(network.chance(name))) for name in "ab")
    async with connected(near, far, relays=()) as ends:
        sent = network.chance("content").randbytes(300_000)
        async with ends.client.open_uni() as stream:
            await stream.write(sent)
            await stream.finish()
            await stream.acked()
        near.up = far.up = False
        received = await ends.server.accept_uni()
        assert await received.read_all(limit=len(sent)) == sent


def test_the_same_seed_gives_the_same_packets(twice):
    first, second = twice(__file__, range(2))
    assert first == second
    assert first[0] != first[1]


if __name__ == "__main__":
    for seed in map(int, sys.argv[1:]):
        print(seed, testing.run(reported, seed=seed), flush=True)
