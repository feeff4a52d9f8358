"""Stores by themselves: adding, reading, naming, deleting, exporting."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import obstore.store
import pytest
from blob_serving import pattern

from aioiroh import _native, blobs
from aioiroh.blobs import (
    BlobFormat,
    BlobState,
    BlobStatus,
    BucketStore,
    Collection,
    FileStore,
    Hash,
    HashAndFormat,
    HashSeq,
    ImportMode,
    MemoryStore,
)
from aioiroh.blobs.folders.exporting import export_collection
from aioiroh.blobs.folders.placing import OnConflict
from aioiroh.blobs.store.worker import DiskWorker
from aioiroh.errors import DecodeError

Stores = Callable[[], AbstractAsyncContextManager[MemoryStore | FileStore | BucketStore]]


@pytest.fixture(params=["memory", "files", "bucket", "s3"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    """Opens an empty store of each kind."""

    @asynccontextmanager
    async def context() -> AsyncIterator[MemoryStore | FileStore | BucketStore]:
        if request.param == "memory":
            async with MemoryStore() as memory:
                yield memory
        elif request.param in ("bucket", "s3"):
            objects: Any = obstore.store.MemoryStore()
            if request.param == "s3":
                objects = request.getfixturevalue("s3_server").bucket()
            async with await BucketStore.open(
                objects, staging=tmp_path / "store", prefix=tmp_path.name
            ) as bucket:
                yield bucket
        else:
            async with await FileStore.open(tmp_path / "store") as files:
                yield files

    return context


@pytest.mark.loops
async def test_add_and_read(opened: Stores) -> None:
    async with opened() as store:
        for size in (0, 1, 16384, 16385, 700_000):
            added = await store.add_bytes(bytearray(pattern(size)))
            assert added.size == size and added.hash == Hash.of(pattern(size))
            assert await store.status(added.hash) == BlobStatus.complete(size)
            assert await store.read_bytes(added.hash, limit=size) == pattern(size)
            if size:
                with pytest.raises(blobs.BlobTooLargeError):
                    await store.read_bytes(added.hash, limit=size - 1)


async def test_what_is_not_there(opened: Stores, tmp_path: Path) -> None:
    unknown = Hash(b"x" * 32)
    async with opened() as store:
        assert await store.status(unknown) == BlobStatus.missing()
        assert await store.handle(unknown) is None
        for attempt in (
            store.read_bytes(unknown, limit=1),
            store.reader(unknown).__aenter__(),
            store.stage([unknown], tmp_path),
        ):
            with pytest.raises(blobs.NotFoundError):
                await attempt
        with pytest.raises(ValueError, match="not open"):
            _ = store.reader(unknown).size
        with pytest.raises(OSError, match="nothing-here"):
            await store.add_file(tmp_path / "nothing-here")
        with pytest.raises(OSError, match="nothing-here"):
            await store.add_files([tmp_path / "nothing-here"])


async def test_the_empty_blob_is_always_there(opened: Stores) -> None:
    async with opened() as store:
        assert (await store.status(Hash.EMPTY)).is_complete
        assert await store.read_bytes(Hash.EMPTY, limit=0) == b""
        async with store.reader(Hash.EMPTY) as reader:
            assert await reader.read() == b""


async def test_files_are_read_where_they_are(opened: Stores, tmp_path: Path) -> None:
    sizes = [0, 5, 16385, 1_500_000, 20_000_000]
    paths = [tmp_path / f"file{size}" for size in sizes]
    for size, path in zip(sizes, paths, strict=True):
        path.write_bytes(pattern(size))
    progress: list[tuple[int, int]] = []
    async with opened() as store:
        added = await store.add_files(
            paths, on_hashed=lambda index, done: progress.append((index, done))
        )
        for size, file in zip(sizes, added, strict=True):
            assert (file.hash, file.size) == (Hash.of(pattern(size)), size)
            assert await store.read_bytes(file.hash, limit=size) == pattern(size)
            async with store.reader(file.hash) as reader:
                assert await reader.read_at(size // 2, 10) == pattern(size)[size // 2 :][:10]
    for index, size in enumerate(sizes):
        assert (index, size) in progress
    assert all(path.exists() for path in paths)


async def test_many_files(opened: Stores, tmp_path: Path) -> None:
    paths = [tmp_path / f"f{number}" for number in range(300)]
    for number, path in enumerate(paths):
        path.write_bytes(b"%d" % number)
    async with opened() as store:
        added = await store.add_files(paths)
        assert [file.hash for file in added] == [Hash.of(b"%d" % n) for n in range(300)]


async def test_writers_share_a_blob(opened: Stores) -> None:
    hash = Hash.of(b"hello")
    async with opened() as store:
        first = await store.writer(hash, max_size=10)
        second = await store.writer(hash, max_size=10)
        assert first.handle is second.handle
        async with first, second:
            assert (await store.status(hash)).state is BlobState.MISSING
        # Nothing arrived: nothing is left.
        assert await store.handle(hash) is None
        await store.add_bytes(b"hello")
        with pytest.raises(ValueError, match="complete"):
            await store.writer(hash, max_size=10)


async def test_observing(opened: Stores) -> None:
    hash = Hash.of(b"hello")
    async with opened() as store:
        seen: asyncio.Queue[BlobState] = asyncio.Queue()

        async def observe() -> None:
            async for status in store.observe(hash):
                seen.put_nowait(status.state)

        task = asyncio.create_task(observe())
        assert await seen.get() is BlobState.MISSING
        added = await store.add_bytes(b"hello")
        assert await seen.get() is BlobState.COMPLETE
        added.tag.release()
        await store.collect_garbage()
        assert await seen.get() is BlobState.MISSING
        task.cancel()
        await asyncio.wait([task])
        assert seen.empty()
        assert not getattr(store, "_local", store)._watches


async def test_garbage(opened: Stores, tmp_path: Path) -> None:
    async with opened() as store:
        kept = await store.add_bytes(b"kept by an object")
        named = await store.add_bytes(b"kept by a name")
        protected = await store.add_bytes(b"kept by a call")
        child = await store.add_bytes(b"kept by its parent")
        root = await store.add_bytes(bytes(HashSeq([child.hash])), BlobFormat.HASH_SEQ)
        dead = await store.add_bytes(b"kept by nothing")
        (tmp_path / "file").write_bytes(b"somebody else's")
        file = await store.add_file(tmp_path / "file")
        store.tags.set(b"name", HashAndFormat(named.hash))
        for added in (named, protected, child, dead, file):
            added.tag.release()
            added.tag.release()  # harmless

        async def protect() -> list[Hash]:
            return [protected.hash]

        assert await store.collect_garbage(protect) == 2
        for added in (kept, named, protected, child, root):
            assert (await store.status(added.hash)).is_complete
        for added in (dead, file):
            assert not (await store.status(added.hash)).is_complete
        assert (tmp_path / "file").exists()
        # A tag that is forgotten counts as released.
        hashes = [kept.hash, child.hash]
        del kept, root, added
        gc.collect()
        assert store.tags.delete(b"name") and not store.tags.delete(b"name")
        assert await store.collect_garbage() == 5
        assert not any(s.is_complete for s in await store.statuses(hashes))


async def test_tags(opened: Stores) -> None:
    async with opened() as store:
        content = HashAndFormat(Hash.EMPTY)
        for name in (b"b/2", b"a", b"b/1"):
            store.tags.set(name, content)
        assert store.tags.get(b"a") == content and store.tags.get(b"x") is None
        assert [name for name, _ in store.tags.list(b"b/")] == [b"b/1", b"b/2"]
        assert len(store.tags) == 3
        with store.hold(content) as tag:
            assert tag.content == content and len(store._temp) == 1
        assert len(store._temp) == 0


async def test_one_disk_worker_for_a_loop() -> None:
    first, second = DiskWorker.acquire(), DiskWorker.acquire()
    assert first is second
    first.release()
    third = DiskWorker.acquire()
    assert third is second
    second.release()
    third.release()
    fourth = DiskWorker.acquire()
    assert fourth is not first
    fourth.release()


async def test_a_cancelled_job(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(1 << 32)
    worker = DiskWorker.acquire()
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await worker.hash_file(path)
        (tmp_path / "small").write_bytes(b"x")
        async with asyncio.timeout(5):
            assert (await worker.hash_file(tmp_path / "small")).size == 1
            small = _native.Blob.from_bytes(b"x")
            await worker.write_blobs([(small, tmp_path / "copy")])
            await worker.sync_files([tmp_path / "copy"])
        assert (tmp_path / "copy").read_bytes() == b"x"
    finally:
        worker.release()


# --- export ---------------------------------------------------------------------------------------

FILES = {"a": b"hello", "d/b": pattern(100_000), "d/e/c": b"", "d/same": pattern(100_000)}


async def collection_in(store: MemoryStore | FileStore) -> Collection:
    return Collection([(name, (await store.add_bytes(data)).hash) for name, data in FILES.items()])


def tree(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "target").mkdir()
    return tmp_path / "target"


async def test_export(opened: Stores, target: Path) -> None:
    async with opened() as store:
        collection = await collection_in(store)
        assert await export_collection(store, collection, target) == [
            target / name for name in FILES
        ]
        assert tree(target) == FILES
        mask = os.umask(0)
        os.umask(mask)
        assert (target / "a").stat().st_mode & 0o777 == 0o666 & ~mask
        # What is there already is no conflict, and is left alone.
        before = {path: path.stat().st_ino for path in target.rglob("*")}
        await export_collection(store, collection, target)
        assert before == {path: path.stat().st_ino for path in target.rglob("*")}
    assert tree(target) == FILES


async def test_export_where_something_else_is(opened: Stores, target: Path) -> None:
    async with opened() as store:
        collection = await collection_in(store)
        (target / "a").write_bytes(b"other")
        with pytest.raises(blobs.ExportConflictError) as caught:
            await export_collection(store, collection, target)
        assert caught.value.paths == (str(target / "a"),)
        assert tree(target) == {"a": b"other"}
        others = [target / name for name in FILES if name != "a"]
        assert (
            await export_collection(store, collection, target, on_conflict=OnConflict.SKIP)
            == others
        )
        paths = await export_collection(store, collection, target, on_conflict=OnConflict.RENAME)
        assert paths == [target / "a (1)", *others]
        assert tree(target) == {**FILES, "a": b"other", "a (1)": FILES["a"]}
        await export_collection(store, collection, target, on_conflict=OnConflict.OVERWRITE)
        assert tree(target) == {**FILES, "a (1)": FILES["a"]}


async def test_export_of_some(opened: Stores, target: Path) -> None:
    placed: list[tuple[int, Path]] = []
    (target / "a").write_bytes(FILES["a"])
    async with opened() as store:
        collection = await collection_in(store)
        sizes = [len(data) for data in FILES.values()]
        plan = await blobs.plan_export(store, collection, sizes, target, indexes=[0, 2])
        wanted = plan.ranges()
        assert [index for index, _ in wanted.items(10)] == [0, 1, 4]
        await blobs.export_files(
            store, plan, on_file=lambda place, path: placed.append((place.index, path))
        )
        name = list(FILES)[2]
        assert placed == [(2, target / name)]
        assert tree(target) == {"a": FILES["a"], name: FILES[name]}


async def test_what_comes_in_the_way_of_a_plan_stays(opened: Stores, target: Path) -> None:
    async with opened() as store:
        collection = await collection_in(store)
        sizes = [len(data) for data in FILES.values()]
        plan = await blobs.plan_export(store, collection, sizes, target)
        (target / "a").write_bytes(b"new here")
        with pytest.raises(blobs.ExportConflictError) as caught:
            await blobs.export_files(store, plan)
        assert caught.value.paths == (str(target / "a"),)
        assert (target / "a").read_bytes() == b"new here"


async def test_conflicts_are_found_before_anything_is_written(
    opened: Stores, target: Path, tmp_path: Path
) -> None:
    (target / "d").mkdir()
    (target / "d" / "same").symlink_to(tmp_path / "nowhere")
    async with opened() as store:
        collection = await collection_in(store)
        with pytest.raises(blobs.ExportConflictError) as caught:
            await export_collection(store, collection, target)
        assert caught.value.paths == (str(target / "d" / "same"),)
        assert isinstance(caught.value, FileExistsError)
        assert tree(target) == {}
        (target / "d" / "same").unlink()
        (target / "d" / "e").symlink_to(tmp_path, target_is_directory=True)
        for on_conflict in (OnConflict.REFUSE, OnConflict.OVERWRITE):
            with pytest.raises(blobs.ExportConflictError):
                await export_collection(store, collection, target, on_conflict=on_conflict)
        assert tree(target) == {}
        assert not (tmp_path / "c").exists()


async def test_bad_names_are_found_before_anything_is_written(opened: Stores, target: Path) -> None:
    async with opened() as store:
        hash = (await store.add_bytes(b"x")).hash
        for bad in ("../out", "/abs", "a\\b", "a/../../out", "a\nb"):
            with pytest.raises(blobs.UnsafeNameError):
                await export_collection(store, Collection([("ok", hash), (bad, hash)]), target)
        with pytest.raises(blobs.UnsafeNameError):
            await export_collection(store, Collection([("a", hash), ("a", hash)]), target)
        assert list(target.iterdir()) == []
        assert not (target.parent / "out").exists()


async def test_incomplete_content_is_not_exported(opened: Stores, target: Path) -> None:
    async with opened() as store:
        hash = (await store.add_bytes(b"x")).hash
        with pytest.raises(blobs.IncompleteBlobError):
            await export_collection(
                store, Collection([("ok", hash), ("bad", Hash(b"x" * 32))]), target
            )
        assert list(target.iterdir()) == []


async def test_case_matters_where_the_file_system_says_so(opened: Stores, target: Path) -> None:
    async with opened() as store:
        one, two = (await store.add_bytes(b"1")).hash, (await store.add_bytes(b"2")).hash
        (target / "probe").touch()
        folds = (target / "PROBE").exists()
        (target / "probe").unlink()
        both = Collection([("readme", one), ("README", two)])
        await export_collection(store, both, target)
        second = "README (1)" if folds else "README"
        assert tree(target) == {"readme": b"1", second: b"2"}


async def test_files_that_were_shared_are_copied(opened: Stores, target: Path) -> None:
    shared = target.parent / "shared"
    shared.write_bytes(pattern(50_000))
    async with opened() as store:
        hash = (await store.add_file(shared)).hash
        await export_collection(store, Collection([("copy", hash)]), target)
        assert shared.read_bytes() == (target / "copy").read_bytes() == pattern(50_000)
        assert await store.read_bytes(hash, limit=50_000) == pattern(50_000)


async def test_loading_a_collection(opened: Stores) -> None:
    async with opened() as store:
        collection = await collection_in(store)
        sequence, metadata = collection.to_parts()
        root = (await store.add_bytes(bytes(sequence))).hash
        with pytest.raises(blobs.NotFoundError):
            await blobs.load_collection(store, root)
        await store.add_bytes(metadata)
        assert await blobs.load_collection(store, root) == collection
        empty = (await store.add_bytes(b"")).hash
        with pytest.raises(DecodeError):
            await blobs.load_collection(store, empty)
        odd = (await store.add_bytes(b"odd")).hash
        with pytest.raises(DecodeError):
            await blobs.load_collection(store, odd)


async def test_importing(opened: Stores, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    for name, data in FILES.items():
        (shared / name).parent.mkdir(parents=True, exist_ok=True)
        (shared / name).write_bytes(data)
    async with opened() as store:
        seen: list[blobs.ImportProgress] = []
        imported = await blobs.import_paths(store, [shared], on_progress=seen.append)
        names = tuple(f"shared/{name}" for name in FILES)
        assert imported.collection.names == names
        assert imported.size == sum(map(len, FILES.values()))
        assert (seen[-1].bytes, seen[-1].total_bytes) == (imported.size, imported.size)
        assert seen[-1].files == seen[-1].total_files == 4
        assert await blobs.load_collection(store, imported.root.hash) == imported.collection
        assert await store.collect_garbage() == 0
        nothing = tmp_path / "nothing"
        nothing.mkdir()
        empty = await blobs.import_paths(store, [nothing])
        assert empty.root.hash.hex().startswith("c69e3bb6ad")
        assert len(empty.collection) == 0


async def test_an_export_tells_how_far_it_is(opened: Stores, tmp_path: Path) -> None:
    large = pattern(20_000_000)
    heard: list[int] = []
    async with opened() as store:
        names = [f"file {number}" for number in range(100)]
        added = await store.add_many([*(b"%d" % number for number in range(99)), large])
        collection = Collection(zip(names, (one.hash for one in added), strict=True))
        sizes = [one.size for one in added]
        plan = await blobs.plan_export(store, collection, sizes, tmp_path)
        paths = await blobs.export_files(store, plan, keep=True, on_copied=heard.append)
    assert [path.name for path in paths] == names
    assert [path.stat().st_size for path in paths] == sizes
    assert paths[-1].read_bytes() == large
    # Also in the middle of a large file.
    assert heard == sorted(heard) and heard[-1] == sum(sizes)
    assert any(0 < sum(sizes) - done < len(large) for done in heard)


async def test_a_file_that_vanishes(opened: Stores, tmp_path: Path) -> None:
    path = tmp_path / "file"
    # A bucket that was about to get it says so at the end.
    with contextlib.suppress(blobs.StorageError):
        async with opened() as store:
            # What is smaller is in memory there.
            path.write_bytes(pattern(20_000 if isinstance(store, MemoryStore) else 1000))
            hash = (await store.add_file(path, mode=ImportMode.REFERENCE)).hash
            handle = await store.handle(hash)
            path.unlink()
            assert handle is not None
            with pytest.raises(OSError):
                handle.read(0, 1000)
            with pytest.raises((OSError, blobs.NotFoundError)):
                await store.read_bytes(hash, limit=20_000)


async def test_a_small_file_is_kept_in_memory(tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(50)]
    for number, path in enumerate(paths):
        path.write_bytes(pattern(number * 400))
    hashed: list[tuple[int, int]] = []
    async with MemoryStore() as store:
        added = await store.add_files(paths, on_hashed=lambda *done: hashed.append(done))
        for path in paths[:40]:
            path.unlink()
        for number, one in enumerate(added[:40]):
            assert await store.read_bytes(one.hash, limit=20_000) == pattern(number * 400)
        assert sorted(hashed) == [(number, number * 400) for number in range(50)]
        assert [one.size for one in added] == [number * 400 for number in range(50)]


async def test_what_a_receiver_has_verified(opened: Stores) -> None:
    data = [b"%d" % number for number in range(120)]
    async with opened() as store:
        await store.put_verified([(Hash.of(one), one) for one in data])
        statuses = await store.statuses([Hash.of(one) for one in data])
        assert statuses == [BlobStatus.complete(len(one)) for one in data]
        # Another writer of the same blob is not disturbed, and the data are kept if it leaves.
        writer = await store.writer(Hash.of(b"more"), max_size=10)
        async with writer:
            await store.put_verified([(Hash.of(b"more"), b"more"), (Hash.EMPTY, b"")])
        handles = await store.handles([Hash.of(b"more"), Hash.EMPTY, Hash.of(b"nothing")])
        assert [handle and handle.read(0, 10) for handle in handles] == [b"more", b"", None]
