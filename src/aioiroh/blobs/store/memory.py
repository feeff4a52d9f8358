"""A store that keeps what it receives in memory."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aioiroh import _native

from ..hash import BlobFormat, Hash
from ..ranges import GROUP_SIZE
from .hashing import FoundFile, hash_files, look_at
from .interface import Added, BlobStatus, Finding, ImportMode, OnCopied, OnHashed
from .local import Entry, LocalStore, LocalWriter, handle_status
from .staging import copy_blobs, staged
from .tags import Tags
from .verifying import check_handle

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["MemoryStore"]

SMALL: Final = GROUP_SIZE
"""Files of up to so many bytes are kept in memory like all else: to open them would cost more."""
TOGETHER: Final = 20
"""Files that are read together."""


class MemoryStore(LocalStore):
    """Blobs in memory, gone with the store. Files that are added are read where they are, if they have
    over 16 KiB.

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

    async def handles(self, hashes: Sequence[Hash]) -> list[_native.Blob | None]:
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
        added: dict[int, Added] = {}
        inside: list[FoundFile] = []
        outside: list[FoundFile] = []
        for file in await look_at(paths):
            is_inside = mode is ImportMode.COPY or file.size <= SMALL
            (inside if is_inside else outside).append(file)
        for start in range(0, len(inside), TOGETHER):
            batch = inside[start : start + TOGETHER]
            for file, data in zip(
                batch, await self.worker.call(partial(_read, batch)), strict=True
            ):
                added[file.index] = self._take(_native.Blob.from_bytes(data))
                if on_hashed is not None:
                    on_hashed(file.index, len(data))
        hashed = await hash_files(self.worker, outside, lambda size: None, on_hashed)
        for file, done in zip(outside, hashed, strict=True):
            path = os.fspath(file.path)
            assert isinstance(done.outboard, bytes)
            blob = _native.Blob.open(bytes(done.hash), path, done.size, done.outboard)
            added[file.index] = self._take(blob)
        return [added[index] for index in range(len(paths))]

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

    async def stage(
        self,
        hashes: Sequence[Hash],
        directory: Path,
        *,
        keep: bool = False,
        places: Sequence[Path] | None = None,
        on_copied: OnCopied | None = None,
    ) -> list[Path]:
        paths = [staged(hash, directory) for hash in hashes]
        handles = await self._complete(hashes)
        await copy_blobs(self.worker, list(zip(handles, paths, strict=True)), on_copied)
        return paths

    async def settle(self, files: Sequence[tuple[Hash, Path]]) -> None:
        """The copies stay what they are; the blobs are still read from memory."""

    async def aclose(self) -> None:
        self._entries.clear()
        await super().aclose()


def _read(files: Sequence[FoundFile]) -> list[bytes]:
    return [file.path.read_bytes() for file in files]
