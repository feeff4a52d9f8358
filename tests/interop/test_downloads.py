"""One download from several providers at once, upstream's among them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from aioiroh import Endpoint, Router, blobs
from aioiroh.blobs import (
    BlobFormat,
    BlobTicket,
    ChunkRanges,
    Downloader,
    FileStore,
    HashAndFormat,
    Limits,
    MemoryStore,
    Provider,
)
from commands import fill, tree
from meeting import LOOPBACK, address, pattern
from sharing import ALPN, from_them, hash_of, hex_of, one_blob
from test_sendme import quiet

Peers = dict[str, Callable[..., Any]]
SIZE = 60 << 20
RATE = 6 << 20
"""Bytes per second of each of ours, so that the others have their part in it."""


@contextmanager
def sendme_process(sendme: Path, path: Path, work: Path) -> Any:
    """Shares a path with sendme; its process and its ticket."""
    work.mkdir()
    command = quiet(sendme, "send", path, "--ticket-type", "addresses")
    with subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(3)]
            yield process, BlobTicket.parse(lines[-1].split()[-1])
        finally:
            process.kill()


@asynccontextmanager
async def ours(path: Path, **options: Any) -> AsyncIterator[tuple[Any, blobs.Hash]]:
    """One of our providers with a path imported; its address, and the hash."""
    async with (
        MemoryStore() as store,
        Endpoint.bind(bind=LOOPBACK) as endpoint,
        Router(endpoint, {blobs.ALPN: Provider(store, **options)}),
    ):
        imported = await blobs.import_paths(store, [path])
        yield endpoint.addr, imported.root.hash


async def they_import(peer: Any, collection: blobs.Collection, folder: Path) -> blobs.Hash:
    """The files of a collection, and the collection, into the store of an upstream peer."""
    await peer("store")
    for name in collection.names:
        await peer("blob_add", path=str(folder / name))
    added = await peer(
        "blob_add_collection",
        names=list(collection.names),
        hashes=[hex_of(hash) for hash in collection.hashes],
    )
    return hash_of(added)


def received(download: blobs.Download) -> dict[Any, int]:
    return {provider.id: provider.received for provider in download.progress.providers}


async def test_three_of_theirs_and_three_of_ours_serve_one_download(
    sendme: Path, peers: Peers, tmp_path: Path
) -> None:
    """One of them, sendme, is killed in the middle."""
    files = {f"many/small/{number}": os.urandom(number * 10) for number in range(300)}
    files["many/large"] = os.urandom(SIZE)
    here = fill(tmp_path / "here", files)
    limits = Limits(rate=RATE)
    async with AsyncExitStack() as stack:
        process, ticket = stack.enter_context(
            sendme_process(sendme, here / "many", tmp_path / "work")
        )
        providers = [ticket.addr]
        for _ in range(3):
            addr, root = await stack.enter_async_context(ours(here / "many", limits=limits))
            assert root == ticket.hash
            providers.append(addr)
        store = await stack.enter_async_context(await FileStore.open(tmp_path / "store"))
        getter = await stack.enter_async_context(Endpoint.bind(bind=LOOPBACK))
        async with MemoryStore() as plain:
            imported = await blobs.import_paths(plain, [here / "many"])
            collection = await blobs.load_collection(plain, imported.root.hash)
        for make in peers.values():
            peer = await stack.enter_async_context(make(alpns={ALPN: "blobs"}))
            assert await they_import(peer, collection, here) == ticket.hash
            providers.append(address(peer))
        downloader = await stack.enter_async_context(Downloader(getter, store))
        download = downloader.download(ticket.content, providers=providers)
        async for progress in download:
            from_sendme = received(download).get(ticket.addr.id, 0)
            if process.poll() is None and from_sendme and progress.bytes > SIZE // 4:
                process.kill()
        got = await download
        assert process.wait() < 0
        target = tmp_path / "there"
        target.mkdir()
        await blobs.export_collection(
            store, await blobs.load_collection(store, ticket.hash), target
        )
        assert tree(target) == tree(here)
        parts = received(download)
        assert len(parts) == 6 and all(parts.values()), parts
        assert sum(parts.values()) == got.received < 1.3 * SIZE


@pytest.mark.parametrize("kill", [False, True])
async def test_a_blob_from_both_versions_of_theirs(
    peers: Peers, tmp_path: Path, kill: bool
) -> None:
    async with AsyncExitStack() as stack:
        theirs = [
            await stack.enter_async_context(make(alpns={ALPN: "blobs"})) for make in peers.values()
        ]
        for peer in theirs:
            await peer("store")
            hash = hash_of(await peer("blob_add", pattern=SIZE))
        store = await stack.enter_async_context(await FileStore.open(tmp_path / "store"))
        getter = await stack.enter_async_context(Endpoint.bind(bind=LOOPBACK))
        downloader = await stack.enter_async_context(Downloader(getter, store))
        download = downloader.download(hash, providers=map(address, theirs))
        async for progress in download:
            if kill and progress.bytes > 4 << 20:
                kill = False
                await theirs[0].kill()
        await download
        assert all(received(download).values())
        assert await store.read_bytes(hash, limit=SIZE) == pattern(SIZE)


async def test_the_root_is_at_one_and_the_children_are_at_others(
    peers: Peers, tmp_path: Path
) -> None:
    sizes = [100 * number for number in range(1, 61)] + [5 << 20]
    (tmp_path / "ours").mkdir()
    async with AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(make(alpns={ALPN: "blobs"})) for make in peers.values()
        ]
        third = await stack.enter_async_context(MemoryStore())
        endpoint = await stack.enter_async_context(Endpoint.bind(bind=LOOPBACK))
        await stack.enter_async_context(Router(endpoint, {blobs.ALPN: Provider(third)}))
        store = await stack.enter_async_context(MemoryStore())
        getter = await stack.enter_async_context(Endpoint.bind(bind=LOOPBACK))
        await first("store")
        await second("store")
        children = []
        for number, size in enumerate(sizes):
            if number % 3:
                peer = (first, second)[number % 3 - 1]
                children.append(hash_of(await peer("blob_add", pattern=size)))
            else:
                children.append((await third.add_bytes(pattern(size))).hash)
        added = await first("blob_add_hash_seq", hashes=[hex_of(hash) for hash in children])
        content = HashAndFormat(hash_of(added), BlobFormat.HASH_SEQ)
        providers: Sequence[Any] = [address(first), address(second), endpoint.addr]
        async with Downloader(getter, store) as downloader:
            download = downloader.download(content, providers=providers)
            await download
            assert all(received(download).values())
        for size, child in zip(sizes, children, strict=True):
            assert await store.read_bytes(child, limit=size) == pattern(size)


async def test_a_part_at_one_of_theirs_and_the_rest_at_one_of_ours(
    blobs_peer: Callable[..., Any],
) -> None:
    """They have the end of it, we have the beginning, and no piece is at both."""
    size = 6 << 20
    middle = ChunkRanges.chunks(0, 2000)
    async with (
        from_them(blobs_peer) as link,
        MemoryStore() as part,
        MemoryStore() as store,
        Endpoint.bind(bind=LOOPBACK) as endpoint,
        Router(endpoint, {blobs.ALPN: Provider(part)}),
        Downloader(link.endpoint, store) as downloader,
    ):
        hash = await link.they_add(size)
        first = middle | ChunkRanges.last_chunk()
        await blobs.get(link.connection, hash, into=part, ranges=one_blob(first.boundaries))
        download = downloader.download(hash, providers=[endpoint.addr])
        async for progress in download:
            if progress.bytes >= 1 << 20:
                download.add_provider(address(link.peer))
        await download
        assert all(received(download).values())
        assert await store.read_bytes(hash, limit=size) == pattern(size)


async def test_they_refuse_and_they_are_busy(peers: Peers) -> None:
    """What upstream answers means to a download what it should."""
    async with (
        from_them(peers["0.104"], deny="permission") as refusing,
        from_them(peers["0.103"], deny="limit") as busy,
        MemoryStore() as store,
        Downloader(
            refusing.endpoint, store, retries=blobs.Retries(tries=2, first_delay=0.01)
        ) as downloader,
    ):
        hash = await refusing.they_add(100_000)
        assert await busy.they_add(100_000) == hash
        providers = [address(refusing.peer), address(busy.peer)]
        with pytest.raises(blobs.DownloadError) as failed:
            await downloader.download(hash, providers=providers)
        reasons = {failure.id: failure.reason for failure in failed.value.failures}
        assert "refuses" in reasons[providers[0].id]
        assert "too much to do" in reasons[providers[1].id]
