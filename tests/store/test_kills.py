"""Real processes, really killed in the middle of their work, thirty times on one store."""

from __future__ import annotations

import asyncio
import multiprocessing
import signal
from contextlib import AsyncExitStack
from multiprocessing.context import ForkServerContext
from pathlib import Path
from random import Random

import victims

from aioiroh import Endpoint, Router, blobs
from aioiroh.blobs import BlobState, BlobTicket, FileStore, Hash

KILLS = 30
PIECE = 3 * 1024 * 1024
"""Bytes of a download that may be lost: those on their way to the disk, and a turn of the loop."""


def kill_one(
    context: ForkServerContext, kind: str, folder: Path, argument: str, patience: int
) -> tuple[list[Hash], int, bool]:
    """Lets a process work until it has said so many things, and kills it.

    Gives the blobs that it has added, the bytes that it has received, and whether it ended by itself.
    """
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=victims.work, args=(kind, str(folder), argument, theirs))
    process.start()
    theirs.close()
    added: list[Hash] = []
    received = 0
    try:
        while patience >= 0:
            said = ours.recv()
            patience -= said != "open"
            if isinstance(said, list):
                added += map(Hash, said)
            elif isinstance(said, int):
                received = said
    except EOFError:
        pass
    process.kill()
    process.join(20)
    assert process.exitcode in (-signal.SIGKILL, 0)
    return added, received, process.exitcode == 0


async def test_thirty_kills(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["victims"])
    random = Random(30)
    added: set[Hash] = set()
    data = random.randbytes(20_000_000)
    async with (
        Endpoint.bind(bind=["127.0.0.1:0"]) as endpoint,
        blobs.MemoryStore() as theirs,
        Router(endpoint, {blobs.ALPN: blobs.Provider(theirs)}),
    ):
        large = (await theirs.add_bytes(data)).hash
        ticket = str(BlobTicket(endpoint.addr, large, blobs.BlobFormat.RAW))
        arguments = {"add": "", "copy": "", "receive": ticket}
        before = 0
        for number in range(KILLS):
            kind = random.choice(list(arguments))
            arguments["add"], arguments["copy"] = str(number), str(tmp_path / f"file-{number}")
            patience = random.randrange(40 if kind != "receive" else 6)
            more, received, ended = await asyncio.to_thread(
                kill_one, context, kind, tmp_path / "store", arguments[kind], patience
            )
            added.update(more)
            async with await FileStore.open(tmp_path / "store", durable=False) as store:
                assert all(status.is_complete for status in await store.statuses(list(added)))
                async for finding in store.verify(None if number % 5 == 0 else more):
                    assert finding.is_good, f"{finding} after kill {number} of {kind}"
                status = await store.status(large)
                here = status.present.select(len(data)).byte_count(len(data))
                assert here >= received - PIECE and here >= before
                assert ended <= (kind == "receive" and status.state is BlobState.COMPLETE)
                before = here
        async with (
            await FileStore.open(tmp_path / "store") as store,
            Endpoint.bind(bind=["127.0.0.1:0"]) as getter,
        ):
            got = await blobs.get(getter, ticket, into=store)
            assert got.received == len(data) - before
            assert await store.read_bytes(large, limit=len(data)) == data


async def test_a_download_from_two_goes_on_after_each_of_five_kills(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["victims"])
    random = Random(5)
    data = random.randbytes(60_000_000)
    async with AsyncExitStack() as stack:
        tickets = []
        for _ in range(2):
            endpoint = await stack.enter_async_context(Endpoint.bind(bind=["127.0.0.1:0"]))
            theirs = await stack.enter_async_context(blobs.MemoryStore())
            provider = blobs.Provider(theirs, limits=blobs.Limits(rate=10_000_000))
            await stack.enter_async_context(Router(endpoint, {blobs.ALPN: provider}))
            large = (await theirs.add_bytes(data)).hash
            tickets.append(BlobTicket(endpoint.addr, large))
        argument = " ".join(map(str, tickets))
        before = kills = 0
        for _ in range(5):
            _, received, ended = await asyncio.to_thread(
                kill_one, context, "download", tmp_path / "store", argument, random.randrange(2, 8)
            )
            async with await FileStore.open(tmp_path / "store") as store:
                status = await store.status(large)
                here = status.present.select(len(data)).byte_count(len(data))
                # Each of the requests under way may lose the piece that was in flight.
                assert here >= received - 4 * PIECE and here >= before
                before = here
            if ended:  # before it could be killed
                assert before == len(data)
                break
            kills += 1
        assert before > 0 and kills > 0
        store = await stack.enter_async_context(await FileStore.open(tmp_path / "store"))
        getter = await stack.enter_async_context(Endpoint.bind(bind=["127.0.0.1:0"]))
        downloader = await stack.enter_async_context(blobs.Downloader(getter, store))
        got = await downloader.download(tickets[0], providers=[tickets[1]])
        assert got.received < 1.1 * (len(data) - before) + 2 * PIECE
        assert await store.read_bytes(large, limit=len(data)) == data
