"""Putting files where they are wanted: what is said of it, and what is checked before."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from aioiroh.blobs import ExportPlan, Fate

from . import amounts
from .display import Display
from .failures import Failure

__all__ = ["check_space", "describe", "target", "tell_fates"]

MAX_RENAMED: Final = 10
"""Changed names that are spelled out; if all are to be listed, all of them are."""


@contextlib.contextmanager
def target(directory: Path) -> Iterator[None]:
    """Makes the directory; takes away again what was made if nothing came into it."""
    made: list[Path] = []
    missing = directory.absolute()
    while not missing.exists():
        made.append(missing)
        missing = missing.parent
    directory.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()
        raise


def describe(sizes: Sequence[int]) -> str:
    """`3 files, 1.2 MiB`."""
    return f"{amounts.counted(len(sizes), 'file')}, {amounts.size(sum(sizes))}"


def tell_fates(plan: ExportPlan, sizes: Sequence[int], display: Display, *, every: bool) -> None:
    """What becomes of the files, and of their names (`every`: all that change).

    `sizes`: of the files of the collection, in bytes.
    """
    for fate, said in (
        (Fate.SAME, "There already"),
        (Fate.SKIP, "Left out, since something else is in their place"),
        (Fate.REPLACE, "Replacing what is there"),
    ):
        chosen = [sizes[place.index] for place in plan.places if place.fate is fate]
        if chosen:
            display.note(f"{said}: {describe(chosen)}.")
    renamed = list(plan.renamed.items())
    shown = renamed if every else renamed[:MAX_RENAMED]
    if renamed:
        lines = [f"  {name!r} becomes {other!r}" for name, other in shown]
        if len(shown) < len(renamed):
            lines.append(f"  and {len(renamed) - len(shown):,} more")
        files = amounts.counted(len(renamed), "file gets", "files get")
        why = "the file system cannot hold its own, or it is taken"
        display.note("\n".join((f"{files} another name, where {why}:", *lines)))
    for name, other in renamed:
        display.event("renamed", name=name, to=other)


def check_space(directory: Path, needed: int) -> None:
    """Failure if the file system has not that many bytes free."""
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise Failure(
            f"not enough space in {directory}: {amounts.size(needed)} are needed "
            f"and {amounts.size(free)} are free; free some, or choose another folder with -o"
        )
