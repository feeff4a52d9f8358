"""Random operations on a file store, with kills and losses of power in between, against a simple model."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any

from crash_model import Event, Recorder, Replay, put_down, snapshot
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from aioiroh import Endpoint, Router, blobs
from aioiroh.blobs import (
    Added,
    BlobFormat,
    ChunkRanges,
    ChunkRangesSeq,
    FileStore,
    Hash,
    HashAndFormat,
    HashSeq,
    ImportMode,
)
from aioiroh.blobs.store.worker import DiskWorker
from aioiroh.testing import VirtualLoop, VirtualNetwork

SIZES = (1, 1000, 16384, 16385, 40_000, 200_000)
CONTENT = {
    Hash.of(data): data for data in (Random(n).randbytes(SIZES[n % len(SIZES)]) for n in range(12))
}
SEQUENCE = bytes(HashSeq(list(CONTENT)[:4]))
EVERYTHING = {**CONTENT, Hash.of(SEQUENCE): SEQUENCE}
HASHES = st.sampled_from(sorted(EVERYTHING))
NAMES = st.sampled_from([b"a", b"ab", b"b", b"\xff"])
Tags = dict[bytes, HashAndFormat]


class Stores(RuleBasedStateMachine):
    """`here`: what must be there; `durable`: what of it a loss of power cannot take away.

    `tags`: what they have been since the last sync, oldest first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="store-model-"))
        self.boot = 1
        self.here: set[Hash] = set()
        self.durable: set[Hash] = set()
        self.tags: list[Tags] = [{}]
        self.held: list[Added] = []
        self.files = 0
        DiskWorker.keeps_journal = True
        self.loop = VirtualLoop()
        self.stack = AsyncExitStack()
        self.run(self.provide())
        self.open(True)
        self.replay = Replay(self.snapshot(), "store")

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(coroutine)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What is no coroutine function but has to be called on the loop."""

        async def call() -> Any:
            return function(*arguments)

        return self.run(call())

    async def provide(self) -> None:
        """A connection to somebody who has everything."""
        network = VirtualNetwork(seed=1)
        enter = self.stack.enter_async_context
        provider = await enter(Endpoint.bind(network=network.host("provider")))
        getter = await enter(Endpoint.bind(network=network.host("getter")))
        theirs = await enter(blobs.MemoryStore())
        await enter(Router(provider, {blobs.ALPN: blobs.Provider(theirs)}))
        await theirs.add_many(EVERYTHING.values())
        self.connection = await enter(getter.connect(provider.addr, alpn=blobs.ALPN))

    def teardown(self) -> None:
        self.run(self.store.aclose())
        self.run(self.stack.aclose())
        self.run(self.loop.shutdown_asyncgens())
        self.loop.close()
        DiskWorker.keeps_journal = False
        shutil.rmtree(self.root)

    def snapshot(self) -> tuple[bytes, bytes]:
        return snapshot(self.root / "store" / "blobs.sqlite")

    def open(self, durable: bool) -> None:
        self.syncs = durable
        self.disk = Recorder(self.root, b"boot %d" % self.boot)
        self.store: FileStore = self.run(
            FileStore.open(self.root / "store", disk=self.disk, durable=durable)
        )
        self.disk.worker = self.store.worker
        self.held.clear()

    def happened(self) -> None:
        """Brings the record up to date."""
        self.disk.note("now")
        for event in self.disk.events:
            self.replay.apply(event)
        self.disk.events.clear()

    # --- what one does ----------------------------------------------------------------------------

    def added(self, *added: Added) -> None:
        self.held += added
        self.here.update(one.hash for one in added)

    @rule(hashes=st.lists(HASHES, max_size=3))
    def add_many(self, hashes: list[Hash]) -> None:
        self.added(*self.run(self.store.add_many([EVERYTHING[hash] for hash in hashes])))

    @rule(hash=HASHES, step=st.sampled_from([1000, 100_000]))
    def add_stream(self, hash: Hash, step: int) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, len(EVERYTHING[hash]), step):
                yield EVERYTHING[hash][start : start + step]

        self.added(self.run(self.store.add_stream(pieces())))

    @rule(hash=HASHES, mode=st.sampled_from(ImportMode))
    def add_file(self, hash: Hash, mode: ImportMode) -> None:
        self.files += 1
        path = self.root / f"file {self.files}"
        path.write_bytes(EVERYTHING[hash])
        self.happened()
        # It was there long before, as far as the disk is concerned.
        for event in (
            Event("create", path.name),
            Event("write", path.name, data=EVERYTHING[hash]),
            Event("sync", path.name),
            Event("sync", "."),
        ):
            self.replay.apply(event)
        self.added(self.run(self.store.add_file(path, mode=mode)))

    @rule(hash=HASHES)
    def put(self, hash: Hash) -> None:
        if len(EVERYTHING[hash]) <= 16384:
            self.run(self.store.put_verified([(hash, EVERYTHING[hash])]))
            self.held.append(Added(hash, 0, self.store.hold(HashAndFormat(hash))))
            self.here.add(hash)
            self.wait()

    @rule(hash=HASHES, start=st.integers(0, 200), length=st.integers(1, 200))
    def receive_a_part(self, hash: Hash, start: int, length: int) -> None:
        ranges = ChunkRangesSeq.blob(ChunkRanges.chunks(start, start + length))
        self.run(self.get(hash, ranges))

    @rule(hash=HASHES)
    def receive(self, hash: Hash) -> None:
        self.run(self.get(hash, ChunkRangesSeq.blob()))
        self.held.append(Added(hash, 0, self.store.hold(HashAndFormat(hash))))
        self.here.add(hash)
        self.wait()

    async def get(self, hash: Hash, ranges: ChunkRangesSeq) -> None:
        await blobs.get(self.connection, hash, into=self.store, ranges=ranges)
        if (await self.store.status(hash)).is_complete:
            self.here.add(hash)

    @rule()
    def wait(self) -> None:
        """Until what has arrived is noted."""

        self.run(asyncio.sleep(0.01))

    # --- what one keeps ---------------------------------------------------------------------------

    @rule(name=NAMES, hash=HASHES, format=st.sampled_from(BlobFormat))
    def tag(self, name: bytes, hash: Hash, format: BlobFormat) -> None:
        self.call(self.store.tags.set, name, HashAndFormat(hash, format))
        self.tags.append({**self.tags[-1], name: HashAndFormat(hash, format)})

    @rule(name=NAMES)
    def untag(self, name: bytes) -> None:
        assert self.call(self.store.tags.delete, name) == (name in self.tags[-1])
        self.tags.append({key: to for key, to in self.tags[-1].items() if key != name})

    @rule(old=NAMES, new=NAMES)
    def rename_tag(self, old: bytes, new: bytes) -> None:
        if old in self.tags[-1] and old != new:
            self.call(self.store.tags.rename, old, new)
            tags = dict(self.tags[-1])
            tags[new] = tags.pop(old)
            self.tags.append(tags)

    @rule()
    def release(self) -> None:
        for added in self.held:
            added.tag.release()
        self.held.clear()

    @rule()
    def collect_garbage(self) -> None:
        kept = {added.hash for added in self.held}
        for content in self.tags[-1].values():
            kept.add(content.hash)
            if content.format is BlobFormat.HASH_SEQ and content.hash in self.here:
                data = EVERYTHING[content.hash]
                if data == SEQUENCE:
                    kept.update(HashSeq.from_bytes(data))
        self.run(self.store.collect_garbage())
        self.here &= kept
        self.durable &= kept

    @rule(hash=HASHES)
    def delete(self, hash: Hash) -> None:
        deleted = self.run(self.store.delete([hash]))
        assert deleted or hash not in self.here
        self.here.discard(hash)
        self.durable.discard(hash)

    @rule()
    def sync(self) -> None:
        self.run(self.store.sync())
        self.tags = self.tags[-1:]
        if self.syncs:
            self.durable = set(self.here)

    @rule(hash=HASHES)
    def export(self, hash: Hash) -> None:
        if hash in self.here:
            self.files += 1
            path = self.root / f"file {self.files}"
            [staged] = self.run(self.store.stage([hash], self.root))
            if staged.stat().st_nlink > 1:
                self.disk.rename(staged, path)
                self.run(self.store.settle([(hash, path)]))
            assert (
                path.read_bytes() == EVERYTHING[hash] if path.exists() else staged.unlink() is None
            )

    # --- what happens to one ----------------------------------------------------------------------

    @rule(durable=st.booleans())
    def close_and_open(self, durable: bool) -> None:
        self.run(self.store.aclose())
        self.disk.worker = None
        self.happened()
        self.replay.apply(Event("checkpoint", note=self.snapshot()))
        self.open(durable)

    def stop(self) -> None:
        """The process ends where it is."""
        self.happened()
        self.run(self.store._stop())
        self.happened()
        self.store._metadata.abandon()
        self.store._closed = True
        self.disk.worker = None
        self.run(self.store._let_go())

    @rule(durable=st.booleans())
    def kill(self, durable: bool) -> None:
        self.stop()
        for path in list(self.replay.names):
            if path.startswith("store/temp/"):
                self.replay.apply(Event("unlink", path))
        self.open(durable)

    @rule(data=st.data(), durable=st.booleans())
    def lose_power(self, data: st.DataObject, durable: bool) -> None:
        self.stop()
        states = list(self.replay.powerless())
        _, files = states[data.draw(st.integers(0, len(states) - 1), label="variant")]
        shutil.rmtree(self.root)
        put_down(files, self.root)
        self.boot += 1
        self.open(durable)
        found = {hash for hash, complete in self.found().items() if complete}
        assert found >= self.durable
        tags = dict(self.store.tags.list())
        assert tags in self.tags
        # From here on it is as it is, and all of it on the disk.
        self.here, self.tags = found, [tags]
        self.replay = Replay(self.snapshot(), "store")
        for path in self.root.rglob("*"):
            if path.is_file() and path.parent != self.root / "store":
                name = str(path.relative_to(self.root))
                self.replay.apply(Event("create", name))
                self.replay.apply(Event("write", name, data=path.read_bytes()))
                self.replay.apply(Event("sync", name))
                self.replay.apply(Event("sync", str(Path(name).parent)))
        self.run(self.store.sync())
        self.durable = set(found)

    # --- what is always so ------------------------------------------------------------------------

    def found(self) -> dict[Hash, bool]:
        """What the store has, and whether it is complete. Every byte of it is right."""
        found: dict[Hash, bool] = {}
        statuses = self.run(self.store.statuses(list(EVERYTHING)))
        for (hash, data), status in zip(EVERYTHING.items(), statuses, strict=True):
            handle = self.run(self.store.handle(hash))
            for start, end in status.present.select(len(data)).spans():
                low, high = start * 1024, min((end or 0) * 1024, len(data))
                assert handle.read(low, high - low) == data[low:high]
            if status.present:
                found[hash] = status.is_complete
        return found

    @invariant()
    def it_is_as_it_should(self) -> None:
        found = self.found()
        assert {hash for hash, complete in found.items() if complete} == self.here
        assert dict(self.store.tags.list()) == self.tags[-1]


Stores.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestStores = Stores.TestCase
