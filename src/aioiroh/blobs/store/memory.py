"""A store that keeps what it receives in memory."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from aioiroh import _native

from ..hash import BlobFormat, Hash
from .hashing import hash_files, look_at
from .interface import Added, BlobStatus, Finding, ImportMode, OnHashed
from .local import Entry, LocalStore, LocalWriter, handle_status
from .reader import write_file
from .tags import Tags
from .verifying import check_handle

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["MemoryStore"]


class MemoryStore(LocalStore):
    """Blobs in memory, gone with the store. Files that are added are read where they are.

    Use it in `async with`, or call `aclose`.
    """

    def __init__(self) -> None:
        super().__init__(Tags(on_change=self._spare_named))
        self._entries: dict[Hash, Entry] = {}

    # --- looking ----------------------------------------------------------------------------------

    def _find(self, hash: Hash) -> _native.Blob | None:
        if hash == Hash.EMPTY:
            return _native.Blob.from_bytes(b"")
        entry = self._entries.get(hash)
        return None if entry is None else entry.handle

    async def statuses(self, hashes: Sequence[Hash]) -> list[BlobStatus]:
        return [
            BlobStatus.missing() if handle is None else handle_status(handle)
            for handle in map(self._find, hashes)
        ]

    async def handles(self, hashes: Sequence[Hash], *_: object) -> list[_native.Blob | None]:
        return [self._find(hash) for hash in hashes]

    async def blobs(self) -> AsyncIterator[tuple[Hash, BlobStatus]]:
        for hash in tuple(self._entries):
            entry = self._entries.get(hash)
            if entry is not None:
                yield hash, handle_status(entry.handle)

    # --- adding -----------------------------------------------------------------------------------

    async def writers(self, hashes: Sequence[Hash], *, max_size: int) -> list[LocalWriter | None]:
        return [self._writer(hash, max_size) for hash in hashes]

    def _writer(self, hash: Hash, max_size: int) -> LocalWriter | None:
        if hash == Hash.EMPTY:
            return LocalWriter(self, hash, Entry(_native.Blob.memory(bytes(hash), 0)))
        entry = self._entries.get(hash)
        if entry is None:
            entry = self._entries[hash] = Entry(_native.Blob.memory(bytes(hash), max_size))
        elif entry.handle.is_complete:
            return None
        return LocalWriter(self, hash, entry)

    def _progressed(self, hash: Hash, entry: Entry) -> None:
        """Nothing has to be written down."""

    def _left(self, hash: Hash, entry: Entry) -> None:
        """What holds nothing is forgotten, so that a failed get leaves no trace."""
        if self._entries.get(hash) is not entry:
            return
        if entry.handle.is_complete:
            self._arrived(hash)
        elif not entry.handle.present:
            del self._entries[hash]
        self._publish(hash, entry.handle)

    async def put_verified(self, blobs: Sequence[tuple[Hash, bytes]]) -> None:
        for hash, data in blobs:
            self._keep(hash, _native.Blob.inline(bytes(hash), data))
            self._arrived(hash)

    async def add_many(self, blobs: Iterable[Buffer]) -> list[Added]:
        return [self._take(_native.Blob.from_bytes(data)) for data in blobs]

    async def add_stream(
        self, pieces: AsyncIterable[Buffer], format: BlobFormat = BlobFormat.RAW
    ) -> Added:
        whole = bytearray()
        async for piece in pieces:
            whole += piece
        return await self.add_bytes(whole, format)

    async def add_files(
        self,
        paths: Sequence[str | os.PathLike[str]],
        *,
        mode: ImportMode = ImportMode.REFERENCE,
        on_hashed: OnHashed | None = None,
    ) -> list[Added]:
        if mode is ImportMode.COPY:
            return [await self._read(index, path, on_hashed) for index, path in enumerate(paths)]
        found = await look_at(paths)
        hashed = await hash_files(self.worker, found, lambda size: None, on_hashed)
        return [
            self._take(
                _native.Blob.open(bytes(done.hash), str(file.path), done.size, done.outboard)
            )
            for file, done in zip(found, hashed, strict=True)
            if isinstance(done.outboard, bytes)
        ]

    async def _read(
        self, index: int, path: str | os.PathLike[str], on_hashed: OnHashed | None
    ) -> Added:
        data = await self.worker.call(Path(path).read_bytes)
        added = self._take(_native.Blob.from_bytes(data))
        if on_hashed is not None:
            on_hashed(index, len(data))
        return added

    def _take(self, handle: _native.Blob) -> Added:
        hash = Hash(handle.hash)
        added = self._added(hash, handle.size or 0)
        self._keep(hash, handle)
        return added

    def _keep(self, hash: Hash, handle: _native.Blob) -> None:
        old = self._entries.get(hash)
        if hash != Hash.EMPTY and (old is None or not old.handle.is_complete):
            self._entries[hash] = Entry(handle)
            self._publish(hash, handle)

    # --- the rest ---------------------------------------------------------------------------------

    def _drop(self, hashes: Sequence[Hash]) -> int:
        dropped = 0
        for hash in hashes:
            entry = self._entries.get(hash)
            if entry is not None and not entry.writers:
                del self._entries[hash]
                self._publish(hash, None)
                dropped += 1
        return dropped

    async def verify(self, hashes: Iterable[Hash] | None = None) -> AsyncIterator[Finding]:
        for hash in tuple(self._entries) if hashes is None else hashes:
            handle = self._find(hash)
            if handle is not None:
                yield await check_handle(hash, handle)

    async def repair(self, hashes: Iterable[Hash] | None = None) -> AsyncIterator[Finding]:
        async for finding in self.verify(hashes):
            if not finding.is_good:
                self._drop((finding.hash,))
            yield finding

    async def stage(self, hash: Hash, directory: Path, *, keep: bool = False) -> Path:
        handle, size = await self._complete(hash)
        path = directory / f"{hash}.staged"
        await write_file(handle, size, path)
        return path

    async def settle(self, hash: Hash, path: Path) -> None:
        """The copy stays what it is; the blob is still read from memory."""

    async def aclose(self) -> None:
        self._entries.clear()
        await super().aclose()
