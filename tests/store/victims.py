"""What processes do that are going to be killed. They say what is done through a pipe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

from aioiroh import Endpoint
from aioiroh.blobs import BlobTicket, Downloader, FileStore, ImportMode, get

SMALL, LARGE = 3000, 1_500_000


def content(seed: int, size: int) -> bytes:
    return Random(seed).randbytes(size)


def work(kind: str, folder: str, argument: str, pipe: Connection) -> None:
    """Goes on until it is killed, or until there is nothing left to do."""
    asyncio.run(KINDS[kind](Path(folder), argument, pipe.send))


async def add(folder: Path, seed: str, done: Callable[[object], None]) -> None:
    async def pieces(data: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(data), 100_000):
            yield data[start : start + 100_000]
            done("working")

    async with await FileStore.open(folder) as store:
        done("open")
        for number in range(int(seed), int(seed) + 1000):
            many = await store.add_many([content(number * 100 + i, SMALL) for i in range(80)])
            done([bytes(added.hash) for added in many])
            one = await store.add_stream(pieces(content(number, LARGE)))
            done([bytes(one.hash)])


async def copy(folder: Path, path: str, done: Callable[[object], None]) -> None:
    async with await FileStore.open(folder) as store:
        done("open")
        for number in range(1000):
            Path(path).write_bytes(content(-number, LARGE))
            for mode in ImportMode:
                added = await store.add_file(
                    path, mode=mode, on_hashed=lambda i, n: done("working")
                )
                done([bytes(added.hash)] if mode is ImportMode.COPY else "referred to")


async def receive(folder: Path, ticket: str, done: Callable[[object], None]) -> None:
    async with (
        await FileStore.open(folder) as store,
        Endpoint.bind(bind=["127.0.0.1:0"]) as endpoint,
    ):
        done("open")
        parsed = BlobTicket.parse(ticket)
        async for progress in get(endpoint, parsed, into=store):
            done(progress.bytes)
        await store.sync()
        done([bytes(parsed.hash)])


async def download(folder: Path, tickets: str, done: Callable[[object], None]) -> None:
    first, *others = map(BlobTicket.parse, tickets.split())
    async with (
        await FileStore.open(folder) as store,
        Endpoint.bind(bind=["127.0.0.1:0"]) as endpoint,
        Downloader(endpoint, store) as downloader,
    ):
        done("open")
        async for progress in downloader.download(first, providers=others):
            done(progress.bytes)
        await store.sync()
        done([bytes(first.hash)])


KINDS = {"add": add, "copy": copy, "receive": receive, "download": download}
