"""A store that keeps what it receives in memory."""

from __future__ import annotations

from pathlib import Path

from aioiroh import _native

from ..errors import IncompleteBlobError, NotFoundError
from ..hash import Hash
from .local import Entry, LocalStore, write_file

__all__ = ["MemoryStore"]


class MemoryStore(LocalStore):
    """Blobs in memory, gone with the store. Files that are added are read where they are.

    Use it in `async with`, or call `aclose`.
    """

    def _create(self, hash: Hash, max_size: int) -> Entry:
        return Entry(_native.Blob.memory(bytes(hash), max_size))

    def _outboard_path(self, size: int) -> Path | None:
        return None

    def _completed(self, entry: Entry) -> None:
        """Nothing changes: it stays in memory."""

    def _discard(self, entry: Entry) -> None:
        """Memory goes with the last reference, files belong to somebody else."""

    async def stage(self, hash: Hash, directory: Path) -> Path:
        status = await self.status(hash)
        handle = await self.handle(hash)
        if handle is None:
            raise NotFoundError(f"the store has no blob {hash}; get or add it first")
        if not status.is_complete or status.size is None:
            raise IncompleteBlobError(f"the store has only a part of blob {hash}; get the rest")
        path = directory / f"{hash}.staged"
        await write_file(handle, status.size, path)
        return path

    async def settle(self, hash: Hash, path: Path) -> None:
        """The copy stays what it is; the blob is still read from memory."""
