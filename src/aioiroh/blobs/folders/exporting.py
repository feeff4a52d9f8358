"""Received collections as files below a directory: safe names, nothing half written."""

from __future__ import annotations

import asyncio
import contextlib
import os
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aioiroh.aio import Tasks

from ..collection import MAX_METADATA_SIZE, Collection
from ..errors import ExportConflictError, IncompleteBlobError
from ..hash import Hash
from ..ranges import ChunkRanges
from ..rangeseq import ChunkRangesSeq
from ..store.hashing import hash_files, look_at
from ..store.sequences import read_hash_seq
from .beneath import Kind, Root
from .names import HIDDEN, Demands, Parts, safe_paths
from .placing import Fate, OnConflict, Place, Wanted, plan_places

if TYPE_CHECKING:
    from ..store.interface import OnCopied, Store

__all__ = ["ExportPlan", "export_collection", "export_files", "load_collection", "plan_export"]

PAUSE: Final = 32
"""Places looked at before the loop gets its turn."""
TOGETHER: Final = 16
"""Files that are placed in one turn of the loop."""
STAGED: Final = 64
"""Files that are staged together."""
ENOUGH: Final = 4 * 1024 * 1024
"""Bytes in files that are staged together."""
IN_MEMORY: Final = 16 * 1024 * 1024
"""Files up to this many bytes are compared with what belongs there without a file for their hashes."""
RESERVED: Final = "probe:"
"""A name that Windows and its file systems refuse."""


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """Where files of a collection go below `directory`, in the collection's order."""

    directory: Path
    collection: Collection
    places: tuple[Place, ...]

    @property
    def missing(self) -> list[Place]:
        """The places whose files are still to be put there."""
        return [place for place in self.places if place.fate in (Fate.NEW, Fate.REPLACE)]

    @property
    def renamed(self) -> dict[str, str]:
        """The names that had to be changed, and into what; of files that are there or will be."""
        names = self.collection.names
        return {
            names[place.index]: "/".join(place.parts)
            for place in self.places
            if place.fate is not Fate.SKIP and names[place.index] != "/".join(place.parts)
        }

    def path(self, place: Place) -> Path:
        """Where a file is, or is to be."""
        return self.directory.joinpath(*place.parts)

    def ranges(self) -> ChunkRangesSeq:
        """What `get` has to bring of the collection's hash sequence: names, and what is missing."""
        wanted = {0, 1, *(place.index + 2 for place in self.missing)}
        everything, nothing = ChunkRanges.all(), ChunkRanges.empty()
        edges = ((index, everything) for index in wanted)
        ends = ((index + 1, nothing) for index in wanted if index + 1 not in wanted)
        return ChunkRangesSeq(sorted((*edges, *ends), key=lambda entry: entry[0]))


async def load_collection(store: Store, hash: Hash) -> Collection:
    """The collection whose hash sequence is `hash`.

    NotFoundError or IncompleteBlobError: it is not all in the store. DecodeError: it is none.
    """
    sequence = await read_hash_seq(store, hash)
    metadata = b""
    if len(sequence):
        metadata = await store.read_bytes(sequence[0], limit=MAX_METADATA_SIZE)
    return Collection.from_parts(sequence, metadata)


async def plan_export(
    store: Store,
    collection: Collection,
    sizes: Sequence[int],
    directory: str | os.PathLike[str],
    *,
    indexes: Sequence[int] | None = None,
    on_conflict: OnConflict = OnConflict.REFUSE,
    on_compared: Callable[[int, int], None] | None = None,
    staging: Path | None = None,
) -> ExportPlan:
    """Finds out where files of a collection, which need not be here yet, go below a directory.

    `sizes`: of each file in bytes; `indexes`: of the files that are wanted, by default all. Files of
    the right size that are there are compared by hash (`on_compared` hears of bytes done, of so many)
    and left alone if they are right. Names are changed only where the file system demands it.
    `staging`: an empty private folder on the same file system, by default one that is made meanwhile.

    Writes nothing that stays. UnsafeNameError: names that cannot be paths here.
    ExportConflictError: all that is in the way, as far as `on_conflict` does not deal with it. OSError.
    """
    chosen = range(len(collection)) if indexes is None else indexes
    names = collection.names
    with Root(directory) as root, _private_folder(root.path, staging) as folder:
        demands = _demands(folder)
        paths = safe_paths([names[index] for index in chosen], demands)
        wanted = [
            Wanted(index, parts, sizes[index]) for index, parts in zip(chosen, paths, strict=True)
        ]
        comparison = _Comparison(store, root, folder, collection.hashes)
        await comparison.prepare(wanted, on_compared)
        planning = plan_places(wanted, root.find, on_conflict, demands)
        answer: bool | None = None
        while True:
            try:
                question = planning.send(answer)
            except StopIteration as end:
                plan = end.value
                break
            answer = None
            if question is None:
                await asyncio.sleep(0)
            else:
                answer = await comparison.is_same(question.index, question.parts)
        if plan.conflicts:
            raise ExportConflictError([str(root.path.joinpath(*at)) for at in plan.conflicts])
        return ExportPlan(root.path, collection, plan.places)


async def export_files(
    store: Store,
    plan: ExportPlan,
    *,
    keep: bool = False,
    on_file: Callable[[Place, Path], None] | None = None,
    on_copied: OnCopied | None = None,
    staging: Path | None = None,
) -> list[Path]:
    """Puts the files of a plan in their places; gives the paths of those that were missing.

    The store gives its own files away and reads them in their places from then on; with `keep` the
    places get copies, by reference to the same blocks where the system can.

    IncompleteBlobError, before anything is written: not all of them are in the store. Each file
    appears whole, under its own name; links are never followed. ExportConflictError: something has
    come in the way since the plan was made; what is in its place stays there. OSError.
    `on_copied` hears of the bytes that are ready to be put there. `staging` as with `plan_export`.
    """
    missing = plan.missing
    hashes, names = plan.collection.hashes, plan.collection.names
    statuses = await store.statuses([hashes[place.index] for place in missing])
    sizes: list[int] = []
    for place, status in zip(missing, statuses, strict=True):
        if not status.is_complete:
            raise IncompleteBlobError(f"the content of {names[place.index]!r} is not complete")
        sizes.append(status.size or 0)
    paths: list[Path] = []
    ready = 0
    times = Counter(hashes[place.index] for place in missing)
    with Root(plan.directory) as root, _private_folder(root.path, staging) as folder:

        async def stage(batch: Sequence[Place], size: int) -> list[Path]:
            counted = 0

            def copied(bytes: int) -> None:
                nonlocal counted, ready
                ready += bytes - counted
                counted = bytes
                if on_copied is not None:
                    on_copied(ready)

            wanted = [hashes[place.index] for place in batch]
            # What goes to several places is given away to the last of them.
            times.subtract(wanted)
            more = [times[hash] > 0 for hash in wanted]
            paths = [root.path.joinpath(*place.parts) for place in batch]
            files: dict[bool, Iterator[Path]] = {}
            for again, report in ((True, None), (False, copied)):
                some = [(h, p) for h, p, m in zip(wanted, paths, more, strict=True) if m is again]
                if some:
                    staged = await store.stage(
                        [hash for hash, _ in some],
                        folder,
                        keep=keep or again,
                        places=[path for _, path in some],
                        on_copied=report,
                    )
                    files[again] = iter(staged)
            copied(size)
            return [next(files[again]) for again in more]

        def put(place: Place, file: Path) -> Path:
            try:
                path = root.place(file, place.parts, overwrite=place.fate is Fate.REPLACE)
            except (FileExistsError, NotADirectoryError):
                raise ExportConflictError([str(plan.path(place))]) from None
            paths.append(path)
            if on_file is not None:
                on_file(place, path)
            return path

        async def put_all(batch: Sequence[Place], task: asyncio.Task[list[Path]]) -> None:
            staged = await task
            for start in range(0, len(batch), TOGETHER):
                placed: list[tuple[Hash, Path]] = []
                try:
                    for at in range(start, min(start + TOGETHER, len(batch))):
                        placed.append((hashes[batch[at].index], put(batch[at], staged[at])))
                finally:
                    if not keep:
                        await store.settle(placed)
                await asyncio.sleep(0)

        # Whoever waits for a batch hears of its failure.
        async with Tasks("export", on_error=lambda task, error: None) as tasks:
            ahead: deque[tuple[list[Place], asyncio.Task[list[Path]]]] = deque()
            for batch, size in _batches(missing, sizes):
                ahead.append((batch, tasks.spawn(stage(batch, size))))
                if len(ahead) > 1:
                    await put_all(*ahead.popleft())
            while ahead:
                await put_all(*ahead.popleft())
    return paths


def _batches(places: Sequence[Place], sizes: Sequence[int]) -> Iterator[tuple[list[Place], int]]:
    """Places whose files are staged together, many if they are small, and their bytes."""
    batch: list[Place] = []
    total = 0
    for place, size in zip(places, sizes, strict=True):
        batch.append(place)
        total += size
        if len(batch) >= STAGED or total >= ENOUGH:
            yield batch, total
            batch, total = [], 0
    if batch:
        yield batch, total


async def export_collection(
    store: Store,
    collection: Collection,
    directory: str | os.PathLike[str],
    *,
    on_conflict: OnConflict = OnConflict.REFUSE,
) -> list[Path]:
    """Puts the files of a complete collection below an existing directory; gives their paths.

    Files that are there already count, too; those that are left out (`OnConflict.SKIP`) do not.
    Errors as with `plan_export` and `export_files`, all but OSError before anything is written.
    """
    statuses = await store.statuses(collection.hashes)
    sizes: list[int] = []
    for (name, hash), status in zip(collection, statuses, strict=True):
        if not status.is_complete or status.size is None:
            raise IncompleteBlobError(f"the content of {name!r} ({hash}) is not complete")
        sizes.append(status.size)
    plan = await plan_export(store, collection, sizes, directory, on_conflict=on_conflict)
    await export_files(store, plan)
    return [plan.path(place) for place in plan.places if place.fate is not Fate.SKIP]


class _Comparison:
    """Whether files that are there are the content that belongs there."""

    def __init__(self, store: Store, root: Root, folder: Path, hashes: Sequence[Hash]) -> None:
        self._store = store
        self._root = root
        self._folder = folder
        self._hashes = hashes
        self._found: dict[Parts, Hash] = {}
        self._number = 0

    async def prepare(
        self, wanted: Sequence[Wanted], on_compared: Callable[[int, int], None] | None
    ) -> None:
        """Hashes what has the right size and is at the places themselves, several at once."""
        occupied = {top for top in {file.parts[0] for file in wanted} if self._root.find((top,))}
        there: list[Wanted] = []
        for number, file in enumerate(wanted, 1):
            if file.parts[0] in occupied:
                found = self._root.find(file.parts)
                if (
                    found is not None
                    and found.kind is Kind.FILE
                    and (found.depth, found.size) == (len(file.parts), file.size)
                ):
                    there.append(file)
            if number % PAUSE == 0:
                await asyncio.sleep(0)
        total = sum(file.size for file in there)
        done: dict[int, int] = {}

        def on_hashed(index: int, size: int) -> None:
            done[index] = size
            if on_compared is not None:
                on_compared(sum(done.values()), total)

        await self._hash([file.parts for file in there], on_hashed)

    async def is_same(self, index: int, parts: Parts) -> bool:
        if parts not in self._found:
            await self._hash([parts], None)
        return self._found[parts] == self._hashes[index]

    async def _hash(
        self, places: Sequence[Parts], on_hashed: Callable[[int, int], None] | None
    ) -> None:
        there = await look_at([self._root.path.joinpath(*parts) for parts in places])
        files = await hash_files(self._store.worker, there, self._outboard_path, on_hashed)
        for parts, file in zip(places, files, strict=True):
            self._found[parts] = file.hash
            if isinstance(file.outboard, Path):
                file.outboard.unlink(missing_ok=True)

    def _outboard_path(self, size: int) -> Path | None:
        if size <= IN_MEMORY:
            return None
        self._number += 1
        return self._folder / f"compared-{self._number}.outboard"


@contextlib.contextmanager
def _private_folder(directory: Path, staging: Path | None) -> Iterator[Path]:
    """A folder of our own on the file system of `directory`, emptied afterwards."""
    folder = staging
    for number in count():
        if folder is not None:
            break
        try:
            folder = directory / f"{HIDDEN}{os.getpid()}-{number}"
            folder.mkdir(mode=0o700)
        except FileExistsError:
            folder = None
    assert folder is not None
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                os.unlink(entry.path)
        if staging is None:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _demands(folder: Path) -> Demands:
    """What the file system of a folder of our own cannot hold."""
    name = "é-probe"
    probe = folder / name
    probe.touch()
    folded = (folder / name.upper()).exists() or (
        folder / unicodedata.normalize("NFD", name)
    ).exists()
    try:
        (folder / RESERVED).touch()
        windows = os.name == "nt"  # there a colon makes a stream of a file instead
    except OSError:
        windows = True
    return Demands(folded=folded, windows=windows)
