"""`aioiroh clean`: what interrupted receives have left, and what `send` remembers."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import amounts, remembered, workfolder
from .display import Display, visible
from .failures import ExitCode

__all__ = ["Finds", "clean", "find", "show"]


@dataclass(frozen=True, slots=True)
class Finds:
    """What there is to remove."""

    received: Sequence[workfolder.Leftover]
    sent: Sequence[remembered.Remembered]

    def __bool__(self) -> bool:
        return bool(self.received or self.sent)


def find(directories: Sequence[Path], *, sent: bool) -> Finds:
    """Looks into the directories, and if `sent` at what `send` remembers. Raises OSError."""
    received = [left for directory in directories for left in workfolder.leftovers(directory)]
    return Finds(received, remembered.everything() if sent else [])


def show(finds: Finds, display: Display) -> None:
    """Lists it, with what to do to go on."""
    for left in finds.received:
        line = f"{amounts.size(left.size):>11}  {left.folder}"
        if left.ticket is not None:
            command = ["aioiroh", "receive", str(left.ticket), "-o", str(left.folder.parent)]
            line += f"\n             goes on with: {shlex.join(command)}"
        display.result(visible(line))
        ticket = None if left.ticket is None else str(left.ticket)
        display.event("left", folder=str(left.folder), bytes=left.size, ticket=ticket)
    for known in finds.sent:
        paths = ", ".join(known.paths) or "unknown paths"
        display.result(visible(f"{amounts.size(known.size):>11}  the ticket of {paths}"))
        display.event("remembered", paths=list(known.paths), bytes=known.size)
    if not finds:
        display.note("There is nothing to clean.")


async def clean(finds: Finds, display: Display) -> int:
    """Removes it; what is in use stays."""
    removed = 0
    for left in finds.received:
        if await workfolder.remove(left):
            removed += left.size
        else:
            display.note(f"{left.folder} is in use, and stays.")
    for known in finds.sent:
        if remembered.forget(known):
            removed += known.size
        else:
            display.note(f"{', '.join(known.paths)}: is being shared, and stays.")
    display.note(f"{amounts.size(removed)} removed.")
    display.event("cleaned", bytes=removed)
    return ExitCode.OK
