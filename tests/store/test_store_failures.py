"""Disks that are full, read-only or not ours, files that vanish, clocks that go back: a clear error, and
nothing that was verified is lost.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from aioiroh import Endpoint, Router, blobs
from aioiroh.blobs import BlobState, BlobStatus, FileStore, Hash, ImportMode


def content(seed: int, size: int) -> bytes:
    return Random(seed).randbytes(size)


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system in memory."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("platform: mounting needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True)


def fill_up(folder: Path) -> Path:
    """Takes all the space that is left."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(bytes(size)):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC
    return ballast


@pytest.mark.parametrize("size", [1000, 300_000])
async def test_a_full_disk_while_blobs_are_added(tmp_path: Path, size: int) -> None:
    with mounted(tmp_path / "small", "size=6m") as small:
        added: list[Hash] = []
        async with await FileStore.open(small / "store") as store:
            with pytest.raises(OSError) as caught:
                for number in range(20_000):
                    added.append((await store.add_bytes(content(number, size))).hash)
            assert caught.value.errno == errno.ENOSPC
            assert str(small) in str(caught.value)
            assert all(status.is_complete for status in await store.statuses(added))
            # With space it goes on.
            if size > 16384:
                assert await store.delete(added[:5]) == 5
                del added[:5]
                await store.sync()
                added.append((await store.add_bytes(content(-1, size))).hash)
        async with await FileStore.open(small / "store") as store:
            assert [finding.problem async for finding in store.verify()] == [None] * len(added)
            assert all(status.is_complete for status in await store.statuses(added))


async def test_a_full_disk_while_a_blob_arrives(tmp_path: Path) -> None:
    data = content(1, 8_000_000)
    with mounted(tmp_path / "small", "size=12m") as small:
        async with (
            Endpoint.bind(bind=["127.0.0.1:0"]) as provider,
            Endpoint.bind(bind=["127.0.0.1:0"]) as getter,
            blobs.MemoryStore() as theirs,
            Router(provider, {blobs.ALPN: blobs.Provider(theirs)}),
            await FileStore.open(small / "store") as store,
        ):
            hash = (await theirs.add_bytes(data)).hash
            ballast = small / "ballast"
            ballast.write_bytes(bytes(7_000_000))
            with pytest.raises(OSError, match=str(small)) as caught:
                await blobs.get(getter, hash, into=store, provider=provider.addr)
            assert caught.value.errno == errno.ENOSPC
            status = await store.status(hash)
            here = status.present.select(len(data)).byte_count(len(data))
            assert status.state is BlobState.PARTIAL and here > 2_000_000
            ballast.unlink()
            got = await blobs.get(getter, hash, into=store, provider=provider.addr)
            assert got.received == len(data) - here
            assert await store.read_bytes(hash, limit=len(data)) == data


async def test_a_full_disk_under_what_a_receiver_has_verified(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "size=4m") as small:
        async with await FileStore.open(small / "store") as store:
            first = (await store.add_bytes(b"first")).hash
            ballast = fill_up(small)
            waiting = [(Hash.of(data), data) for data in (content(n, 4000) for n in range(40))]
            with pytest.raises(OSError, match="no space"):
                await store.put_verified(waiting)
                await store.sync()
            with pytest.raises(OSError, match="no space"):
                await store.writer(Hash.of(b"another"), max_size=10)
            # What could not be written down waits for better times.
            statuses = await store.statuses([first, *(hash for hash, _ in waiting)])
            assert all(status.is_complete for status in statuses)
            ballast.unlink()
            await store.sync()
        async with await FileStore.open(small / "store") as store:
            statuses = await store.statuses([first, *(hash for hash, _ in waiting)])
            assert all(status.is_complete for status in statuses)


async def test_a_disk_that_becomes_read_only(tmp_path: Path) -> None:
    with mounted(tmp_path / "fixed", "size=9m") as fixed:
        store = await FileStore.open(fixed / "store")
        small, large = await store.add_bytes(b"small"), await store.add_bytes(content(1, 100_000))
        await store.sync()
        # A mount that is in use for writing cannot be made read-only.
        await store.aclose()
        remount(fixed, "ro")
        with pytest.raises(OSError, match=str(fixed)) as caught:
            await FileStore.open(fixed / "store")
        assert caught.value.errno == errno.EROFS
        with pytest.raises(OSError, match=str(fixed)):
            await FileStore.open(fixed / "another")
        remount(fixed, "rw")
        async with await FileStore.open(fixed / "store") as store:
            for added in (small, large):
                assert (await store.status(added.hash)).is_complete


@contextmanager
def nobody() -> Iterator[None]:
    """Without the rights of root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


async def test_a_folder_of_somebody_else(tmp_path: Path) -> None:
    for path in (tmp_path, *tmp_path.parents):
        path.chmod(path.stat().st_mode | 0o755)
    store = await FileStore.open(tmp_path / "store")
    await store.aclose()
    (tmp_path / "store").chmod(0o555)
    (tmp_path / "closed").mkdir(mode=0o555)
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "secret").chmod(0)
    with nobody():
        for folder in (tmp_path / "store", tmp_path / "closed" / "store"):
            with pytest.raises(PermissionError, match=str(folder)):
                await FileStore.open(folder)
        async with blobs.MemoryStore() as memory:
            for mode in ImportMode:
                with pytest.raises(PermissionError, match="secret"):
                    await memory.add_file(tmp_path / "secret", mode=mode)


async def test_files_that_vanish(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    async with await FileStore.open(folder) as store:
        gone = (await store.add_bytes(content(1, 300_000))).hash
        cut = (await store.add_bytes(content(2, 300_000))).hash
        (folder / "data" / gone.hex()[:2] / f"{gone}.data").unlink()
        os.truncate(folder / "data" / cut.hex()[:2] / f"{cut}.data", 100_000)
        assert await store.status(gone) == BlobStatus.missing()
        status = await store.status(cut)
        assert status.state is BlobState.PARTIAL
        assert status.present.byte_count(300_000) == 98_304
        with pytest.raises(blobs.NotFoundError):
            await store.read_bytes(gone, limit=300_000)
        # It can be had again.
        await store.add_bytes(content(1, 300_000))
        await store.add_bytes(content(2, 300_000))
        for hash in (gone, cut):
            assert (await store.status(hash)).is_complete
    vanishing = tmp_path / "vanishing"
    async with await FileStore.open(folder) as store:
        for mode in ImportMode:
            with pytest.raises(FileNotFoundError, match="vanishing"):
                await store.add_file(vanishing, mode=mode)


async def test_a_clock_that_goes_back(tmp_path: Path) -> None:
    path = tmp_path / "file"
    async with await FileStore.open(tmp_path / "store") as store:
        path.write_bytes(content(1, 50_000))
        os.utime(path, (2_000_000_000, 2_000_000_000))
        first = await store.add_file(path)
        assert (await store.status(first.hash)).is_complete
    for name in ("blobs.sqlite", "lock"):
        os.utime(tmp_path / "store" / name, (4_000_000_000, 4_000_000_000))
    async with await FileStore.open(tmp_path / "store") as store:
        assert (await store.status(first.hash)).is_complete
        path.write_bytes(content(2, 50_000))
        os.utime(path, (1_000_000_000, 1_000_000_000))
        assert (await store.add_file(path)).hash == Hash.of(content(2, 50_000))
        assert not (await store.status(first.hash)).is_complete
