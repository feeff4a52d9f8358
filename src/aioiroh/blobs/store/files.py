"""A store that reads shared files where they are and receives into a private folder.

The folder holds what is on its way and belongs to one process; it does not outlive the store. Put
it on the file system where the content is to end up: then exporting is a rename.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Final, Self

from aioiroh import _native
from aioiroh.errors import BusyError

from ..errors import IncompleteBlobError, NotFoundError
from ..hash import Hash
from ..ranges import GROUP_SIZE
from .local import Entry, LocalStore, write_file

try:
    import fcntl
except ImportError:  # Windows: an open file cannot be deleted there, which is lock enough
    fcntl = None  # type: ignore[assignment]

__all__ = ["FileStore"]

IN_MEMORY: Final = 16 * 1024 * 1024
"""Imported files up to this many bytes have their outboard (1/256 of that) in memory."""
LOCK: Final = "lock"

_OURS = re.compile(r"([0-9a-f]{64}\.(data|outboard|[0-9]+\.staged)|import-[0-9]+\.outboard|lock)")


class FileStore(LocalStore):
    """See the module. Make it with `await FileStore.open(path)`; use it in `async with`."""

    def __init__(self, folder: Path, lock: int) -> None:
        """Not for direct use; see `open`."""
        super().__init__()
        self.folder = folder
        self._lock = lock
        self._number = 0

    @classmethod
    async def open(cls, path: str | os.PathLike[str]) -> Self:
        """The store with its private folder at `path`, which is made if need be.

        Leftovers of a process that died are removed. BusyError: another store uses the folder.
        """
        folder = Path(path).absolute()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        lock = os.open(folder / LOCK, flags, 0o600)
        try:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _clear(folder, keep=LOCK)
        except BlockingIOError:
            os.close(lock)
            raise BusyError(f"{folder} is in use by another store; take another folder") from None
        except BaseException:
            os.close(lock)
            raise
        return cls(folder, lock)

    # --- where data go ----------------------------------------------------------------------------

    def _create(self, hash: Hash, max_size: int) -> Entry:
        path = self.folder / f"{hash}.data"
        outboard = self.folder / f"{hash}.outboard"
        handle = _native.Blob.create(bytes(hash), str(path), str(outboard), max_size=max_size)
        return Entry(handle, path, outboard=outboard, owned=True)

    def _outboard_path(self, size: int) -> Path | None:
        if size <= IN_MEMORY:
            return None
        self._number += 1
        return self.folder / f"import-{self._number}.outboard"

    def _completed(self, entry: Entry) -> None:
        outboard = entry.outboard
        # Blobs of one chunk group have no hash pairs, and so no file for them.
        if isinstance(outboard, Path) and entry.size <= GROUP_SIZE:
            entry.outboard = b""
        if entry.path is not None:
            entry.handle = None

    def _discard(self, entry: Entry) -> None:
        if entry.owned and entry.path is not None:
            entry.path.unlink(missing_ok=True)
        if isinstance(entry.outboard, Path):
            entry.outboard.unlink(missing_ok=True)

    # --- where data leave -------------------------------------------------------------------------

    async def stage(self, hash: Hash, directory: Path) -> Path:
        status = await self.status(hash)
        if not status.is_complete or status.size is None:
            if hash not in self._entries:
                raise NotFoundError(f"the store has no blob {hash}; get or add it first")
            raise IncompleteBlobError(f"the store has only a part of blob {hash}; get the rest")
        entry = self._entries.get(hash)
        path = None if entry is None else entry.path
        if entry is not None and path is not None and entry.owned and _same_device(path, directory):
            return path
        self._number += 1
        target = directory / f"{hash}.{self._number}.staged"
        if path is not None:
            await self.worker.copy_file(path, target)
        else:
            handle = await self.handle(hash)
            assert handle is not None
            await write_file(handle, status.size, target)
        return target

    async def settle(self, hash: Hash, path: Path) -> None:
        entry = self._entries.get(hash)
        if entry is not None and entry.owned and not (entry.path and entry.path.exists()):
            entry.path = path.absolute()
            entry.owned = False

    async def aclose(self) -> None:
        """Deletes the folder and what is in it; content that was exported stays."""
        await super().aclose()
        if self._lock < 0:
            return
        with contextlib.suppress(OSError):
            _clear(self.folder)
            self.folder.rmdir()
        os.close(self._lock)
        self._lock = -1


def _clear(folder: Path, keep: str | None = None) -> None:
    """Deletes the store's files in its folder, and no others."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if _OURS.fullmatch(entry.name) and entry.name != keep:
                os.unlink(entry.path)


def _same_device(file: Path, directory: Path) -> bool:
    return file.stat().st_dev == directory.stat().st_dev
