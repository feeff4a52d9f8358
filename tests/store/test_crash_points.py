"""What a store has after the process or the system stops, at every point of a life that has everything.

One life is recorded (`crash_model`), then the folder is rebuilt as it may be found after each event
of it, opened, and looked through.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest
from crash_model import Event, Recorder, Replay, put_down, snapshot

from aioiroh import Endpoint, Router, blobs
from aioiroh.blobs import (
    BlobFormat,
    BlobState,
    ChunkRangesSeq,
    FileStore,
    Hash,
    HashAndFormat,
    HashSeq,
    ImportMode,
)
from aioiroh.blobs.store.worker import DiskWorker
from aioiroh.quic import Connection
from aioiroh.testing import Link, run

PIECE = 128 * 1024
"""What may be on its way between the network and the first note of a blob."""
FIRST_BOOT, SECOND_BOOT = b"the first boot", b"the second boot"


@dataclass
class Life:
    """What happened, and the content that it was about."""

    root: Path
    first: tuple[bytes, bytes] = (b"", b"")
    events: list[Event] = field(default_factory=list)
    content: dict[Hash, bytes] = field(default_factory=dict)
    outside: dict[str, bytes] = field(default_factory=dict)
    """Files of somebody else, by name."""


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Life:
    life = Life(tmp_path_factory.mktemp("life"))
    DiskWorker.keeps_journal = True
    try:
        run(lambda network: live(network, life), seed=1)
    finally:
        DiskWorker.keeps_journal = False
    return life


async def live(network, life: Life) -> None:
    """Everything that a store does, once."""
    random = Random(1)

    def made(size: int) -> bytes:
        data = random.randbytes(size)
        life.content[Hash.of(data)] = data
        return data

    async def stream(data: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(data), 70_000):
            yield data[start : start + 70_000]

    recorder = Recorder(life.root, FIRST_BOOT)
    store = await FileStore.open(life.root / "store", disk=recorder)
    recorder.worker = store.worker
    life.first = snapshot(life.root / "store" / "blobs.sqlite")
    kept = []

    def done(*added: blobs.Added) -> None:
        kept.extend(added)
        recorder.note("added", [one.hash for one in added])

    async def synced() -> None:
        await store.sync()
        recorder.note("synced")

    done(*await store.add_many([made(100) for _ in range(60)]))
    done(await store.add_bytes(made(40_000)))
    done(await store.add_stream(stream(made(150_000))))
    for name, size in (("shared", 50_000), ("copied", 60_000), ("small", 1000)):
        life.outside[name] = made(size)
        (life.root / name).write_bytes(life.outside[name])
    done(await store.add_file(life.root / "shared"))
    await synced()
    copies = [life.root / "copied", life.root / "small"]
    done(*await store.add_files(copies, mode=ImportMode.COPY))
    store.tags.set(b"first", HashAndFormat(kept[0].hash))
    recorder.note("tagged")

    link = Link(latency=0.01, bandwidth=4_000_000)
    async with (
        Endpoint.bind(network=network.host("provider", link=link)) as provider,
        Endpoint.bind(network=network.host("getter", link=link)) as getter,
        blobs.MemoryStore() as theirs,
        Router(provider, {blobs.ALPN: blobs.Provider(theirs)}),
        getter.connect(provider.addr, alpn=blobs.ALPN) as connection,
    ):
        large = await theirs.add_bytes(made(700_000))
        # In two parts, so that it is resumed, and interrupted in the middle of the second.
        first = ChunkRangesSeq.blob(blobs.ChunkRanges.chunks(100, 300))
        await blobs.get(connection, large.hash, into=store, ranges=first)
        recorder.note("received a part")
        transfer = blobs.get(connection, large.hash, into=store)
        async with transfer:
            async for progress in transfer:
                if progress.bytes > 400_000:
                    break
        await asyncio.sleep(0.1)
        await blobs.get(connection, large.hash, into=store)
        await asyncio.sleep(0.01)  # what was received is noted within 5 ms
        recorder.note("received", [large.hash])
        children = [await theirs.add_bytes(made(size)) for size in (10, 16384, 16385, 90_000)]
        sequence = bytes(HashSeq([child.hash for child in children]))
        life.content[Hash.of(sequence)] = sequence
        root = await theirs.add_bytes(sequence, BlobFormat.HASH_SEQ)
        await blobs.get(connection, HashAndFormat(root.hash, BlobFormat.HASH_SEQ), into=store)
        await asyncio.sleep(0.01)
        recorder.note("received", [child.hash for child in children])
        store.tags.set(b"sequence", HashAndFormat(root.hash, BlobFormat.HASH_SEQ))
    await synced()

    [staged] = await store.stage([children[3].hash], life.root)
    recorder.rename(staged, life.root / "exported")
    await store.settle([(children[3].hash, life.root / "exported")])
    recorder.note("exported")
    for added in kept[1:61]:
        added.tag.release()
    recorder.note("dropped", [large.hash, *(added.hash for added in kept[1:61])])
    assert await store.collect_garbage() == 61
    recorder.note("deleted")
    await store.aclose()
    life.events = recorder.events


def promised(events: list[Event], *, only_synced: bool) -> set[Hash]:
    """What was promised to be there by the events so far, and was not dropped since."""
    there: set[Hash] = set()
    synced: set[Hash] = set()
    for event in events:
        if event.kind != "note":
            continue
        if event.path in ("added", "received"):
            there.update(event.note)
        elif event.path == "synced":
            synced = set(there)
        elif event.path == "dropped":
            there.difference_update(event.note)
            synced.difference_update(event.note)
    return synced if only_synced else there


async def look(folder: Path, boot: bytes, life: Life) -> dict[Hash, int]:
    """Opens a store; every byte that it says it has must be right. Gives how many it has of each."""
    found: dict[Hash, int] = {}
    async with await FileStore.open(folder, disk=Recorder(folder, boot), durable=False) as store:
        statuses = await store.statuses(list(life.content))
        for (hash, data), status in zip(life.content.items(), statuses, strict=True):
            if status.state is BlobState.MISSING:
                continue
            handle = await store.handle(hash)
            assert handle is not None
            assert not status.size_verified or status.size == len(data)
            assert not status.is_complete or status.size == len(data)
            whole = status.present.select(len(data))
            for start, end in whole.spans():
                assert end is not None
                low, high = start * 1024, min(end * 1024, len(data))
                assert handle.read(low, high - low) == data[low:high], f"wrong bytes of {hash}"
            found[hash] = whole.byte_count(len(data))
        for _, content in store.tags.list():
            assert content.hash in life.content
        listed = [hash async for hash, _ in store.blobs()]
        assert set(found) <= set(listed) and len(listed) == len(set(listed))
        await store.collect_garbage()
    return found


def written(events: list[Event], hash: Hash) -> int:
    """Bytes of a blob's data that were written."""
    name = f"{hash}.data"
    return sum(len(event.data) for event in events if event.kind == "write" and name in event.path)


def points(life: Life) -> list[int]:
    """After each event that changes something."""
    return [at for at, event in enumerate(life.events, 1) if event.kind != "note"]


def rebuild(life: Life, files: dict[str, bytes]) -> Path:
    """The folder where it was, so that files that it refers to are where it says."""
    shutil.rmtree(life.root)
    put_down({**life.outside, **files}, life.root)
    return life.root / "store"


@asynccontextmanager
async def provided(network, life: Life) -> AsyncIterator[Connection]:
    """A connection to somebody who has everything."""
    async with (
        Endpoint.bind(network=network.host("a provider")) as provider,
        Endpoint.bind(network=network.host("a getter")) as getter,
        blobs.MemoryStore() as theirs,
        Router(provider, {blobs.ALPN: blobs.Provider(theirs)}),
    ):
        await theirs.add_many(life.content.values())
        async with getter.connect(provider.addr, alpn=blobs.ALPN) as connection:
            yield connection


async def fetch_the_rest(folder: Path, boot: bytes, life: Life, connection: Connection) -> None:
    """A download goes on where it was, and ends well."""
    async with await FileStore.open(folder, disk=Recorder(folder, boot), durable=False) as store:
        for hash, data in life.content.items():
            if len(data) > 30_000:
                await blobs.get(connection, hash, into=store)
                assert await store.read_bytes(hash, limit=len(data)) == data
        assert all([finding.is_good async for finding in store.verify()])


def test_the_life_has_everything(life: Life) -> None:
    kinds = {event.kind for event in life.events}
    assert kinds >= {"create", "write", "rename", "link", "unlink", "sync", "commit", "checkpoint"}
    assert len(points(life)) > 100


def test_after_a_kill_everything_is_there(life: Life) -> None:
    large = max(life.content, key=lambda hash: len(life.content[hash]))

    async def check(network) -> None:
        replay = Replay(life.first, "store")
        noted = False
        for at, event in enumerate(life.events, 1):
            replay.apply(event)
            if event.kind == "note":
                continue
            so_far = life.events[:at]
            folder = rebuild(life, replay.killed())
            found = await look(folder, FIRST_BOOT, life)
            for hash in promised(so_far, only_synced=False):
                assert found.get(hash) == len(life.content[hash]), (
                    f"{hash} is lost at {at}: {event}"
                )
            noted = noted or (event.kind == "commit" and bytes(large) in event.note[1])
            # Of a blob on its way at most what came before its first note is lost, or what does not
            # make up a group yet.
            if any(event.path == "dropped" for event in so_far):
                continue
            lost = written(so_far, large) - found.get(large, 0)
            assert lost <= (32 * 1024 if noted else PIECE), f"{lost} bytes lost at {at}: {event}"

    run(check, seed=1, time_limit=None)


def test_after_a_loss_of_power_nothing_is_wrong(life: Life) -> None:
    async def check(network) -> None:
        replay = Replay(life.first, "store")
        seen: dict[int, dict[Hash, int]] = {}
        for at, event in enumerate(life.events, 1):
            replay.apply(event)
            if event.kind == "note":
                continue
            so_far = life.events[:at]
            for name, files in replay.powerless():
                key = hash(frozenset(files.items()))
                if key not in seen:
                    seen[key] = await look(rebuild(life, files), SECOND_BOOT, life)
                found = seen[key]
                for one in promised(so_far, only_synced=True):
                    assert found.get(one) == len(life.content[one]), (
                        f"{one} is lost with {name} at {at}: {event}"
                    )

    run(check, seed=1, time_limit=None)


@pytest.mark.parametrize("lost", ["process", "power"])
def test_downloads_go_on_and_end_well(life: Life, lost: str) -> None:
    async def check(network) -> None:
        replay = Replay(life.first, "store")
        async with provided(network, life) as connection:
            for at, event in enumerate(life.events, 1):
                replay.apply(event)
                if at % 7 or event.kind == "note":
                    continue
                if lost == "process":
                    states = [(FIRST_BOOT, replay.killed())]
                else:
                    states = [(SECOND_BOOT, files) for _, files in replay.powerless()]
                    states = states[at % len(states) :][:1]
                for boot, files in states:
                    await fetch_the_rest(rebuild(life, files), boot, life, connection)

    run(check, seed=1, time_limit=None)
