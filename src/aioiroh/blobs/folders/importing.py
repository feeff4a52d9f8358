"""Sharing files: a path on the disk becomes a collection in a store, read where it is."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..collection import Collection
from ..hash import BlobFormat
from ..store.interface import ImportMode
from .names import HIDDEN, name_from_parts

if TYPE_CHECKING:
    from ..store.interface import Added, Store

__all__ = ["FoundFile", "ImportProgress", "Imported", "find_files", "import_paths"]

PAUSE: Final = 256
"""Directory entries looked at before the loop gets its turn."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to share: where it is, its name in the collection, its size in bytes."""

    path: Path
    name: str
    size: int


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


async def find_files(paths: Sequence[str | os.PathLike[str]]) -> list[FoundFile]:
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
        for count, (file, parts, size) in enumerate(_walk(root)):
            name = name_from_parts(parts)
            if name in found:
                raise ValueError(f"two files would be called {name!r}; share them separately")
            found[name] = FoundFile(file, name, size)
            if count % PAUSE == PAUSE - 1:
                await asyncio.sleep(0)
    return sorted(found.values(), key=lambda file: file.name.encode("utf-8"))


def _walk(root: Path) -> Iterator[tuple[Path, tuple[str, ...], int]]:
    """Each regular file: where it is, the components of its name, its size."""
    if root.is_file():
        yield root, (root.name,), root.stat().st_size
        return
    directories: list[tuple[str, tuple[str, ...]]] = [(str(root), (root.name,))]
    while directories:
        where, parts = directories.pop()
        with os.scandir(where) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name.startswith(HIDDEN):
                        continue  # what an interrupted receive has left
                    directories.append((entry.path, (*parts, entry.name)))
                elif entry.is_file(follow_symlinks=False):
                    size = entry.stat(follow_symlinks=False).st_size
                    yield Path(entry.path), (*parts, entry.name), size


async def import_paths(
    store: Store,
    paths: Sequence[str | os.PathLike[str]],
    *,
    mode: ImportMode = ImportMode.REFERENCE,
    on_progress: Callable[[ImportProgress], None] | None = None,
) -> Imported:
    """Makes a collection of the files at and below `paths` and adds everything to the store.

    Files that are referred to must not change as long as they are shared. Errors as with
    `find_files`.
    """
    files = await find_files(paths)
    total = sum(file.size for file in files)
    done = [0] * len(files)
    seen = 0
    hashed = 0

    def advanced(index: int, size: int) -> None:
        nonlocal seen, hashed
        seen += done[index] == 0
        hashed += size - done[index]
        done[index] = size
        if on_progress is not None:
            on_progress(ImportProgress(seen, len(files), hashed, total))

    added = await store.add_files([file.path for file in files], mode=mode, on_hashed=advanced)
    collection = Collection((file.name, blob.hash) for file, blob in zip(files, added, strict=True))
    sequence, metadata = collection.to_parts()
    kept = await store.add_bytes(metadata)
    root = await store.add_bytes(bytes(sequence), BlobFormat.HASH_SEQ)
    # From here on the tag of the sequence keeps its children.
    for blob in (*added, kept):
        blob.tag.release()
    return Imported(root, collection, tuple(files), sum(blob.size for blob in added))
