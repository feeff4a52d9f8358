"""`aioiroh blob list` and `show`: what the store has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aioiroh.blobs import (
    BlobFormat,
    BlobState,
    Collection,
    HashAndFormat,
    Store,
    load_collection,
)
from aioiroh.errors import AioirohError

from .. import amounts
from ..display import Display, visible
from ..failures import ExitCode
from .content import Extent, extent, find, require, shown, tag_name, tags_of
from .place import opened

__all__ = ["list_blobs", "list_tags", "show"]


async def list_tags(folder: Path, prefix: str, display: Display) -> int:
    """The tags that begin with `prefix`, what each names, and how much of it is there."""
    async with opened(folder) as store:
        rows = []
        for name, content in store.tags.list(tag_name(prefix)):
            found = await extent(store, content)
            display.event("tag", name=shown(name), **facts(content, found))
            rows.append((shown(name), kind(content, found), *numbers(found), str(content)))
        _table(rows, display)
    display.note(amounts.counted(len(rows), "tag") + ".")
    return ExitCode.OK


async def list_blobs(folder: Path, display: Display) -> int:
    """Every blob, whatever names it."""
    async with opened(folder) as store:
        count = size = 0
        async for hash, status in store.blobs():
            here = status.present.byte_count(status.size) if status.size else 0
            count += 1
            size += here
            found = Extent(status.state, 1, status.size or 0, here)
            display.event("blob", **facts(HashAndFormat(hash), found))
            display.result(f"{hash}  {found.state.value:8}  {found}")
    display.note(f"{amounts.counted(count, 'blob')}, {amounts.size(size)}.")
    return ExitCode.OK


async def show(folder: Path, what: str, display: Display) -> int:
    """Everything that is known of one content, with the files of a collection."""
    async with opened(folder) as store:
        named = find(store, what)
        await require(store, named)
        content = named.content
        found = await extent(store, content)
        tags = [shown(name) for name in tags_of(store, content)]
        collection = await _collection(store, content)
        display.event("content", tags=tags, **facts(content, found))
        display.result(f"hash   {content}")
        if collection is not None:
            files = amounts.counted(len(collection), "file")
            display.result(f"kind   collection of {files}")
        else:
            display.result(f"kind   {kind(content, found)}")
        display.result(f"size   {amounts.size(found.size)} ({found.size:,} bytes)")
        display.result(f"state  {found.state.value}{_part(found)}")
        display.result(f"tags   {', '.join(map(visible, tags)) or 'none'}")
        if collection is not None:
            await _files(store, collection, display)
    return ExitCode.OK


async def _collection(store: Store, content: HashAndFormat) -> Collection | None:
    """None: it is none, or what lists its files is not here."""
    if content.format is BlobFormat.RAW:
        return None
    try:
        return await load_collection(store, content.hash)
    except (AioirohError, ValueError):
        return None


async def _files(store: Store, collection: Collection, display: Display) -> None:
    statuses = await store.statuses(collection.hashes)
    for name, status, hash in zip(collection.names, statuses, collection.hashes, strict=True):
        size = "unknown" if status.size is None else amounts.size(status.size)
        state = "" if status.is_complete else f"  ({status.state.value})"
        display.event(
            "file", name=name, hash=str(hash), bytes=status.size, state=status.state.value
        )
        display.result(f"  {size:>10}  {visible(name)}{state}")


# --- words --------------------------------------------------------------------------------------


def facts(content: HashAndFormat, found: Extent) -> dict[str, object]:
    """What an event says of content."""
    return {
        "hash": str(content.hash),
        "format": content.format.name.lower(),
        "state": found.state.value,
        "blobs": found.blobs,
        "bytes": found.size,
        "present_bytes": found.present,
    }


def kind(content: HashAndFormat, found: Extent) -> str:
    """`blob`, or `sequence of 12 blobs`."""
    if content.format is BlobFormat.RAW:
        return "blob"
    return f"sequence of {amounts.counted(found.blobs - 1, 'blob')}"


def numbers(found: Extent) -> tuple[str, str]:
    return found.state.value, str(found)


def _part(found: Extent) -> str:
    return f": {found}" if found.state is BlobState.PARTIAL else ""


def _table(rows: Sequence[Sequence[str]], display: Display) -> None:
    """Lines on standard output, their columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        display.result(visible("  ".join(cells).rstrip()))
