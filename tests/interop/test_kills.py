"""Either side killed in the middle, again and again, with upstream at the other end: it goes on, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import aioiroh
from aioiroh import Endpoint, Router, TransportConfig, blobs
from aioiroh.blobs import (
    BlobState,
    BlobTicket,
    ChunkRanges,
    FileStore,
    Hash,
    MemoryStore,
    Provider,
    ProviderError,
    TransferProgress,
)
from commands import SECONDS, SLOWLY, Process, fill, sparse, tree
from meeting import LOOPBACK, address, pattern
from remote_peer import PeerError
from sendme_commands import Sending, quiet, sendme_sends
from sharing import ALPN, hash_of, hex_of

SIZE = 48 << 20
HASH = Hash.of(pattern(SIZE))
KILLS = 3
IDLE = 2.0
"""Seconds after which a connection to a killed peer is lost."""
PIECE = 4 << 20
"""What a kill may lose: what was on its way to the disk, and what was not told yet."""


def points(seed: int) -> list[int]:
    """How many more bytes are moved before each kill."""
    chance = random.Random(seed)
    return [chance.randrange(1 << 20, SIZE // (KILLS + 1)) for _ in range(KILLS)]


# --- the Rust peer ------------------------------------------------------------------------------


class Worker:
    """See `blob_worker.py`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    @asynccontextmanager
    async def started(cls, *arguments: object) -> AsyncIterator[Worker]:
        source = str(Path(aioiroh.__file__).parent.parent)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("blob_worker.py")),
            *map(str, arguments),
            env={**os.environ, "PYTHONPATH": source},
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            yield cls(process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def event(self, name: str, least: int = 0) -> Any:
        """The next event of this name, with at least this value if it is a number."""
        assert self._process.stdout is not None
        async with asyncio.timeout(SECONDS):
            async for line in self._process.stdout:
                event = json.loads(line)
                value = event.get(name)
                if value is not None and (not isinstance(value, int) or value >= least):
                    return value
        raise AssertionError(f"no event {name} of {least}")


@asynccontextmanager
async def upstream_store(blobs_peer: Callable[..., Any], folder: Path) -> AsyncIterator[Any]:
    """An upstream peer over the store in this folder, killed at the end; it soon misses who is gone."""
    async with blobs_peer(alpns={ALPN: "blobs"}, transport={"idle_timeout": IDLE}) as peer:
        await peer("store", path=str(folder))
        try:
            yield peer
        finally:
            with contextlib.suppress(ProcessLookupError):
                await peer.kill()


async def test_our_getter_is_killed(blobs_peer: Callable[..., Any], tmp_path: Path) -> None:
    async with blobs_peer(alpns={ALPN: "blobs"}) as peer:
        await peer("store")
        hash = hash_of(await peer("blob_add", pattern=SIZE))
        ticket = (await peer("blob_ticket", hash=hex_of(hash)))["ticket"]
        reached = 0
        for more in points(1):
            async with Worker.started("get", tmp_path / "store", ticket) as worker:
                had = ChunkRanges(await worker.event("had")).byte_count(SIZE)
                assert had >= reached - PIECE
                reached = await worker.event("bytes", reached + more)
        async with Worker.started("get", tmp_path / "store", ticket) as worker:
            assert await worker.event("received") <= SIZE - reached + PIECE
    async with await FileStore.open(tmp_path / "store") as store:
        assert Hash.of(await store.read_bytes(hash, limit=SIZE)) == hash


async def test_their_provider_is_killed(blobs_peer: Callable[..., Any], tmp_path: Path) -> None:
    hash = HASH
    received = 0
    async with (
        Endpoint.bind(bind=LOOPBACK, transport=TransportConfig(idle_timeout=IDLE)) as endpoint,
        await FileStore.open(tmp_path / "ours") as store,
    ):
        async with upstream_store(blobs_peer, tmp_path / "theirs") as peer:
            assert hash_of(await peer("blob_add", pattern=SIZE)) == hash
            await peer("blob_sync")
        for more in points(2):
            async with upstream_store(blobs_peer, tmp_path / "theirs") as peer:
                transfer = blobs.get(endpoint, hash, into=store, provider=address(peer))
                alive = True
                with pytest.raises((ProviderError, ConnectionError)):
                    async for progress in transfer:
                        if alive and progress.received >= more:
                            await peer.kill()
                            alive = False
                received += transfer.progress.received
                assert (await store.status(hash)).state is BlobState.PARTIAL
        async with upstream_store(blobs_peer, tmp_path / "theirs") as peer:
            got = await blobs.get(endpoint, hash, into=store, provider=address(peer))
        # Nothing came twice.
        assert received + got.received == SIZE
        assert Hash.of(await store.read_bytes(hash, limit=SIZE)) == hash


async def test_our_provider_is_killed(blobs_peer: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(pattern(SIZE))
    async with upstream_store(blobs_peer, tmp_path / "theirs") as peer:
        reached = 0
        for more in points(3):
            async with Worker.started("provide", tmp_path / "ours", tmp_path / "file") as worker:
                fetching = asyncio.create_task(
                    peer("blob_fetch", ticket=await worker.event("ticket"))
                )
                reached = await worker.event("bytes", reached + more)
            with pytest.raises(PeerError):
                await fetching
        async with Worker.started("provide", tmp_path / "ours", tmp_path / "file") as worker:
            ticket = await worker.event("ticket")
            told = await peer("blob_fetch", ticket=ticket, export=str(tmp_path / "copy"))
        # What was handed to the network need not have arrived.
        assert told["payload"] < SIZE - points(3)[0] + 2 * PIECE
    assert Hash.of((tmp_path / "copy").read_bytes()) == HASH


async def test_their_getter_is_killed(blobs_peer: Callable[..., Any], tmp_path: Path) -> None:
    """A killed upstream store may have forgotten all of it; what counts is that it gets there."""
    sent: asyncio.Queue[int] = asyncio.Queue()

    def told(event: blobs.TransferEvent) -> None:
        if isinstance(event, TransferProgress):
            sent.put_nowait(event.end_offset)

    async with (
        MemoryStore() as store,
        Endpoint.bind(bind=LOOPBACK) as endpoint,
        Router(endpoint, {blobs.ALPN: Provider(store, on_transfer=told)}),
    ):
        hash = (await store.add_bytes(pattern(SIZE))).hash
        ticket = str(BlobTicket(endpoint.addr, hash))
        for most in points(4):
            async with upstream_store(blobs_peer, tmp_path / "theirs") as peer:
                fetching = asyncio.create_task(peer("blob_fetch", ticket=ticket))
                async with asyncio.timeout(SECONDS):
                    while await sent.get() < most:
                        pass
                await peer.kill()
                with pytest.raises((PeerError, EOFError)):
                    await fetching
            while not sent.empty():
                sent.get_nowait()
        async with upstream_store(blobs_peer, tmp_path / "theirs") as peer:
            await peer("blob_fetch", ticket=ticket, export=str(tmp_path / "copy"))
    assert Hash.of((tmp_path / "copy").read_bytes()) == HASH


# --- sendme -------------------------------------------------------------------------------------


SENT_SLOWLY = 2 * SIZE
SENT_BY_SENDME = 8 * SIZE
"""So large that it is not over before the kills."""


def album(tmp_path: Path, size: int) -> Path:
    folder = fill(tmp_path / "here" / "album", {"a": os.urandom(3 << 20), "b/c": b"c"})
    sparse(folder / "big", size)
    return folder


def test_sendme_receives_and_is_killed(sendme: Path, tmp_path: Path, sending: Sending) -> None:
    here, there = album(tmp_path, SENT_SLOWLY), tmp_path / "there"
    there.mkdir()
    with sending(here, "--json", program=SLOWLY) as (sender, _):
        ticket = sender.event("ticket")["ticket"]
        command = quiet(sendme, "receive", ticket)
        for number, most in enumerate(points(5), 1):
            with subprocess.Popen(command, cwd=there, stderr=subprocess.DEVNULL) as process:
                sender.until(
                    lambda most=most, number=number: (
                        len([e for e in sender.events if e["event"] == "connected"]) >= number
                        and sender.events[-1].get("bytes", 0) >= most
                    ),
                    f"progress of {most} bytes",
                )
                process.kill()
        subprocess.run(command, cwd=there, check=True, capture_output=True, timeout=SECONDS)
    assert tree(there / "album") == tree(here)


def test_our_sender_is_killed(sendme: Path, tmp_path: Path, sending: Sending) -> None:
    here, there = album(tmp_path, SENT_SLOWLY), tmp_path / "there"
    there.mkdir()
    tickets = set()
    for most in points(6):
        with sending(here, "--json", program=SLOWLY) as (sender, _):
            ticket = sender.event("ticket")["ticket"]
            tickets.add(ticket)
            command = quiet(sendme, "receive", ticket)
            with subprocess.Popen(command, cwd=there, stderr=subprocess.DEVNULL) as process:
                sender.under_way(most)
                sender.kill()
                # It would wait for the sender until the connection times out.
                process.kill()
    assert len(tickets) == 1
    with sending(here) as (sender, ticket):
        assert ticket in tickets
        command = quiet(sendme, "receive", ticket)
        subprocess.run(command, cwd=there, check=True, capture_output=True, timeout=SECONDS)
    assert tree(there / "album") == tree(here)


def test_our_receiver_is_killed(sendme: Path, tmp_path: Path) -> None:
    here, there = album(tmp_path, SENT_BY_SENDME), tmp_path / "there"
    total = SENT_BY_SENDME + (3 << 20) + 1
    with sendme_sends(sendme, here, tmp_path / "work") as ticket:
        reached = 0
        for more in points(7):
            receiver = Process(["receive", ticket, "-o", there, "--json"])
            try:
                reached = receiver.under_way(reached + more)
            finally:
                receiver.kill()
        done = Process(["receive", ticket, "-o", there, "--json"])
        try:
            done.wait(0)
        finally:
            done.kill()
    assert done.events[-1]["received_bytes"] <= total - reached + PIECE
    assert tree(there / "album") == tree(here)


def test_sendme_sends_and_is_killed(sendme: Path, tmp_path: Path) -> None:
    """It has a new identity each time, and so a new ticket; the content is what is gone on with."""
    here, there = album(tmp_path, SENT_BY_SENDME), tmp_path / "there"
    total = SENT_BY_SENDME + (3 << 20) + 1
    reached = 0
    work = tmp_path / "work"
    work.mkdir()
    for more in points(8):
        command = quiet(sendme, "send", here, "--ticket-type", "addresses")
        with subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            ticket = [process.stdout.readline() for _ in range(3)][-1].split()[-1]
            receiver = Process(["receive", ticket, "-o", there, "--json", "--timeout", "2"])
            try:
                reached = receiver.under_way(reached + more)
                process.kill()
                receiver.wait(None)
            finally:
                # Leaving the block waits for it, whatever went wrong.
                process.kill()
                receiver.kill()
    with sendme_sends(sendme, here, work) as ticket:
        done = Process(["receive", ticket, "-o", there, "--json"])
        try:
            done.wait(0)
        finally:
            done.kill()
    assert done.events[-1]["received_bytes"] <= total - reached + PIECE
    assert tree(there / "album") == tree(here)
