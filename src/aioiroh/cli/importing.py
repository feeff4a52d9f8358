"""Taking files and standard input into a store, with progress."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from aioiroh.blobs import Imported, ImportMode, ImportProgress, Store, import_paths

from . import amounts
from .display import Bar, Display
from .stdin import read_stdin

__all__ = ["few", "import_all", "stdin_on"]

MAX_NAMED: Final = 5
"""Names that are spelled out."""


def few(names: Iterable[str]) -> str:
    """The first of the names, and how many more there are."""
    shown = list(names)
    more = len(shown) - MAX_NAMED
    return ", ".join(shown[:MAX_NAMED]) + (f" and {more:,} more" if more > 0 else "")


async def import_all(
    store: Store,
    paths: Sequence[Path],
    bar: Bar,
    display: Display,
    *,
    mode: ImportMode = ImportMode.REFERENCE,
    streams: Mapping[str, AsyncIterable[bytes]] | None = None,
) -> Imported:
    """A collection of what is at and below the paths, and of streams. Says what was passed over."""
    passed_over: list[Path] = []

    def advanced(progress: ImportProgress) -> None:
        bar.update(
            progress.bytes,
            progress.total_bytes,
            detail=f"{progress.files:,} of {amounts.counted(progress.total_files, 'file')}",
            files=progress.files,
            total_files=progress.total_files,
        )

    imported = await import_paths(
        store,
        paths,
        mode=mode,
        streams=streams,
        on_progress=advanced,
        on_passed_over=passed_over.append,
    )
    if passed_over:
        what = "symbolic links, sockets, devices and the like"
        display.note(f"Passed over, as {what}: {few(map(str, passed_over))}.")
    return imported


async def stdin_on(bar: Bar) -> AsyncIterator[bytes]:
    """Standard input, counted by the bar."""
    done = 0
    async for piece in read_stdin():
        done += len(piece)
        bar.update(done)
        yield piece
