"""Tickets, endpoints and routers; and the same in virtual time."""

from __future__ import annotations

import asyncio

import pytest

import aioiroh
from aioiroh import blobs
from aioiroh.blobs import BlobFormat, BlobTicket, MemoryStore, Provider
from aioiroh.testing import Link, VirtualLoop, VirtualNetwork

DATA = bytes(range(256)) * 2000


@pytest.mark.loops
async def test_a_ticket_is_enough() -> None:
    async with (
        MemoryStore() as source,
        MemoryStore() as target,
        aioiroh.Endpoint.bind(bind=("127.0.0.1", 0)) as server,
        aioiroh.Endpoint.bind(bind=("127.0.0.1", 0)) as client,
        aioiroh.Router(server, {blobs.ALPN: Provider(source)}),
    ):
        child = await source.add_bytes(DATA)
        root = await source.add_bytes(bytes(child.hash), BlobFormat.HASH_SEQ)
        ticket = BlobTicket(server.addr, root.hash, BlobFormat.HASH_SEQ)
        async with asyncio.timeout(10):
            async with blobs.get(client, str(ticket), into=target) as transfer:
                got = await transfer
            assert got.content == ticket.content
            assert await target.read_bytes(child.hash, limit=len(DATA)) == DATA
            plain = await blobs.get_bytes(client, child.hash, provider=server.addr, limit=len(DATA))
            assert plain == DATA
        with pytest.raises(ValueError, match="name the provider"):
            blobs.get(client, child.hash, into=target)


def test_in_virtual_time() -> None:
    async def transfer() -> float:
        network = VirtualNetwork()
        link = Link(latency=0.02, bandwidth=2_000_000, loss=0.02)
        loop = asyncio.get_running_loop()
        async with (
            MemoryStore() as source,
            MemoryStore() as target,
            aioiroh.Endpoint.bind(network=network.host("a", link=link)) as server,
            aioiroh.Endpoint.bind(network=network.host("b", link=link)) as client,
            aioiroh.Router(server, {blobs.ALPN: Provider(source)}),
        ):
            added = await source.add_bytes(DATA)
            begun = loop.time()
            await blobs.get(client, BlobTicket(server.addr, added.hash), into=target)
            assert await target.read_bytes(added.hash, limit=len(DATA)) == DATA
            return loop.time() - begun

    times = []
    for _ in range(2):
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            times.append(runner.run(transfer()))
    assert times[0] == times[1] > 0.1
