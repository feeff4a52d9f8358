"""What the database says of a blob."""

from __future__ import annotations

import itertools
import os
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

__all__ = [
    "INLINE",
    "INLINE_OUTBOARD",
    "Kind",
    "Reference",
    "Row",
    "pack_present",
    "unpack_present",
]

INLINE: Final = 16 * 1024
"""Complete blobs up to this many bytes are in the database: one chunk group, without an outboard."""
INLINE_OUTBOARD: Final = 16 * 1024
"""Outboards of complete blobs up to this many bytes (of 4 MiB) are in the database, too."""
MOST_BOUNDARIES: Final = 65536
"""What lies behind so many boundaries of a bitfield is not written down, but found again."""


class Kind(IntEnum):
    """Where the data of a blob are. The numbers are those in the database."""

    PARTIAL = 0
    """Some of them in a file of the store."""
    INLINE = 1
    """In the database."""
    FILE = 2
    """In a file of the store."""
    REFERENCE = 3
    """In somebody else's files; see the table `files`."""


TICK: Final = 20_000_000
"""Nanoseconds within which two changes of a file may get the same time."""
NEVER: Final = -1


class Reference:
    """A file that a blob is read from, and how it looked when it was hashed."""

    __slots__ = ("inode", "mtime_ns", "path", "size")

    def __init__(self, path: bytes, size: int, mtime_ns: int, inode: int) -> None:
        self.path = path
        self.size = size
        self.mtime_ns = mtime_ns
        self.inode = inode

    @classmethod
    def of(cls, path: bytes, state: os.stat_result, now_ns: int | None = None) -> Reference:
        """`state`: from before it was read; `now_ns`: what its file system called now then.

        A file that was changed just before could have been changed again within the same tick, and
        would look the same: it is never taken for unchanged.
        """
        fresh = now_ns is not None and abs(now_ns - state.st_mtime_ns) < TICK
        return cls(path, state.st_size, NEVER if fresh else state.st_mtime_ns, state.st_ino)

    def is_unchanged(self, state: os.stat_result) -> bool:
        return (self.size, self.mtime_ns, self.inode) == (
            state.st_size,
            state.st_mtime_ns,
            state.st_ino,
        )


@dataclass(slots=True)
class Row:
    """One blob.

    `size` in bytes; None if nobody has claimed one. `written`: the boot of the system under which the
    data were written, until they are known to be on the disk, then None. `writing`: there may be more
    present than `present` says. `outboard`: None if it is in a file.
    """

    hash: bytes
    kind: Kind
    size: int | None
    written: bytes | None = None
    writing: bool = False
    data: bytes | None = None
    outboard: bytes | None = None
    present: tuple[int, ...] = ()
    references: Sequence[Reference] | None = None
    """The files that it can be read from, if they were looked up."""


def pack_present(boundaries: tuple[int, ...]) -> bytes:
    """Boundaries of chunk ranges as 64-bit numbers, little endian."""
    packed = array("Q", boundaries[:MOST_BOUNDARIES])
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack_present(data: bytes) -> tuple[int, ...]:
    """Those of a damaged row count for nothing."""
    if len(data) % 8:
        return ()
    unpacked = array("Q", data)
    if sys.byteorder == "big":
        unpacked.byteswap()
    boundaries = tuple(unpacked)
    ascending = all(low < high for low, high in itertools.pairwise(boundaries))
    return boundaries if ascending and len(boundaries) % 2 == 0 else ()
