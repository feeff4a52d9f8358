"""Everything at once on random networks: what was written arrives, and each run can be repeated.

As a program it prints fingerprints of the packets of the seeds it is given.
"""

from __future__ import annotations

import asyncio
import sys
from random import Random

from aioiroh import testing
from aioiroh.errors import ConnectionLostError, StreamResetError, StreamStoppedError
from aioiroh.testing import Link, VirtualNetwork, simulated


def random_link(random: Random) -> Link:
    """A link that is bad in some ways and good in others."""
    return Link(
        latency=random.choice([0.001, 0.01, 0.04, 0.15]),
        jitter=random.choice([0.0, 0.0, 0.01, 0.05]),
        loss=random.choice([0.0, 0.01, 0.05, 0.1, 0.2]),
        duplicate=random.choice([0.0, 0.0, 0.02]),
        reorder=random.choice([0.0, 0.0, 0.05]),
        bandwidth=random.choice([None, None, 2e6, 10e6]),
        queue=random.choice([20_000, 64_000, 256_000]),
        mark_above=random.choice([None, 10_000]),
    )


async def scenario(network: VirtualNetwork) -> None:
    """Streams each way, resets, stops and datagrams at random; checks what arrives."""
    random = network.chance("scenario")
    async with testing.pair(network, link=random_link(random)) as (client, server):
        outages = asyncio.create_task(interrupt(network, random))
        async with asyncio.TaskGroup() as group:
            for number, (near, far) in enumerate(((client, server), (server, client))):
                group.create_task(send_streams(near, Random(f"{network.seed} {number}")))
                group.create_task(receive_streams(far, Random(f"{network.seed} {number} reader")))
                group.create_task(datagrams(near, far))
        outages.cancel()
        assert client.close_reason is None
        assert server.close_reason is None
        client.close(5, b"done")
        reason = await server.closed()
        # The packet that says so may be lost, and then only silence tells.
        assert getattr(reason, "code", 5) == 5, reason


STREAMS = 12


async def interrupt(network: VirtualNetwork, random: Random) -> None:
    """Takes the client off the network now and then, for less than the idle time-out."""
    host = network.hosts["client"]
    while True:
        await asyncio.sleep(random.expovariate(1 / 5))
        host.up = False
        await asyncio.sleep(random.uniform(0.05, 3))
        host.up = True
        await asyncio.sleep(15)


def content(number: int, size: int) -> bytes:
    return Random(number).randbytes(size)


async def send_streams(connection, random: Random) -> None:
    async def send(number: int, size: int, give_up: bool) -> None:
        data = content(number, size)
        stream = await connection.open_uni()
        try:
            await stream.write(number.to_bytes(2, "big") + size.to_bytes(4, "big"))
            position = 0
            while position < size:
                piece = random.randint(1, 30_000)
                await stream.write(data[position : position + piece])
                position += piece
                if give_up and position > size // 2:
                    stream.reset(number)
                    return
            await stream.finish()
            await stream.acked()
        except StreamStoppedError as stopped:
            assert stopped.code == 1000 + number

    async with asyncio.TaskGroup() as group:
        for number in range(STREAMS):
            size = random.choice([0, 1, 100, 5_000, 60_000, 200_000])
            group.create_task(send(number, size, give_up=size > 0 and random.random() < 0.2))
            await asyncio.sleep(random.expovariate(10))


async def receive_streams(connection, random: Random) -> None:
    async def receive(stream, patience: float) -> None:
        received = bytearray()
        number = None
        try:
            header = await stream.read_exactly(6)
            number, size = int.from_bytes(header[:2], "big"), int.from_bytes(header[2:], "big")
            expected = content(number, size)
            while chunk := await stream.read(random.randint(1, 40_000)):
                received += chunk
                assert expected.startswith(received), "not a prefix of what was written"
                if random.random() < 0.01:
                    stream.stop(1000 + number)
                    return
                if random.random() < 0.1:
                    await asyncio.sleep(random.expovariate(patience))
            assert received == expected
        except StreamResetError as reset:
            assert number in (None, reset.code)

    async with asyncio.TaskGroup() as group:
        for _ in range(STREAMS):
            stream = await connection.accept_uni()
            group.create_task(receive(stream, patience=random.choice([0.5, 5, 50])))


async def datagrams(near, far) -> None:
    """Datagrams may be lost or come late, but never changed."""
    sent = [Random(number).randbytes(number * 7) for number in range(60)]

    async def receive() -> None:
        async for datagram in far.datagrams():
            assert datagram in sent

    reader = asyncio.create_task(receive())
    for datagram in sent:
        near.send_datagram(datagram)
        await asyncio.sleep(0.05)
    await asyncio.sleep(1)
    if reader.done():
        reader.result()
    reader.cancel()


async def reported(network: VirtualNetwork) -> str:
    try:
        await scenario(network)
    except ConnectionLostError as error:
        return f"{network.log.fingerprint()} {error!r}"
    return f"{network.log.fingerprint()} {network.log.count} {network.loop.time()}"


@simulated(seeds=30)
async def test_mixed_faults(network):
    await scenario(network)


def test_the_same_seed_gives_the_same_packets(twice):
    first, second = twice(__file__, range(6))
    assert first == second
    assert len(set(first)) == 6


if __name__ == "__main__":
    for seed in map(int, sys.argv[1:]):
        print(seed, testing.run(reported, seed=seed), flush=True)
