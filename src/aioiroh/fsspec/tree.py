"""The folders that the names of a collection make. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aioiroh.blobs import Collection, Hash, UnsafeNameError
from aioiroh.blobs.errors import UnsafeName
from aioiroh.blobs.folders.names import problem

__all__ = ["File", "Tree"]


@dataclass(frozen=True, slots=True)
class File:
    """A blob with its size in bytes."""

    hash: Hash
    size: int

    def info(self, name: str) -> dict[str, Any]:
        """As fsspec describes a file; `name` is its whole path."""
        return {"name": name, "size": self.size, "type": "file", "hash": str(self.hash)}


class Tree:
    """Files by their path, and what lies in each folder. The root is the folder ""."""

    def __init__(self, collection: Collection, sizes: Sequence[int]) -> None:
        """`sizes`: of the blobs of the collection, in order, in bytes.

        UnsafeNameError: a name is no path below a folder, or two names exclude each other. Whoever
        fetches the files may use the names on disk.
        """
        self._files: dict[str, File] = {}
        self._folders: dict[str, dict[str, File | None]] = {"": {}}
        bad = []
        for (name, hash), size in zip(collection, sizes, strict=True):
            trouble = problem(name) or self._add(name, File(hash, size))
            if trouble:
                bad.append(UnsafeName(name, trouble))
        if bad:
            raise UnsafeNameError(bad)

    def _add(self, name: str, file: File) -> str | None:
        if name in self._files or name in self._folders:
            return "another entry has the same path"
        parts = name.split("/")
        folder = ""
        for part in parts[:-1]:
            if folder in self._files:
                return "another entry is a file where this one needs a folder"
            self._folders[folder].setdefault(part, None)
            folder = f"{folder}/{part}" if folder else part
            self._folders.setdefault(folder, {})
        if folder in self._files:
            return "another entry is a file where this one needs a folder"
        self._folders[folder][parts[-1]] = file
        self._files[name] = file
        return None

    def file(self, path: str) -> File | None:
        return self._files.get(path)

    def folder(self, path: str) -> list[tuple[str, File | None]] | None:
        """Names in a folder, with the file or None for a folder; None: there is no such folder."""
        entries = self._folders.get(path)
        return None if entries is None else list(entries.items())
