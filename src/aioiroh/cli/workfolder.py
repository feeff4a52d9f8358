"""The hidden folder in a target that keeps what arrives until all of it is there.

It stays after an interruption, is found again by the next receive of the same content into the same
folder, and is removed after success.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aioiroh.blobs import BlobTicket, FileStore, StoreFormatError
from aioiroh.blobs.folders.names import HIDDEN
from aioiroh.errors import BusyError, TicketParsingError

from .failures import ExitCode, Failure

__all__ = ["Leftover", "WorkFolder", "leftovers", "remove", "size_on_disk"]

PREFIX: Final = f"{HIDDEN}receive-"
TICKET: Final = "ticket"
MAX_TICKET: Final = 64 * 1024
"""Bytes of a kept ticket that are read."""


class WorkFolder:
    """A hidden folder that is in use."""

    def __init__(self, folder: Path, store: FileStore, is_resumed: bool) -> None:
        """Not for direct use; see `open`."""
        self.folder = folder
        self.store = store
        self.is_resumed = is_resumed
        """Whether an earlier receive has left it."""
        self.staging = folder / "staging"
        """Empty, for files on their way to their places."""

    @classmethod
    async def open(cls, directory: Path, ticket: BlobTicket) -> WorkFolder:
        """The work folder for the content of a ticket in `directory`, new or from an earlier time.

        Failure: it is in use, or not ours. OSError.
        """
        folder = directory / f"{PREFIX}{ticket.hash.short()}"
        is_resumed = folder.exists()
        folder.mkdir(mode=0o700, exist_ok=True)
        if not _is_ours(folder):
            # In a folder that many may write, somebody could wait for what arrives.
            raise Failure(f"{folder} is not ours; remove it, or choose another folder with -o")
        try:
            store = await FileStore.open(folder / "store", transit=True)
        except BusyError:
            raise Failure(
                f"another receive of the same content into {directory} is running; "
                "wait for it, or choose another folder with -o",
                ExitCode.CONFLICT,
            ) from None
        except StoreFormatError as error:
            raise Failure(f"{error}; `aioiroh clean {directory}` removes it") from None
        work = cls(folder, store, is_resumed)
        try:
            shutil.rmtree(work.staging, ignore_errors=True)
            work.staging.mkdir(mode=0o700)
            (folder / TICKET).write_text(f"{ticket}\n", encoding="ascii")
        except BaseException:
            await (work.keep() if is_resumed else work.remove())
            raise
        return work

    async def keep(self) -> None:
        """Leaves it for the next time. Raises OSError."""
        await self.store.aclose()

    async def remove(self) -> None:
        """Deletes it and what is in it."""
        await self.store.destroy()
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Leftover:
    """What an interrupted receive has left: where, the ticket if it can be read, bytes on the disk."""

    folder: Path
    ticket: BlobTicket | None
    size: int


def leftovers(directory: Path) -> list[Leftover]:
    """What interrupted receives have left in a directory. Raises OSError."""
    found = []
    for folder in sorted(directory.iterdir()):
        if folder.name.startswith(PREFIX) and _is_ours(folder):
            found.append(Leftover(folder, _kept_ticket(folder), size_on_disk(folder)))
    return found


async def remove(leftover: Leftover) -> bool:
    """Deletes it; False if it is in use."""
    with contextlib.suppress(StoreFormatError, OSError):
        try:
            store = await FileStore.open(leftover.folder / "store")
        except BusyError:
            return False
        await store.destroy()
    shutil.rmtree(leftover.folder)
    return True


def size_on_disk(folder: Path) -> int:
    """Bytes that a folder takes; gaps in files take none."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # whoever uses it goes on meanwhile
            state = path.lstat()
            total += getattr(state, "st_blocks", -(-state.st_size // 512)) * 512
    return total


def _kept_ticket(folder: Path) -> BlobTicket | None:
    try:
        with (folder / TICKET).open(encoding="ascii") as file:
            return BlobTicket.parse(file.read(MAX_TICKET).strip())
    except (OSError, ValueError, TicketParsingError):
        return None


def _is_ours(folder: Path) -> bool:
    state = folder.lstat()
    return stat.S_ISDIR(state.st_mode) and (
        not hasattr(os, "geteuid") or state.st_uid == os.geteuid()
    )
