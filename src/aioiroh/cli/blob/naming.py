"""`aioiroh blob tag` and `rm`: names, and what is no longer wanted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aioiroh.blobs import FileStore, HashAndFormat

from .. import amounts
from ..display import Display
from ..failures import ExitCode, Failure
from .content import find, hashes_of, require, shown, tag_name
from .place import opened

__all__ = ["delete_tags", "remove", "rename_tag", "set_tag"]


async def set_tag(folder: Path, name: str, what: str, display: Display) -> int:
    """Gives content a name."""
    async with opened(folder) as store:
        named = find(store, what)
        await require(store, named)
        before = store.tags.get(tag_name(name))
        store.tags.set(tag_name(name), named.content)
        if before not in (None, named.content):
            display.note(f"It named {before} before.")
        display.event("tagged", name=name, hash=str(named.content.hash))
    return ExitCode.OK


async def rename_tag(folder: Path, old: str, new: str, display: Display) -> int:
    """Gives a name up for another."""
    async with opened(folder) as store:
        if store.tags.get(tag_name(new)) is not None:
            raise Failure(
                f"something has the name {new!r} already; delete that tag first, or take another",
                ExitCode.CONFLICT,
            )
        _known(store, [old])
        store.tags.rename(tag_name(old), tag_name(new))
        display.event("renamed", name=old, to=new)
    return ExitCode.OK


async def delete_tags(folder: Path, names: Sequence[str], display: Display) -> int:
    """Takes names away; the content stays until the next gc."""
    async with opened(folder) as store:
        _known(store, names)
        for name in names:
            store.tags.delete(tag_name(name))
            display.event("untagged", name=name)
        display.note(f"Deleted {amounts.counted(len(names), 'tag')}.")
    return ExitCode.OK


def _known(store: FileStore, names: Sequence[str]) -> None:
    for name in names:
        if store.tags.get(tag_name(name)) is None:
            raise Failure(
                f"there is no tag {name!r}; `aioiroh blob list` shows those there are",
                ExitCode.USAGE,
            )


async def remove(folder: Path, whats: Sequence[str], display: Display) -> int:
    """Takes names away, and at once those blobs that nothing else names."""
    async with opened(folder) as store:
        targets = [find(store, what) for what in whats]
        for named in targets:
            if named.tag is None:
                await require(store, named)
        gone = {named.tag for named in targets}
        kept: dict[HashAndFormat, str] = {
            content: shown(name) for name, content in store.tags.list() if name not in gone
        }
        for named in targets:
            if named.tag is None and named.content in kept:
                raise Failure(
                    f"{named} has the tag {kept[named.content]!r}; remove it by that name",
                    ExitCode.CONFLICT,
                )
        still_named = set(await hashes_of(store, kept))
        for named in targets:
            if named.tag is None and named.content.hash in still_named:
                raise Failure(
                    f"{named} is a part of what has a tag; remove that by its name",
                    ExitCode.CONFLICT,
                )
        unwanted = [
            hash
            for hash in await hashes_of(store, [named.content for named in targets])
            if hash not in still_named
        ]
        sizes = [
            status.present.byte_count(status.size)
            for status in await store.statuses(unwanted)
            if status.size
        ]
        for tag in gone:
            if tag is not None:
                store.tags.delete(tag)
        count = await store.delete(unwanted)
        display.note(f"Removed {amounts.counted(count, 'blob')}, {amounts.size(sum(sizes))}.")
        display.event("removed", blobs=count, bytes=sum(sizes))
    return ExitCode.OK
