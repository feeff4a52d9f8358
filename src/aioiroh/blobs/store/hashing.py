"""Hashing many files: small ones many at a time, several jobs on their way to the disk thread."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aioiroh.aio import fan_out

from .interface import OnHashed
from .worker import DiskWorker, HashedFile

__all__ = ["AT_ONCE", "FoundFile", "hash_files", "look_at"]

SMALL_FILE: Final = 1024 * 1024
"""Files up to this many bytes are hashed many at a time."""
BATCH: Final = 64
"""Small files in one job."""
AT_ONCE: Final = 4
"""Jobs that wait for the disk thread, so that it is never idle."""
PAUSE: Final = 64
"""Files looked at before the loop gets its turn."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to import, its index among all that are, and how it looked before it was read."""

    path: Path
    index: int
    state: os.stat_result

    @property
    def size(self) -> int:
        return self.state.st_size


async def look_at(paths: Sequence[str | os.PathLike[str]], first: int = 0) -> list[FoundFile]:
    """The files at `paths`, numbered from `first` on. Raises OSError."""
    found: list[FoundFile] = []
    for index, path in enumerate(paths, first):
        absolute = Path(path).absolute()
        found.append(FoundFile(absolute, index, absolute.stat()))
        if len(found) % PAUSE == 0:
            await asyncio.sleep(0)
    return found


async def hash_files(
    worker: DiskWorker,
    files: Sequence[FoundFile],
    outboard_path: Callable[[int], Path | None],
    on_hashed: OnHashed | None,
) -> list[HashedFile]:
    """Hashes files; in order. `outboard_path(size)` says where a large file's outboard goes.

    Raises OSError, the first one.
    """
    done: dict[int, HashedFile] = {}

    def finished(at: int, hashed: HashedFile) -> None:
        done[at] = hashed
        if on_hashed is not None:
            on_hashed(files[at].index, hashed.size)

    async def work(job: list[int]) -> None:
        first = files[job[0]]
        if first.size > SMALL_FILE:
            [at] = job
            hashed = await worker.hash_file(
                first.path,
                outboard_path(first.size),
                None if on_hashed is None else lambda bytes: on_hashed(first.index, bytes),
            )
            finished(at, hashed)
        else:
            await worker.hash_files(
                [files[at].path for at in job], lambda number, one: finished(job[number], one)
            )

    await fan_out(AT_ONCE, _jobs(files), work)
    return [done[at] for at in range(len(files))]


def _jobs(files: Sequence[FoundFile]) -> Iterator[list[int]]:
    """Positions of files that are hashed together; every large one for itself."""
    batch: list[int] = []
    for at, file in enumerate(files):
        if file.size > SMALL_FILE:
            yield [at]
            continue
        batch.append(at)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
