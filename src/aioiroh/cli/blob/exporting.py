"""`aioiroh blob export`: files out of the store."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aioiroh.blobs import (
    BlobFormat,
    Collection,
    Fate,
    IncompleteBlobError,
    OnConflict,
    Place,
    Store,
    export_files,
    load_collection,
    plan_export,
)
from aioiroh.blobs.folders.selecting import select

from .. import amounts
from ..display import Display
from ..failures import ExitCode
from ..placing import check_space, describe, target, tell_fates
from .content import Named, find, require, shown
from .place import opened

__all__ = ["ExportOptions", "export", "export_to_stdout"]

PIECE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What was typed."""

    folder: Path
    what: str
    directory: Path
    on_conflict: OnConflict = OnConflict.REFUSE
    only: tuple[str, ...] = ()
    verbose: int = 0


async def export(options: ExportOptions, display: Display) -> int:
    """Puts the files into the directory; the store keeps what it has."""
    async with opened(options.folder) as store:
        named = find(store, options.what)
        await require(store, named)
        collection = await _collection(store, named)
        sizes = [status.size or 0 for status in await store.statuses(collection.hashes)]
        chosen = select(collection.names, options.only) if options.only else range(len(collection))
        with target(options.directory):
            with display.bar("comparing with what is there") as bar:
                plan = await plan_export(
                    store,
                    collection,
                    sizes,
                    options.directory,
                    indexes=chosen,
                    on_conflict=options.on_conflict,
                    on_compared=bar.update,
                )
            tell_fates(plan, sizes, display, every=options.verbose > 0)
            missing = [sizes[place.index] for place in plan.missing]
            check_space(options.directory, sum(missing))
            with display.bar("writing", "progress") as bar:
                total, count = sum(missing), 0

                def placed(place: Place, path: Path) -> None:
                    nonlocal count
                    count += 1
                    name, size = collection.names[place.index], sizes[place.index]
                    display.event("file", name=name, path=str(path), bytes=size)

                def copied(bytes: int) -> None:
                    bar.update(bytes, total, files=count)

                await export_files(store, plan, keep=True, on_file=placed, on_copied=copied)
                copied(total)
        if missing:
            display.note(f"Exported {describe(missing)}.")
        there = [place for place in plan.places if place.fate is not Fate.SKIP]
        for top in dict.fromkeys(place.parts[0] for place in there):
            display.result(str(options.directory / top))
        display.event("done", files=len(missing), bytes=sum(missing))
    return ExitCode.OK


async def _collection(store: Store, named: Named) -> Collection:
    """The files; a blob is one, under its tag if it has one that can be a name."""
    if named.content.format is BlobFormat.HASH_SEQ:
        return await load_collection(store, named.content.hash)
    name = str(named.content.hash)
    if named.tag is not None:
        tag = shown(named.tag)
        # What cannot be the name of one file here is not to be one.
        name = name if "/" in tag or not tag.isprintable() or tag in (".", "..") else tag
    return Collection([(name, named.content.hash)])


async def export_to_stdout(folder: Path, what: str, display: Display) -> int:
    """Writes a single blob to standard output."""
    async with opened(folder) as store:
        named = find(store, what)
        await require(store, named)
        if named.content.format is not BlobFormat.RAW:
            raise ValueError(f"{named} is more than one file; export it into a folder with -o")
        status = await store.status(named.content.hash)
        if not status.is_complete:
            raise IncompleteBlobError(f"the store has only a part of {named}; get the rest")
        async with store.reader(named.content.hash) as reader:
            with display.bar("writing", None) as bar:
                while data := await reader.read(PIECE):
                    sys.stdout.buffer.write(data)
                    bar.update(reader.tell(), reader.size)
        sys.stdout.buffer.flush()
        display.note(f"Wrote {amounts.size(status.size or 0)}.")
    return ExitCode.OK
