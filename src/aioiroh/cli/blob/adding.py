"""`aioiroh blob add`: files, folders and standard input into the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aioiroh.blobs import (
    Added,
    BlobFormat,
    FileStore,
    HashAndFormat,
    ImportMode,
    Store,
)

from .. import amounts
from ..display import Bar, Display
from ..failures import ExitCode
from ..importing import import_all, stdin_on
from ..stdin import STDIN
from .content import shown, tag_name
from .place import opened

__all__ = ["AddOptions", "add"]


@dataclass(frozen=True, slots=True)
class AddOptions:
    """What was typed. `wrap`: a single file becomes a collection, so that its name is kept."""

    folder: Path
    paths: Sequence[Path]
    mode: ImportMode
    tag: str | None = None
    wrap: bool = False


async def add(options: AddOptions, display: Display) -> int:
    """Adds what was named as one content, and gives it a tag."""
    async with opened(options.folder, create=True) as store:
        with display.bar("adding", "import") as bar:
            added, content, count = await _add(store, options, bar, display)
        # From here on the tag keeps it, whatever happens to this process.
        name = _give_name(store, options, content)
        added.tag.release()
        size = amounts.size(added.size)
        what = f"{count}, {size}" if count else size
        display.note(f"Added {what}; its tag is {shown(name)!r}.")
        display.event(
            "added",
            hash=str(content.hash),
            format=content.format.name.lower(),
            bytes=added.size,
            tag=shown(name),
        )
        display.result(str(content))
    return ExitCode.OK


async def _add(
    store: Store, options: AddOptions, bar: Bar, display: Display
) -> tuple[Added, HashAndFormat, str | None]:
    """What was added with the size of all of it, the content, and how many files, in words."""
    if options.paths == (STDIN,):
        added = await store.add_stream(stdin_on(bar))
        return added, HashAndFormat(added.hash), None
    first = options.paths[0]
    if len(options.paths) == 1 and first.is_file() and not options.wrap:
        total = first.stat().st_size

        def hashed(_index: int, size: int) -> None:
            bar.update(size, total)

        added = await store.add_file(first, mode=options.mode, on_hashed=hashed)
        return added, HashAndFormat(added.hash), "1 file"

    imported = await import_all(store, options.paths, bar, display, mode=options.mode)
    root = Added(imported.root.hash, imported.size, imported.root.tag)
    content = HashAndFormat(root.hash, BlobFormat.HASH_SEQ)
    return root, content, amounts.counted(len(imported.files), "file")


def _give_name(store: FileStore, options: AddOptions, content: HashAndFormat) -> bytes:
    """The name that was asked for, which is taken from what had it, or one that is free."""
    if options.tag is not None:
        name = tag_name(options.tag)
    else:
        first = options.paths[0]
        word = content.hash.short() if first == STDIN else first.resolve().name
        name = tag_name(word)
        number = 2
        while store.tags.get(name) not in (None, content):
            name = tag_name(f"{word}-{number}")
            number += 1
    store.tags.set(name, content)
    return name
