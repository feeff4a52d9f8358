"""The commands of `aioiroh blob` and their options. What they do is loaded when one of them runs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from .. import options

if TYPE_CHECKING:
    from ..display import Display
    from ..relays import RelayChoice
    from ..run import Interrupts

__all__ = ["blob"]


@click.group(
    epilog="""\b
Examples:
  aioiroh blob add photos                        copy a folder into the store
  aioiroh blob list                              what there is, by name
  aioiroh blob provide photos                    serve it, and print a ticket
  aioiroh blob export photos -o /tmp             put the files somewhere
  aioiroh blob rm photos                         give it up

The store is at --store, else where AIOIROH_STORE says, else in the folder for data of applications.
One process at a time can use it."""
)
def blob() -> None:
    """A store of verified content that stays: add, name, check, export and serve it.

    Content is a single blob, or a collection of files. Commands take the name of its tag, its hash as
    printed, or a ticket.
    """


def _place(value: Path | None) -> Path:
    from .place import default_store

    return value or default_store()


_store = click.option(
    "--store",
    "folder",
    metavar="DIR",
    envvar="AIOIROH_STORE",
    type=click.Path(file_okay=False, path_type=Path),
    callback=lambda _context, _parameter, value: _place(value),
    help="The folder of the store. [default: $AIOIROH_STORE, or in the user's data]",
)
_verbose = click.option("-v", "--verbose", count=True, help="-vv: also write a log.")


def _common(command: Callable[..., None]) -> Callable[..., None]:
    """The options of all of them, the store's last in the code and first in the help."""
    for option in (_verbose, options.as_json, _store):
        command = option(command)
    return command


def _run(
    work: Callable[[Display, Interrupts], Coroutine[Any, Any, int]], as_json: bool, verbose: int
) -> NoReturn:
    from ..display import choose_display
    from ..run import run

    run(work, choose_display(as_json=as_json, with_log=verbose >= 2), verbose=verbose)


def _names(folder: Path | None, incomplete: str) -> list[str]:
    """The tags that begin so, for completion; none if the store is not to be had."""
    import asyncio

    from .content import shown, tag_name
    from .place import opened

    async def names() -> list[str]:
        async with opened(_place(folder)) as store:
            return [shown(name) for name, _ in store.tags.list(tag_name(incomplete))]

    try:
        return asyncio.run(names())
    except Exception:  # noqa: BLE001 - a person is typing; a failure must not be in the way
        return []


def _complete(context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    return _names(context.params.get("folder"), incomplete)


_what = functools.partial(click.argument, metavar="WHAT", shell_complete=_complete)


@blob.command(
    epilog="""\b
Examples:
  aioiroh blob add photos                        a folder, under the tag "photos"
  aioiroh blob add a.iso --reference             read where it is; it must not change
  pg_dump db | aioiroh blob add - --tag dump     standard input
  aioiroh blob add a.txt b.txt --tag notes       several things as one collection"""
)
@click.argument(
    "paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--copy/--reference",
    "copied",
    default=True,
    help="Keep a copy in the store, or read files where they are. [default: copy]",
)
@click.option(
    "--tag", metavar="NAME", help="The tag to give it. [default: the name of the first PATH]"
)
@click.option("--wrap", is_flag=True, help="Make a collection of a single file, to keep its name.")
@_common
def add(
    paths: tuple[Path, ...],
    copied: bool,
    tag: str | None,
    wrap: bool,
    folder: Path,
    as_json: bool,
    verbose: int,
) -> None:
    """Add files, folders or standard input (-) to the store.

    A single file becomes a blob, everything else a collection. Its hash is written to standard output.
    A tag keeps it from being collected by `gc`.
    """
    from aioiroh.blobs import ImportMode

    from ..stdin import STDIN
    from .adding import AddOptions, add

    if STDIN in paths and (len(paths) > 1 or wrap):
        raise click.UsageError("standard input (-) has no name: add it alone, and without --wrap")
    for path in paths:
        if path != STDIN and not path.exists():
            raise click.BadParameter(f"path '{path}' does not exist", param_hint="PATH")
    mode = ImportMode.COPY if copied else ImportMode.REFERENCE
    wanted = AddOptions(folder, paths, mode, tag, wrap)
    _run(lambda display, _interrupts: add(wanted, display), as_json, verbose)


@blob.command(
    name="list",
    epilog="""\b
Examples:
  aioiroh blob list                              all tags
  aioiroh blob list backup-                      those that begin so
  aioiroh blob list --blobs                      every blob, whatever names it""",
)
@click.argument("prefix", metavar="[PREFIX]", default="", shell_complete=_complete)
@click.option("--blobs", is_flag=True, help="List the blobs instead of the tags.")
@_common
def list_(prefix: str, blobs: bool, folder: Path, as_json: bool, verbose: int) -> None:
    """List what the store has: tag, kind, state, size and hash of each content."""
    from .listing import list_blobs, list_tags

    if blobs and prefix:
        raise click.UsageError("blobs have no names that a PREFIX could choose")

    def work(display: Display, _interrupts: Interrupts) -> Coroutine[Any, Any, int]:
        return list_blobs(folder, display) if blobs else list_tags(folder, prefix, display)

    _run(work, as_json, verbose)


@blob.command(
    epilog="""\b
Examples:
  aioiroh blob show photos
  aioiroh blob show "$(aioiroh blob add notes.txt)\""""
)
@_what("what")
@_common
def show(what: str, folder: Path, as_json: bool, verbose: int) -> None:
    """Show everything about one content, with the files of a collection."""
    from .listing import show

    _run(lambda display, _interrupts: show(folder, what, display), as_json, verbose)


@blob.command(
    epilog="""\b
Examples:
  aioiroh blob export photos                     into this folder
  aioiroh blob export photos -o /tmp --rename    beside what is there
  aioiroh blob export dump -o - | psql db        a single blob to standard output"""
)
@_what("what")
@click.option(
    "-o",
    "--output",
    "directory",
    metavar="DIR",
    default=Path(),
    type=click.Path(path_type=Path),
    help="Put the files into this folder; - is standard output. [default: the current folder]",
)
@options.only
@options.on_conflict
@_common
def export(
    what: str,
    directory: Path,
    only: tuple[str, ...],
    on_conflict: str | None,
    folder: Path,
    as_json: bool,
    verbose: int,
) -> None:
    """Put the files of WHAT into a folder; the store keeps what it has.

    Nothing is written over what is there already, unless that is asked for.
    """
    from aioiroh.blobs import OnConflict

    from .exporting import ExportOptions, export, export_to_stdout

    if directory == Path("-"):
        if as_json or only or on_conflict:
            raise click.UsageError("-o - writes one blob as it is; leave the other options out")
        _run(lambda display, _interrupts: export_to_stdout(folder, what, display), False, verbose)
    conflict = OnConflict(on_conflict or "refuse")
    wanted = ExportOptions(folder, what, directory, conflict, only, verbose)
    _run(lambda display, _interrupts: export(wanted, display), as_json, verbose)


@blob.group()
def tag() -> None:
    """Give content names, which keep it from being collected.

    `aioiroh blob list` shows the tags.
    """


@tag.command(
    name="set",
    epilog="""\b
Examples:
  aioiroh blob tag set photos-2024 photos        another name for the same
  aioiroh blob tag set latest 6af1…              a name for a hash""",
)
@click.argument("name", metavar="NAME")
@_what("what")
@_common
def tag_set(name: str, what: str, folder: Path, as_json: bool, verbose: int) -> None:
    """Give WHAT the tag NAME, in place of what had it."""
    from .naming import set_tag

    _run(lambda display, _interrupts: set_tag(folder, name, what, display), as_json, verbose)


@tag.command(name="rename")
@click.argument("old", metavar="OLD", shell_complete=_complete)
@click.argument("new", metavar="NEW")
@_common
def tag_rename(old: str, new: str, folder: Path, as_json: bool, verbose: int) -> None:
    """Call NEW what is called OLD."""
    from .naming import rename_tag

    _run(lambda display, _interrupts: rename_tag(folder, old, new, display), as_json, verbose)


@tag.command(name="delete")
@click.argument("names", metavar="NAME...", nargs=-1, required=True, shell_complete=_complete)
@_common
def tag_delete(names: tuple[str, ...], folder: Path, as_json: bool, verbose: int) -> None:
    """Take names away. What nothing else names goes with the next `gc`."""
    from .naming import delete_tags

    _run(lambda display, _interrupts: delete_tags(folder, names, display), as_json, verbose)


@blob.command(
    epilog="""\b
Examples:
  aioiroh blob rm photos                         the tag, and what only it named
  aioiroh blob rm 6af1…                          something without a tag"""
)
@_what("whats", metavar="WHAT...", nargs=-1, required=True)
@_common
def rm(whats: tuple[str, ...], folder: Path, as_json: bool, verbose: int) -> None:
    """Remove content: its tag, and at once all blobs that no other tag needs."""
    from .naming import remove

    _run(lambda display, _interrupts: remove(folder, whats, display), as_json, verbose)


@blob.command(
    epilog="""\b
Examples:
  aioiroh blob verify                            everything
  aioiroh blob verify photos --repair            one content, and give up what is bad of it"""
)
@_what("whats", metavar="[WHAT...]", nargs=-1)
@click.option("--repair", is_flag=True, help="Give up what is bad, so that it can be got again.")
@_common
def verify(whats: tuple[str, ...], repair: bool, folder: Path, as_json: bool, verbose: int) -> None:
    """Read everything again and check it against its hash.

    Lists what is damaged, and ends with code 5 if anything is.
    """
    from .upkeep import verify

    _run(
        lambda display, _interrupts: verify(folder, whats, display, repair=repair),
        as_json,
        verbose,
    )


@blob.command(
    epilog="""\b
Examples:
  aioiroh blob gc --dry-run                      list what would go
  aioiroh blob gc"""
)
@click.option("--dry-run", is_flag=True, help="Only list what would be deleted.")
@_common
def gc(dry_run: bool, folder: Path, as_json: bool, verbose: int) -> None:
    """Delete the blobs that no tag names."""
    from .upkeep import collect

    _run(lambda display, _interrupts: collect(folder, display, dry_run=dry_run), as_json, verbose)


@blob.command(
    epilog="""\b
Examples:
  aioiroh blob provide                           the whole store, a ticket for each tag
  aioiroh blob provide --tagged                  the same, and nothing that has no tag
  aioiroh blob provide photos                    this alone

Set IROH_SECRET to a secret key (64 hex digits or base32) to keep the same identity; with --bind the
tickets stay the same, too."""
)
@_what("whats", metavar="[WHAT...]", nargs=-1)
@click.option("--tagged", is_flag=True, help="Serve nothing but what has a tag.")
@options.bind
@options.relay("none")
@_common
def provide(
    whats: tuple[str, ...],
    tagged: bool,
    bind: tuple[str, ...],
    relay: RelayChoice,
    folder: Path,
    as_json: bool,
    verbose: int,
) -> None:
    """Serve the store until Ctrl-C, and print tickets.

    With WHAT only that is served, else everything. Whoever has a ticket can fetch meanwhile, with
    `aioiroh receive` or sendme.
    """
    from .providing import ProvideOptions, provide

    wanted = ProvideOptions(folder, whats, tagged, bind, relay, options.secret())
    _run(lambda display, interrupts: provide(wanted, display, interrupts), as_json, verbose)
