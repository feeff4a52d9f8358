"""Which blobs are both in the bucket and here, and which of them are used least."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ...hash import Hash

__all__ = ["Cache"]

IN_USE: Final = 64
"""Blobs used last that stay in any case: somebody may be sending them."""


class Cache:
    """The least recently used first. Counts only; the files are somebody else's."""

    def __init__(self, limit: int) -> None:
        """`limit` in bytes."""
        self._limit = limit
        self._sizes: dict[Hash, int] = {}
        self._bytes = 0

    def add(self, hash: Hash, size: int) -> None:
        self.forget(hash)
        self._sizes[hash] = size
        self._bytes += size

    def use(self, hash: Hash) -> None:
        size = self._sizes.pop(hash, None)
        if size is not None:
            self._sizes[hash] = size

    def forget(self, hash: Hash) -> None:
        self._bytes -= self._sizes.pop(hash, 0)

    def overflow(self) -> Iterator[Hash]:
        """Forgets, and gives, what is over the limit."""
        while self._bytes > self._limit and len(self._sizes) > IN_USE:
            hash = next(iter(self._sizes))
            self.forget(hash)
            yield hash
