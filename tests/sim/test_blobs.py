"""Blobs over bad networks: what arrives is what was sent, or an error says why not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from aioiroh import ConnectionTimeoutError, Endpoint, Router, blobs
from aioiroh.testing import Link, simulated

SIZES = [0, 1, 1024, 16 * 1024, 16 * 1024 + 1, 700_000]


def fill(folder: Path, random: Random) -> dict[str, bytes]:
    content = {f"file {size}": random.randbytes(size) for size in SIZES}
    folder.mkdir()
    for name, data in content.items():
        (folder / name).write_bytes(data)
    return content


@pytest.mark.parametrize("outage", [0.0, 10.0])
@simulated(seeds=5)
async def test_a_folder_crosses(network, outage, tmp_path):
    random = network.chance("content")
    link = Link(latency=0.03, loss=random.choice([0.0, 0.02, 0.05]), reorder=0.02)
    content = fill(tmp_path / "folder", random)
    provider_host, getter_host = network.host("provider", link=link), network.host("getter")
    async with (
        Endpoint.bind(network=provider_host) as provider,
        Endpoint.bind(network=getter_host) as getter,
        blobs.MemoryStore() as ours,
        blobs.MemoryStore() as theirs,
        Router(provider, {blobs.ALPN: blobs.Provider(ours)}),
    ):
        shared = await blobs.import_paths(ours, [tmp_path / "folder"])
        ticket = blobs.BlobTicket(provider.addr, shared.root.hash, blobs.BlobFormat.HASH_SEQ)
        transfer = asyncio.ensure_future(transferred(getter, ticket, theirs))
        if outage:
            # A handshake that takes longer than 10 s would be given up by the router.
            while network.log.totals().get("received", 0) < 40:
                await asyncio.sleep(0.01)
            provider_host.up = False
            await asyncio.sleep(outage)
            assert not transfer.done()
            provider_host.up = True
        await transfer
        collection = await blobs.load_collection(theirs, ticket.hash)
        target = tmp_path / "target"
        target.mkdir()
        await blobs.export_collection(theirs, collection, target)
    assert {path.name: path.read_bytes() for path in (target / "folder").iterdir()} == content


async def transferred(getter: Endpoint, ticket: blobs.BlobTicket, store: blobs.MemoryStore) -> None:
    await blobs.get(getter, ticket, into=store)


@simulated()
async def test_a_provider_that_vanishes_is_noticed(network, tmp_path):
    fill(tmp_path / "folder", network.chance("content"))
    hosts = [network.host(name) for name in ("provider", "getter")]
    async with (
        Endpoint.bind(network=hosts[0]) as provider,
        Endpoint.bind(network=hosts[1]) as getter,
        blobs.MemoryStore() as ours,
        blobs.MemoryStore() as theirs,
        Router(provider, {blobs.ALPN: blobs.Provider(ours)}),
    ):
        shared = await blobs.import_paths(ours, [tmp_path / "folder"])
        ticket = blobs.BlobTicket(provider.addr, shared.root.hash, blobs.BlobFormat.HASH_SEQ)
        transfer = asyncio.ensure_future(transferred(getter, ticket, theirs))
        await asyncio.sleep(0.09)
        hosts[0].up = False
        with pytest.raises(ConnectionTimeoutError):
            await transfer
        assert 29 < network.loop.time() < 40
