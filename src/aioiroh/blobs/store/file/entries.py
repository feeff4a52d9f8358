"""Blobs of a file store that are in use, and those that are about to become part of it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..local import Entry
from .rows import Reference, Row

__all__ = ["FileEntry", "New"]


@dataclass(slots=True)
class New:
    """A complete blob that was imported. `data` and `outboard` are where its files are until then.

    `reference`: the file that was hashed. A blob that the store had before has neither.
    """

    row: Row
    data: Path | None = None
    outboard: Path | None = None
    reference: Reference | None = None

    @property
    def files(self) -> list[Path]:
        return [path for path in (self.data, self.outboard) if path is not None]


@dataclass(slots=True)
class FileEntry(Entry):
    """`reference`: the file somebody else may change. `successor`: the same blob from elsewhere, to
    be taken if the writers leave it incomplete. `record_at`: loop time of the next note.
    """

    reference: Reference | None = None
    successor: New | None = None
    record_at: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether the file that it is read from is the one that was hashed."""
        if self.reference is None:
            return True
        try:
            return self.reference.is_unchanged(os.stat(self.reference.path))
        except OSError:
            return False
