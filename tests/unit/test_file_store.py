"""The store in a folder: what outlives the process, and whose folder it is."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from blob_serving import Pairs, answering, serving

from aioiroh import _native, blobs
from aioiroh.blobs import (
    BlobFormat,
    BlobState,
    BlobStatus,
    ChunkRanges,
    Collection,
    FileStore,
    Hash,
    HashAndFormat,
    ImportMode,
    MemoryStore,
    Provider,
    ProviderError,
)
from aioiroh.errors import BusyError

SIZES = (1, 16384, 16385, 300_000, 5_000_000)


def pattern(size: int, start: int = 0) -> bytes:
    return (bytes(range(start, 251)) * (size // (251 - start) + 1))[:size]


def tree(folder: Path) -> list[str]:
    """Names of the files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


# --- what outlives the process --------------------------------------------------------------------


@pytest.mark.loops
async def test_what_was_added_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    async with await FileStore.open(tmp_path / "store") as store:
        added = [await store.add_bytes(pattern(size)) for size in SIZES]
        added.append(await store.add_stream(pieces(pattern(2_500_000, 7), 300_001)))
        (tmp_path / "file").write_bytes(pattern(5_000_000, 3))
        (tmp_path / "copied").write_bytes(pattern(5_000_000, 4))
        added.append(await store.add_file(tmp_path / "file"))
        added.append(await store.add_file(tmp_path / "copied", mode=ImportMode.COPY))
        (tmp_path / "copied").unlink()
        store.tags.set(b"name", HashAndFormat(added[0].hash, BlobFormat.HASH_SEQ))
    expected = [pattern(size) for size in SIZES]
    expected += [pattern(2_500_000, 7), pattern(5_000_000, 3), pattern(5_000_000, 4)]
    async with await FileStore.open(tmp_path / "store") as store:
        for one, data in zip(added, expected, strict=True):
            assert one.hash == Hash.of(data)
            assert await store.status(one.hash) == BlobStatus.complete(len(data))
            assert await store.read_bytes(one.hash, limit=len(data)) == data
        listed = {hash: status async for hash, status in store.blobs()}
        assert listed == {one.hash: BlobStatus.complete(one.size) for one in added}
        assert list(store.tags.list()) == [
            (b"name", HashAndFormat(added[0].hash, BlobFormat.HASH_SEQ))
        ]
        assert await store.collect_garbage() == len(added) - 1
    async with await FileStore.open(tmp_path / "store") as store:
        assert [hash async for hash, _ in store.blobs()] == [added[0].hash]
        assert not [name for name in tree(tmp_path / "store") if name.startswith(("data", "temp"))]
    assert (tmp_path / "file").exists()


async def test_many_small_blobs(tmp_path: Path) -> None:
    data = [b"%d" % number for number in range(1000)]
    async with await FileStore.open(tmp_path / "store") as store:
        added = await store.add_many(data)
        assert [one.hash for one in added] == [Hash.of(one) for one in data]
        assert await store.add_many(data[:3]) and await store.add_many([]) == []
        assert len([hash async for hash, _ in store.blobs()]) == 1000
    async with await FileStore.open(tmp_path / "store") as store:
        statuses = await store.statuses([one.hash for one in added])
        assert statuses == [BlobStatus.complete(len(one)) for one in data]


async def test_more_blobs_than_stay_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioiroh.blobs.store.file.athand.REMEMBERED", 10)
    data = [pattern(20_000 + number) for number in range(60)]
    async with await FileStore.open(tmp_path / "store") as store:
        hashes = [(await store.add_bytes(one)).hash for one in data]
        # Some are at hand when the others are looked for, and make room for them.
        for start in (50, 0, 55, 3):
            assert all(await store.handles(hashes[start : start + 10]))
            statuses = await store.statuses(hashes)
            assert [status.size for status in statuses] == [len(one) for one in data]
            assert all(await store.handles(hashes))
            assert await store.writers(hashes, max_size=1 << 20) == [None] * 60
        paths = await store.stage(hashes, tmp_path)
        assert [path.read_bytes() for path in paths] == data


async def test_destroying_leaves_nothing_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "folder"
    store = await FileStore.open(folder)
    await store.add_bytes(pattern(100_000))
    assert folder.stat().st_mode & 0o777 == 0o700
    await store.destroy()
    assert not folder.exists()
    store = await FileStore.open(folder)
    await store.aclose()
    await store.aclose()  # harmless
    (folder / "mine").write_bytes(b"not the store's")
    await store.destroy()
    assert os.listdir(folder) == ["mine"]


# --- whose folder it is ---------------------------------------------------------------------------


async def test_one_store_at_a_time(tmp_path: Path) -> None:
    async with await FileStore.open(tmp_path / "store"):
        with pytest.raises(BusyError, match=str(tmp_path / "store")):
            await FileStore.open(tmp_path / "store")
    await (await FileStore.open(str(tmp_path / "store"))).aclose()


async def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine").write_bytes(b"x")
    with pytest.raises(blobs.StoreFormatError, match="neither empty nor a store"):
        await FileStore.open(tmp_path)
    assert tree(tmp_path) == ["data/mine"]


async def test_a_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "blobs.sqlite") as database:
        database.execute("CREATE TABLE theirs (x)")
    database.close()
    before = (tmp_path / "blobs.sqlite").read_bytes()
    with pytest.raises(blobs.StoreFormatError, match="not of a store"):
        await FileStore.open(tmp_path)
    assert tree(tmp_path) == ["blobs.sqlite"]
    assert (tmp_path / "blobs.sqlite").read_bytes() == before


async def test_a_newer_layout_is_refused(tmp_path: Path) -> None:
    await (await FileStore.open(tmp_path / "store")).aclose()
    with sqlite3.connect(tmp_path / "store" / "blobs.sqlite") as database:
        database.execute("PRAGMA user_version = 2")
    database.close()
    with pytest.raises(blobs.StoreFormatError, match=r"layout version 2.*newer program"):
        await FileStore.open(tmp_path / "store")


async def test_the_lock_is_not_a_link(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        await FileStore.open(tmp_path / "store")
    assert not (tmp_path / "elsewhere").exists()


# --- files of others ------------------------------------------------------------------------------


async def test_an_unchanged_file_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(pattern(5_000_000))
    os.utime(tmp_path / "file", (1_000_000_000, 1_000_000_000))
    progress: list[tuple[int, int]] = []
    async with await FileStore.open(tmp_path / "store") as store:
        first = await store.add_file(tmp_path / "file")
    async with await FileStore.open(tmp_path / "store") as store:
        monkeypatch.setattr(store.worker, "hash_file", None)
        again = await store.add_file(
            tmp_path / "file", on_hashed=lambda index, done: progress.append((index, done))
        )
        assert (again.hash, again.size, progress) == (first.hash, first.size, [(0, 5_000_000)])
        monkeypatch.undo()
        (tmp_path / "file").write_bytes(pattern(5_000_000, 9))
        changed = await store.add_file(tmp_path / "file")
        assert changed.hash == Hash.of(pattern(5_000_000, 9))


async def test_an_unchanged_file_whose_copy_is_lost_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(pattern(100_000))
    os.utime(path, (1_000_000_000, 1_000_000_000))
    async with await FileStore.open(tmp_path / "store") as store:
        await store.add_file(path)
        copy = await store.add_file(path, mode=ImportMode.COPY)
        (tmp_path / "store" / "data" / copy.hash.hex()[:2] / f"{copy.hash}.data").unlink()
        again = await store.add_file(path)
        assert await store.read_bytes(again.hash, limit=100_000) == pattern(100_000)


async def test_a_file_that_was_just_changed_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    async with await FileStore.open(tmp_path / "store") as store:
        monkeypatch.setattr(store._layout, "now_ns", lambda: path.stat().st_mtime_ns)
        path.write_bytes(pattern(100_000))
        first = await store.add_file(path)
        state = path.stat()
        # As if within the same tick of the file system's clock.
        path.write_bytes(pattern(100_000, 5))
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        assert (await store.add_file(path)).hash == Hash.of(pattern(100_000, 5))
        assert not (await store.status(first.hash)).is_complete


async def test_a_changed_file_is_not_there_any_more(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(pattern(100_000))
    async with await FileStore.open(tmp_path / "store") as store:
        added = await store.add_file(path)
        handle = await store.handle(added.hash)
        # What is the same after all is believed when it was looked at.
        os.utime(path, ns=(1, 1))
        assert (await store.status(added.hash)).is_complete
        path.write_bytes(pattern(100_000, 5))
        assert await store.status(added.hash) == BlobStatus.missing()
        with pytest.raises(blobs.NotFoundError):
            await store.read_bytes(added.hash, limit=100_000)
        assert [hash async for hash, _ in store.blobs()] == []
        assert handle is not None


async def test_a_file_that_is_away_may_come_back(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(pattern(100_000))
    async with await FileStore.open(tmp_path / "store") as store:
        added = await store.add_file(path)
        path.rename(tmp_path / "away")
        assert await store.status(added.hash) == BlobStatus.missing()
        (tmp_path / "away").rename(path)
        assert await store.read_bytes(added.hash, limit=100_000) == pattern(100_000)


async def test_a_blob_in_two_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(pattern(100_000))
    async with await FileStore.open(tmp_path / "store") as store:
        one, two = await store.add_files([tmp_path / "one", tmp_path / "two"])
        assert one.hash == two.hash
        (tmp_path / "one").write_bytes(b"changed")
        assert await store.read_bytes(one.hash, limit=100_000) == pattern(100_000)
        # A copy of the store's own is worth more.
        await store.add_file(tmp_path / "two", mode=ImportMode.COPY)
        (tmp_path / "two").unlink()
        assert await store.read_bytes(one.hash, limit=100_000) == pattern(100_000)


# --- where data leave -----------------------------------------------------------------------------


async def test_a_file_that_is_given_away_is_referred_to(tmp_path: Path) -> None:
    target = tmp_path / "target"
    async with await FileStore.open(tmp_path / "store") as store:
        added = await store.add_bytes(pattern(5_000_000))
        [name] = [name for name in tree(tmp_path / "store") if name.endswith(".data")]
        inode = (tmp_path / "store" / name).stat().st_ino
        [staged, copy] = await store.stage([added.hash] * 2, tmp_path)
        # Until it is settled the store has it, too.
        assert (tmp_path / "store" / name).exists()
        staged.rename(target)
        await store.settle([(added.hash, target)])
        assert target.stat().st_ino == inode != copy.stat().st_ino
        assert copy.read_bytes() == pattern(5_000_000)
        await store.sync()
        assert not (tmp_path / "store" / name).exists()
    async with await FileStore.open(tmp_path / "store") as store:
        assert await store.read_bytes(added.hash, limit=5_000_000) == pattern(5_000_000)
        [kept] = await store.stage([added.hash], tmp_path, keep=True)
        assert kept.read_bytes() == pattern(5_000_000) and not kept.samefile(target)


# --- finding damage -------------------------------------------------------------------------------


async def test_verify_and_repair(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    async with await FileStore.open(folder) as store:
        small = await store.add_bytes(b"small")
        good = await store.add_bytes(pattern(100_000))
        torn = await store.add_bytes(pattern(200_000))
        gone = await store.add_bytes(pattern(300_000))
        assert [finding.problem async for finding in store.verify()] == [None] * 4
    with (folder / "data" / torn.hash.hex()[:2] / f"{torn.hash}.data").open("r+b") as file:
        file.seek(50_000)
        file.write(b"damage")
    (folder / "data" / gone.hash.hex()[:2] / f"{gone.hash}.data").unlink()
    with sqlite3.connect(folder / "blobs.sqlite") as database:
        database.execute("UPDATE blobs SET data = ? WHERE hash = ?", (b"SMALL", bytes(small.hash)))
    database.close()
    (folder / "data" / "zz").mkdir()
    (folder / "data" / "zz" / "stray").write_bytes(b"x")
    stray = folder / "data" / good.hash.hex()[:2] / f"{Hash.of(b'stray')}.data"
    stray.write_bytes(b"x")
    async with await FileStore.open(folder) as store:
        bad = {f.hash async for f in store.verify() if not f.is_good}
        assert bad == {small.hash, torn.hash, gone.hash}
        assert stray.exists()
        repaired = {f.hash: f.after.state async for f in store.repair() if not f.is_good}
        assert repaired == {
            small.hash: BlobState.MISSING,
            torn.hash: BlobState.PARTIAL,
            gone.hash: BlobState.MISSING,
        }
        status = await store.status(torn.hash)
        assert status.size_verified and status.present == ~ChunkRanges.chunks(48, 64)
        assert [f.problem async for f in store.verify()] == [None] * 2
        assert await store.read_bytes(good.hash, limit=100_000) == pattern(100_000)
    assert not stray.exists() and not (folder / "data" / "zz" / "stray").exists()


async def test_a_process_that_died_while_it_made_the_store(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    folder.mkdir()
    for names in (["lock"], ["lock", "blobs.sqlite"]):
        for name in names:
            (folder / name).touch()
        async with await FileStore.open(folder) as store:
            await store.add_bytes(b"x")
        shutil.rmtree(folder)
        folder.mkdir()


async def test_an_outboard_has_a_file_only_if_it_needs_one(
    quic_pair: Pairs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def outboards() -> list[str]:
        return [path.name for path in (tmp_path / "store").rglob("*.outboard")]

    folder = tmp_path / "store"
    small, large = pattern(100_000), pattern(1_100_000)
    hash = Hash.of(small)
    part = _native.encode_blob(small, (0,))[:50_000]
    async with MemoryStore() as source, await FileStore.open(folder) as store:
        await source.add_many((small, large))
        async with serving(quic_pair, Provider(source)) as connection:
            with monkeypatch.context() as patch:
                # Parts that are noted have to be found again; this one shall arrive as if at once.
                patch.setattr(FileStore, "_progressed", lambda *_: None)
                await blobs.get(connection, hash, into=store)
            assert outboards() == []
            await blobs.get(connection, Hash.of(large), into=store)
            assert outboards() == [f"{Hash.of(large)}.outboard"]
        for data in (small, large):
            handle = await store.handle(Hash.of(data))
            assert handle is not None and handle.response((0,)) is None
    async with await FileStore.open(folder) as store:
        # It can be served, which takes the outboards.
        async with serving(quic_pair, Provider(store)) as connection:
            for data in (small, large):
                assert await blobs.get_bytes(connection, Hash.of(data), limit=1 << 21) == data
        await store.delete([hash])
        # A part of a blob is found again by its outboard.
        async with serving(quic_pair, answering(part)) as connection:
            with pytest.raises(ProviderError):
                await blobs.get(connection, hash, into=store)
        assert len(outboards()) == 2
    async with await FileStore.open(folder) as store:
        assert (await store.status(hash)).present == ChunkRanges((0, 48))
        async with MemoryStore() as source:
            await source.add_bytes(small)
            async with serving(quic_pair, Provider(source)) as connection:
                await blobs.get(connection, hash, into=store)
        assert await store.read_bytes(hash, limit=1 << 20) == small
        assert [finding async for finding in store.verify() if not finding.is_good] == []


async def test_what_is_in_transit_leaves_as_the_file_that_it_came_into(
    quic_pair: Pairs, tmp_path: Path
) -> None:
    contents = [pattern(size) for size in (0, 1, 700, 16_384, 16_385, 400_000)]
    folder, out = tmp_path / "store", tmp_path / "out"
    (out / "staging").mkdir(parents=True)
    async with MemoryStore() as source:
        added = await source.add_many(contents)
        sequence = b"".join(bytes(one.hash) for one in added)
        root = (await source.add_bytes(sequence, BlobFormat.HASH_SEQ)).hash
        async with serving(quic_pair, Provider(source)) as connection:
            store = await FileStore.open(folder, transit=True)
            await blobs.get(connection, HashAndFormat(root, BlobFormat.HASH_SEQ), into=store)
    hashes = [one.hash for one in added]
    assert {s.state for s in await store.statuses(hashes)} == {BlobState.COMPLETE}
    for hash, data in zip(hashes, contents, strict=True):
        assert await store.read_bytes(hash, limit=1 << 20) == data
    # A kill loses nothing of it, once it is down.
    await store.sync()
    shutil.copytree(folder, tmp_path / "killed")
    places = [out / str(number) for number in range(5)]
    [first, again] = await store.stage([hashes[3]] * 2, out / "staging", places=places[:2])
    [kept] = await store.stage([hashes[3]], out / "staging", keep=True, places=places[:1])
    [untold] = await store.stage([hashes[3]], out / "staging")
    for file in (first, again, kept, untold):
        assert file.read_bytes() == contents[3] and file.parent == out / "staging"
    files = await store.stage(hashes[1:], out / "staging", places=places)
    assert {file.parent for file in files} == {folder / "loose"}
    # Nor does a kill while they are moved; and what was moved is known to be there.
    files[0].rename(places[0])
    shutil.copytree(folder, tmp_path / "killed later")
    for file, place in zip(files[1:], places[1:], strict=True):
        file.rename(place)
    for hash, data in zip(hashes, contents, strict=True):
        assert await store.read_bytes(hash, limit=1 << 20) == data
    await store.destroy()
    assert not folder.exists()
    for place in places[1:]:
        place.unlink()
    for name in ("killed", "killed later"):
        store = await FileStore.open(tmp_path / name, transit=True)
        for hash, data in zip(hashes, contents, strict=True):
            assert await store.read_bytes(hash, limit=1 << 20) == data
        assert [finding async for finding in store.verify() if not finding.is_good] == []
        await store.aclose()


async def test_a_file_that_cannot_be_made_in_transit(tmp_path: Path) -> None:
    data = [pattern(1000), pattern(2000)]
    store = await FileStore.open(tmp_path / "store", transit=True)
    hashes = [Hash.of(one) for one in data]
    # Where the first belongs is a link, which is never followed.
    (tmp_path / "store" / "loose" / f"{hashes[0]}.data").symlink_to("elsewhere")
    await store.put_verified(list(zip(hashes, data, strict=True)))
    await store.aclose()
    async with await FileStore.open(tmp_path / "store", transit=True) as store:
        for hash, one in zip(hashes, data, strict=True):
            assert await store.read_bytes(hash, limit=1 << 20) == one


async def test_the_same_file_in_several_places_in_transit(tmp_path: Path) -> None:
    async with await FileStore.open(tmp_path / "store", transit=True) as store:
        content = pattern(5000)
        await store.put_verified([(Hash.of(content), content)])
        collection = Collection((f"dir/{n:03}", Hash.of(content)) for n in range(200))
        paths = await blobs.export_collection(store, collection, tmp_path)
        assert len({path.stat().st_ino for path in paths}) == 200
        assert {path.read_bytes() for path in paths} == {content}


async def test_few_blobs_are_on_their_way_at_once_however_small(tmp_path: Path) -> None:
    data = [str(number).encode() for number in range(6000)]
    store = await FileStore.open(tmp_path / "store", transit=True)
    for start in range(0, len(data), 50):
        await store.put_verified([(Hash.of(one), one) for one in data[start : start + 50]])
        assert store._landing is not None and len(store._landing._waiting) <= 2100
    await store.destroy()
