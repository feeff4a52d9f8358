"""Received collections as files below a directory: safe names, nothing half written."""

from __future__ import annotations

import asyncio
import contextlib
import os
import unicodedata
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..collection import MAX_METADATA_SIZE, Collection
from ..errors import ExportConflictError, IncompleteBlobError
from ..hash import Hash
from ..store.sequences import read_hash_seq
from .beneath import Root
from .names import Parts, check_names

if TYPE_CHECKING:
    from ..store.interface import Store

__all__ = ["check_export", "export_collection", "load_collection"]

PAUSE: Final = 32
"""Files placed, or places looked at, before the loop gets its turn."""


async def load_collection(store: Store, hash: Hash) -> Collection:
    """The collection whose hash sequence is `hash`.

    NotFoundError or IncompleteBlobError: it is not all in the store. DecodeError: it is none.
    """
    sequence = await read_hash_seq(store, hash)
    metadata = b""
    if len(sequence):
        metadata = await store.read_bytes(sequence[0], limit=MAX_METADATA_SIZE)
    return Collection.from_parts(sequence, metadata)


async def check_export(
    collection: Collection, directory: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Whether the names of a collection, which need not be here yet, can be put below a directory.

    Raises UnsafeNameError, ExportConflictError or OSError, as `export_collection` would.
    """
    with Root(directory) as root, _private_folder(root.path) as folder:
        await _find_places(root, folder, collection, overwrite)


async def export_collection(
    store: Store,
    collection: Collection,
    directory: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    on_file: Callable[[int, Path], None] | None = None,
) -> list[Path]:
    """Puts the files of a complete collection below an existing directory; gives their paths.

    Before anything is written: UnsafeNameError for names that cannot be files there,
    ExportConflictError for what is in the way, IncompleteBlobError for content that is not all in
    the store. Each file then appears whole, under its own name; links are never followed.
    `overwrite`: replace files and links. `on_file` hears of each file by its index.
    """
    with Root(directory) as root, _private_folder(root.path) as folder:
        places = await _find_places(root, folder, collection, overwrite)
        for (name, hash), status in zip(
            collection, await store.statuses(collection.hashes), strict=True
        ):
            if not status.is_complete:
                raise IncompleteBlobError(f"the content of {name!r} ({hash}) is not complete")
        paths: list[Path] = []
        for index, (parts, hash) in enumerate(zip(places, collection.hashes, strict=True)):
            staged = await store.stage(hash, folder)
            path = root.place(staged, parts, overwrite=overwrite)
            await store.settle(hash, path)
            paths.append(path)
            if on_file is not None:
                on_file(index, path)
            if index % PAUSE == PAUSE - 1:
                await asyncio.sleep(0)
        return paths


async def _find_places(
    root: Root, folder: Path, collection: Collection, overwrite: bool
) -> list[Parts]:
    """The components of each name. UnsafeNameError; ExportConflictError with all that is in the way."""
    places = check_names(collection.names, folded=_folds_names(folder))
    # Most of the time nothing is there below the first component.
    taken = {top for top in {parts[0] for parts in places} if root.kind((top,)) is not None}
    conflicts = []
    for number, parts in enumerate(places):
        if parts[0] not in taken:
            continue
        kind = root.kind(parts)
        if kind is not None and not (
            overwrite and kind != "directory" and not _blocked(root, parts)
        ):
            conflicts.append(str(root.path.joinpath(*parts)))
        if number % PAUSE == PAUSE - 1:
            await asyncio.sleep(0)
    if conflicts:
        raise ExportConflictError(conflicts)
    return places


def _blocked(root: Root, parts: Parts) -> bool:
    """Whether something on the way to `parts` is no directory, so that nothing can be placed."""
    return len(parts) > 1 and root.kind(parts[:-1]) != "directory"


@contextlib.contextmanager
def _private_folder(directory: Path) -> Iterator[Path]:
    """A folder of our own on the file system of `directory`, deleted afterwards."""
    for number in count():
        folder = directory / f".aioiroh-{os.getpid()}-{number}"
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            continue
        break
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                os.unlink(entry.path)
        with contextlib.suppress(OSError):
            folder.rmdir()


def _folds_names(folder: Path) -> bool:
    """Whether the file system takes names for equal that differ in case or normalisation."""
    name = "é-probe"
    probe = folder / name
    probe.touch()
    try:
        return (folder / name.upper()).exists() or (
            folder / unicodedata.normalize("NFD", name)
        ).exists()
    finally:
        probe.unlink()
