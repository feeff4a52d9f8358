"""Hashing many files: small ones many at a time, several jobs on their way to the disk thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from aioiroh.aio import fan_out

from .interface import OnHashed
from .worker import DiskWorker, HashedFile

__all__ = ["hash_paths"]

SMALL_FILE: Final = 1024 * 1024
"""Files up to this many bytes are hashed many at a time."""
BATCH: Final = 64
"""Small files in one job."""
AT_ONCE: Final = 4
"""Jobs that wait for the disk thread, so that it is never idle."""
PAUSE: Final = 256
"""Files looked at before the loop gets its turn."""


async def hash_paths(
    worker: DiskWorker,
    paths: Sequence[Path],
    outboard_path: Callable[[int], Path | None],
    on_hashed: OnHashed | None,
) -> list[HashedFile]:
    """Hashes files; in order. `outboard_path(size)` says where a large file's outboard goes.

    Raises OSError, the first one.
    """
    sizes: list[int] = []
    for path in paths:
        sizes.append(path.stat().st_size)
        if len(sizes) % PAUSE == 0:
            await asyncio.sleep(0)
    done: dict[int, HashedFile] = {}

    def finished(index: int, file: HashedFile) -> None:
        done[index] = file
        if on_hashed is not None:
            on_hashed(index, file.size)

    async def work(job: list[int]) -> None:
        if sizes[job[0]] > SMALL_FILE:
            [index] = job
            target = outboard_path(sizes[index])
            file = await worker.hash_file(
                paths[index],
                target,
                None if on_hashed is None else lambda done: on_hashed(index, done),
            )
            finished(index, file)
        else:
            await worker.hash_files(
                [paths[index] for index in job], lambda at, file: finished(job[at], file)
            )

    await fan_out(AT_ONCE, _jobs(sizes), work)
    return [done[index] for index in range(len(paths))]


def _jobs(sizes: Sequence[int]) -> Iterator[list[int]]:
    """Indexes of files that are hashed together; every large one for itself."""
    batch: list[int] = []
    for index, size in enumerate(sizes):
        if size > SMALL_FILE:
            yield [index]
            continue
        batch.append(index)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
