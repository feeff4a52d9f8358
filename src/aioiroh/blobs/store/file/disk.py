"""What the file store itself does to its folder: the layer that a test records and cuts short.

Native code writes data and outboards (see `Worker.journal`), SQLite the database; all else is here.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from aioiroh.net import boot_id

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Disk"]


class Disk:
    """Files by path. Everything raises OSError."""

    def boot(self) -> bytes:
        """Which start of the system this is; empty if the system does not say."""
        return boot_id()

    def write(self, path: Path, data: Buffer, *, append: bool = False) -> None:
        """Makes a file, in place of what was there, or adds to it."""
        with path.open("ab" if append else "wb", buffering=0) as file:
            left = memoryview(data)
            try:
                while left:
                    left = left[file.write(left) :]
            except OSError as error:
                # A file that is open does not know its name.
                raise OSError(error.errno, error.strerror, str(path)) from None

    def rename(self, source: Path, target: Path) -> None:
        """Gives a file another name in place of what had that before."""
        os.replace(source, target)

    def link(self, source: Path, target: Path) -> None:
        """Gives a file a second name."""
        os.link(source, target)

    def unlink(self, *paths: Path) -> None:
        """Takes names away, if they are there."""
        for path in paths:
            path.unlink(missing_ok=True)

    def committed(self, database: Path) -> None:
        """A transaction is in the log of the database, and not synced."""

    def checkpointed(self, database: Path) -> None:
        """All transactions before this are on the disk."""
