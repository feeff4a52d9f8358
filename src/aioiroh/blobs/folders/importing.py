"""Sharing files: a path on the disk becomes a collection in a store, read where it is."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..collection import Collection
from ..hash import BlobFormat
from ..store.interface import ImportMode
from .names import HIDDEN, name_from_parts

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from ..store.interface import Added, Store

__all__ = ["FoundFile", "ImportProgress", "Imported", "find_files", "import_paths"]

PAUSE: Final = 256
"""Directory entries looked at before the loop gets its turn."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to share: where it is, its name in the collection, its size in bytes.

    `path` is None for what came as a stream.
    """

    path: Path | None
    name: str
    size: int


PassedOver = Callable[[Path], None]
"""Hears of what is not shared: links, sockets, devices, and what interrupted receives have left."""


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """Files and bytes hashed, of so many."""

    files: int
    total_files: int
    bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Imported:
    """A collection that is in the store. `root` names it and keeps it alive.

    `files`: what was imported, in the order of the collection. `size` of all files in bytes.
    """

    root: Added
    collection: Collection
    files: tuple[FoundFile, ...]
    size: int


async def find_files(
    paths: Sequence[str | os.PathLike[str]], on_passed_over: PassedOver | None = None
) -> list[FoundFile]:
    """The regular files at and below `paths`, sorted by the bytes of their names.

    A name begins with the last component of its path, links in which are resolved. Below it, links
    and what is no file are passed over, hidden files are not. UnsafeNameError: a name is not
    UTF-8 or contains a backslash. ValueError: a path is neither file nor directory, or two
    files would have the same name. OSError as the system says.
    """
    found: dict[str, FoundFile] = {}
    for path in paths:
        root = Path(os.path.realpath(path))
        if not root.name:
            raise ValueError(f"{root} has no name that files could be shared under")
        mode = os.stat(root).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise ValueError(f"{root} is neither a file nor a directory")
        for count, (file, parts, size) in enumerate(_walk(root, on_passed_over)):
            name = name_from_parts(parts)
            if name in found:
                raise ValueError(f"two files would be called {name!r}; share them separately")
            found[name] = FoundFile(file, name, size)
            if count % PAUSE == PAUSE - 1:
                await asyncio.sleep(0)
    return sorted(found.values(), key=_order)


def _order(file: FoundFile) -> bytes:
    return file.name.encode("utf-8")


def _walk(
    root: Path, on_passed_over: PassedOver | None
) -> Iterator[tuple[Path, tuple[str, ...], int]]:
    """Each regular file: where it is, the components of its name, its size."""
    if root.is_file():
        yield root, (root.name,), root.stat().st_size
        return
    directories: list[tuple[str, tuple[str, ...]]] = [(str(root), (root.name,))]
    while directories:
        where, parts = directories.pop()
        with os.scandir(where) as entries:
            for entry in entries:
                is_directory = entry.is_dir(follow_symlinks=False)
                if is_directory and not entry.name.startswith(HIDDEN):
                    directories.append((entry.path, (*parts, entry.name)))
                elif entry.is_file(follow_symlinks=False):
                    size = entry.stat(follow_symlinks=False).st_size
                    yield Path(entry.path), (*parts, entry.name), size
                elif on_passed_over is not None:
                    on_passed_over(Path(entry.path))


async def import_paths(
    store: Store,
    paths: Sequence[str | os.PathLike[str]],
    *,
    streams: Mapping[str, AsyncIterable[Buffer]] | None = None,
    mode: ImportMode = ImportMode.REFERENCE,
    on_progress: Callable[[ImportProgress], None] | None = None,
    on_passed_over: PassedOver | None = None,
) -> Imported:
    """Makes a collection of the files at and below `paths` and adds everything to the store.

    Files that are referred to must not change as long as they are shared. `streams`: further files
    by name, whose content comes in pieces; they come first, and without progress. Errors as with
    `find_files`.
    """
    files = await find_files(paths, on_passed_over)
    added: dict[str, Added] = {}
    taken = {file.name for file in files}
    for name, pieces in (streams or {}).items():
        name_from_parts(name.split("/"))
        if name in taken:
            raise ValueError(f"two files would be called {name!r}; share them separately")
        added[name] = await store.add_stream(pieces)
    counter = _Counter(files, on_progress)
    blobs = await store.add_files(
        [file.path for file in files if file.path is not None],
        mode=mode,
        on_hashed=counter.advanced,
    )
    added.update(zip((file.name for file in files), blobs, strict=True))
    streamed = [FoundFile(None, name, added[name].size) for name in streams or {}]
    files = sorted((*files, *streamed), key=_order)
    collection = Collection((file.name, added[file.name].hash) for file in files)
    sequence, metadata = collection.to_parts()
    kept = await store.add_bytes(metadata)
    root = await store.add_bytes(bytes(sequence), BlobFormat.HASH_SEQ)
    # From here on the tag of the sequence keeps its children.
    for blob in (*added.values(), kept):
        blob.tag.release()
    size = sum(blob.size for blob in added.values())
    return Imported(root, collection, tuple(files), size)


class _Counter:
    """Progress over all files from that of each."""

    def __init__(
        self, files: Sequence[FoundFile], on_progress: Callable[[ImportProgress], None] | None
    ) -> None:
        self._on_progress = on_progress
        self._done = [0] * len(files)
        self._total = sum(file.size for file in files)
        self._files = 0
        self._bytes = 0

    def advanced(self, index: int, size: int) -> None:
        """`size` bytes of the file at `index` are hashed."""
        self._files += self._done[index] == 0
        self._bytes += size - self._done[index]
        self._done[index] = size
        if self._on_progress is not None:
            self._on_progress(
                ImportProgress(self._files, len(self._done), self._bytes, self._total)
            )
