"""Where things are in the folder of a file store, and whose folder it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from aioiroh.errors import BusyError

from ...errors import StoreFormatError

try:
    import fcntl
except ImportError:  # Windows: an open file cannot be deleted there, which is lock enough
    fcntl = None  # type: ignore[assignment]

__all__ = ["APPLICATION", "VERSION", "Layout"]

DATABASE: Final = "blobs.sqlite"
LOCK: Final = "lock"
DATA: Final = "data"
LOOSE: Final = "loose"
TEMP: Final = "temp"
VERSION: Final = 1
"""Of the layout, as a number in the database; see docs/store.md."""
APPLICATION: Final = 0x61696F42
"""Marks the database as one of ours: "aioB"."""


class Layout:
    """The paths of one store, and the lock that keeps other processes out.

    Data are in 256 folders by the first byte of the hash, so that no folder gets too long; or, if the
    store was made for transit, in one: folders take longer to make, and to delete, than files.
    """

    def __init__(self, folder: Path, lock: int, loose: bool) -> None:
        """Not for direct use; see `take`."""
        self.folder = folder
        self._lock = lock
        self._number = 0
        self._loose = loose
        self._data = f"{folder / (LOOSE if loose else DATA)}{os.sep}"
        self._shards: set[int] = set()

    @classmethod
    def take(cls, folder: Path, *, transit: bool = False) -> Layout:
        """Makes the folder if need be, and locks it. `transit`: what a new one is for.

        BusyError: another store has it. StoreFormatError: it holds something else, and stays as it
        is. OSError: it cannot be made or written.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check(folder)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        lock = os.open(folder / LOCK, flags, 0o600)
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise BusyError(
                f"the store in {folder} is in use by another process; end that one, or choose "
                "another folder"
            ) from None
        except BaseException:
            os.close(lock)
            raise
        return cls(
            folder, lock, (folder / LOOSE).exists() or (transit and not (folder / DATA).exists())
        )

    def release(self) -> None:
        """Lets others have the folder; may be called again."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def now_ns(self) -> int:
        """What the system would call the time of a change now, in nanoseconds. Raises OSError."""
        os.utime(self._lock)
        return os.fstat(self._lock).st_mtime_ns

    @property
    def database(self) -> Path:
        return self.folder / DATABASE

    def data(self, hash: bytes) -> Path:
        """The file for the data of a blob, if they are in one."""
        return Path(self.data_name(hash))

    def data_name(self, hash: bytes) -> str:
        """`data` as a string: paths cost more than what is asked of them."""
        return f"{self._stem(hash)}.data"

    def outboard(self, hash: bytes) -> Path:
        """The file for the outboard of a blob, if it is in one."""
        return Path(f"{self._stem(hash)}.outboard")

    def files(self, hash: bytes) -> tuple[Path, Path]:
        """Both."""
        return self.data(hash), self.outboard(hash)

    def _stem(self, hash: bytes) -> str:
        text = hash.hex()
        if self._loose:
            return f"{self._data}{text}"
        folder = f"{self._data}{text[:2]}"
        if hash[0] not in self._shards:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            self._shards.add(hash[0])
        return f"{folder}{os.sep}{text}"

    def shards(self) -> list[Path]:
        """The folders that have data."""
        return [Path(self._data)] if self._loose else sorted(Path(self._data).iterdir())

    def temp(self) -> Path:
        """A new name for a file that is not yet, or no more, part of the store."""
        return self.folder / TEMP / str(self.number())

    def number(self) -> int:
        """A number that was not used for a name before."""
        self._number += 1
        return self._number

    def prepare(self) -> None:
        """Makes the folders, and deletes what a process that died had not finished."""
        for path in (Path(self._data), self.folder / TEMP):
            path.mkdir(mode=0o700, exist_ok=True)
        for name in os.listdir(self.folder / TEMP):
            (self.folder / TEMP / name).unlink()

    def destroy(self) -> None:
        """Deletes what is the store's, and the folder if nothing else is in it."""
        for name in (DATA, LOOSE, TEMP):
            for where, _, files in os.walk(self.folder / name, topdown=False):
                for file in files:
                    os.unlink(os.path.join(where, file))
                os.rmdir(where)
        for name in (f"{DATABASE}-wal", f"{DATABASE}-shm", DATABASE, LOCK):
            (self.folder / name).unlink(missing_ok=True)
        if not os.listdir(self.folder):
            self.folder.rmdir()


def _check(folder: Path) -> None:
    """StoreFormatError unless there is a store of a version that we know, or nothing."""
    names = os.listdir(folder)
    if DATABASE not in names:
        if set(names) - {LOCK}:
            raise StoreFormatError(f"{folder} is neither empty nor a store; choose another folder")
        return
    with (folder / DATABASE).open("rb") as file:
        head = file.read(100)
    if not head and not {DATA, LOOSE} & set(names):
        return  # a process died while it made the store
    # The file format of SQLite: the user's version at 60, the application's number at 68.
    if not head.startswith(b"SQLite format 3") or head[68:72] != APPLICATION.to_bytes(4, "big"):
        raise StoreFormatError(f"{folder / DATABASE} is not of a store; choose another folder")
    version = int.from_bytes(head[60:64], "big")
    if not 1 <= version <= VERSION:
        raise StoreFormatError(
            f"the store in {folder} has layout version {version}, and this program knows only up to "
            f"{VERSION}; use a newer program"
        )
