"""The blobs of a file store that are in use, or were lately, and what the database knows of the others."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from aioiroh import _native

from ...hash import Hash
from .entries import FileEntry
from .loading import Loader
from .metadata import Metadata
from .rows import Kind, Row

__all__ = ["AtHand"]

REMEMBERED: Final = 2048
"""Blobs that stay at hand when nobody uses them."""


class AtHand:
    """Finds blobs, and opens those that are not at hand."""

    def __init__(self, metadata: Metadata, loader: Loader) -> None:
        self._metadata = metadata
        self._loader = loader
        self.entries: OrderedDict[Hash, FileEntry] = OrderedDict()
        """The least recently opened first."""

    def rows(self, hashes: Sequence[Hash], *, data: bool = True) -> dict[bytes, Row]:
        """What the database knows of those that are not at hand."""
        unknown = [bytes(hash) for hash in hashes if hash not in self.entries]
        rows = self._metadata.get(unknown, data=data)
        referring = [hash for hash, row in rows.items() if row.kind is Kind.REFERENCE]
        if referring:
            for hash, files in self._metadata.references(referring).items():
                rows[hash].references = files
        return rows

    def row(self, hash: Hash) -> Row | None:
        """What the database knows of a blob."""
        return self._metadata.get((bytes(hash),), data=False).get(bytes(hash))

    async def find(self, hash: Hash, row: Row | None) -> _native.Blob | None:
        """The handle of a blob; `row` is what the database knows if it is not at hand."""
        if hash == Hash.EMPTY:
            return _native.Blob.from_bytes(b"")
        entry = self.entries.get(hash)
        if entry is not None:
            if entry.writers or entry.is_good:
                return entry.handle
            del self.entries[hash]
            row = None
        # What was at hand a moment ago may not be any more.
        row = row or self.row(hash)
        if row is None:
            return None
        loaded = await self._loader.load(row)
        # Somebody else may have loaded it, or begun to write, meanwhile.
        entry = self.entries.get(hash)
        if entry is None and loaded is not None:
            entry = self.remember(hash, loaded)
        return None if entry is None else entry.handle

    def remember(self, hash: Hash, entry: FileEntry) -> FileEntry:
        """Keeps a blob at hand, and lets go of those that were not used for long."""
        self.entries[hash] = entry
        # Two for one, because those that are written stay.
        for _ in range(min(2, len(self.entries) - REMEMBERED)):
            old, oldest = self.entries.popitem(last=False)
            if oldest.writers:
                self.entries[old] = oldest
        return entry

    def written(self, hash: Hash) -> bool:
        """Whether somebody writes the blob."""
        entry = self.entries.get(hash)
        return entry is not None and bool(entry.writers)
