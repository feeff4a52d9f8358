"""Copies on a file system that can share blocks: they take no space, and are independent of each other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from aioiroh.blobs import FileStore, ImportMode

SIZE = 40_000_000


@pytest.fixture
def sharing(tmp_path: Path, require: Callable[[object, str], None]) -> Iterator[Path]:
    """A folder on XFS, in a file."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("platform: mounting needs root on Linux")
    require(shutil.which("mkfs.xfs"), "there is no mkfs.xfs: install xfsprogs")
    image, folder = tmp_path / "image", tmp_path / "xfs"
    with image.open("wb") as file:
        file.truncate(320 << 20)
    subprocess.run(["mkfs.xfs", "-q", "-m", "reflink=1", image], check=True)
    folder.mkdir()
    mount = ["mount", "-t", "xfs", "-o", "loop", image, folder]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("platform: this system mounts no XFS images")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def free(folder: Path) -> int:
    os.sync()
    state = os.statvfs(folder)
    return state.f_bfree * state.f_frsize


async def test_copies_share_blocks_and_nothing_else(sharing: Path) -> None:
    data = Random(1).randbytes(SIZE)
    source = sharing / "source"
    source.write_bytes(data)
    before = free(sharing)
    async with await FileStore.open(sharing / "store") as store:
        added = await store.add_file(source, mode=ImportMode.COPY)
        copies = [
            *await store.stage([added.hash], sharing, keep=True),
            *await store.stage([added.hash], sharing, keep=True),
        ]
        assert before - free(sharing) < SIZE // 10
        for path in (source, copies[0]):
            with path.open("r+b") as file:
                file.write(b"changed")
        assert await store.read_bytes(added.hash, limit=SIZE) == data
        assert copies[1].read_bytes() == data
        assert copies[0].read_bytes() == b"changed" + data[7:]


async def test_a_reference_is_copied_by_sharing(sharing: Path) -> None:
    data = Random(2).randbytes(SIZE)
    source = sharing / "source"
    source.write_bytes(data)
    before = free(sharing)
    async with await FileStore.open(sharing / "store") as store:
        added = await store.add_file(source)
        [copy] = await store.stage([added.hash], sharing)
        assert before - free(sharing) < SIZE // 10
        assert copy.read_bytes() == data and not copy.samefile(source)
