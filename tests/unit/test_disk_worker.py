"""The disk worker as asyncio sees it."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from aioiroh._native import Blob
from aioiroh.blobs.hash import Hash
from aioiroh.blobs.ranges import ChunkRanges
from aioiroh.blobs.store.worker import DiskWorker

DATA = (bytes(range(251)) * 60_000)[:15_000_000]


@contextlib.asynccontextmanager
async def acquired() -> AsyncIterator[DiskWorker]:
    worker = DiskWorker.acquire()
    try:
        yield worker
    finally:
        worker.release()


async def test_an_import(tmp_path: Path) -> None:
    async with acquired() as worker:
        source, target, outboard = tmp_path / "from", tmp_path / "to", tmp_path / "outboard"
        source.write_bytes(DATA)
        steps: list[int] = []
        hashed = await worker.import_file(source, target, outboard, steps.append)
        assert (hashed.hash, hashed.size, hashed.outboard) == (Hash.of(DATA), len(DATA), outboard)
        assert target.read_bytes() == DATA
        assert steps == sorted(steps) and steps[-1] <= len(DATA)
        assert (await worker.import_file(source, target)).outboard == outboard.read_bytes()
        with pytest.raises(FileNotFoundError) as caught:
            await worker.import_file(source, tmp_path / "nowhere" / "to")
        assert caught.value.filename == str(tmp_path / "nowhere" / "to")


async def test_a_validation(tmp_path: Path) -> None:
    async with acquired() as worker:
        path = tmp_path / "data"
        path.write_bytes(DATA[:40_000] + b"?" + DATA[40_001:])
        outboard = Blob.from_bytes(DATA).outboard()
        (tmp_path / "outboard").write_bytes(outboard)
        steps: list[int] = []
        hash = Hash.of(DATA)
        good = ChunkRanges((0, 32, 48, 14_649))
        found = await worker.validate(hash, path, outboard, len(DATA), on_progress=steps.append)
        assert found == good
        assert steps == sorted(steps) and steps[-1] <= len(DATA)
        assert await worker.validate(hash, path, tmp_path / "outboard", len(DATA)) == good
        assert (
            await worker.validate(hash, path, outboard, len(DATA), ChunkRanges.all())
        ).boundaries == (
            0,
            14_649,
        )
        with pytest.raises(OSError) as caught:
            await worker.validate(hash, tmp_path / "nowhere", outboard, len(DATA))
        assert (caught.value.errno, caught.value.filename) == (
            errno.ENOENT,
            str(tmp_path / "nowhere"),
        )
