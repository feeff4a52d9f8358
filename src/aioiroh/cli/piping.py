"""`aioiroh receive -o -`: one file to standard output, verified piece by piece, without a folder."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from typing import Final

from aioiroh.aio import Tasks
from aioiroh.blobs import (
    BlobFormat,
    BlobTicket,
    ChunkRanges,
    ChunkRangesSeq,
    Hash,
    HashAndFormat,
    MemoryStore,
    NotAvailableError,
    Store,
    get,
)
from aioiroh.blobs.hashseq import MAX_HASH_SEQ_SIZE
from aioiroh.quic import Connection

from . import amounts
from .contents import Content, Sender, lacking, look
from .display import Display
from .failures import ExitCode
from .stalling import again_while_it_moves, give_up_when_silent

__all__ = ["receive_to_stdout"]

PIECE: Final = 4 * 1024 * 1024
"""Bytes that are asked for at once; as many are on their way while they are written."""


async def receive_to_stdout(sender: Sender, only: tuple[str, ...], display: Display) -> int:
    """Writes the file that is wanted. ValueError: it is more than one."""
    pipe = _Pipe(sender, only, display)
    await again_while_it_moves(pipe.run, lambda: pipe.written, display)
    display.note(f"Received {amounts.size(pipe.written)}, verified.")
    return ExitCode.OK


@dataclass(slots=True)
class _Pipe:
    sender: Sender
    only: tuple[str, ...]
    display: Display
    written: int = 0
    """Bytes; whoever connects again goes on there."""

    async def run(self) -> None:
        sender, display = self.sender, self.display
        async with sender.connected(display) as connection:
            async with MemoryStore() as store, give_up_when_silent(connection, sender.timeout):
                content = await look(connection, store, sender.ticket, display)
                file = await _File.of(sender.ticket, store, content, self._choose(content))
            size = file.size
            with display.bar("receiving", "progress") as bar:
                bar.update(self.written, size)
                try:
                    async with Tasks("pieces", on_error=lambda task, error: None) as tasks:
                        ahead = tasks.spawn(self._piece(connection, file, self.written))
                        while self.written < size:
                            data = await ahead
                            end = self.written + len(data)
                            if end < size:
                                ahead = tasks.spawn(self._piece(connection, file, end))
                            # Whoever reads may take their time.
                            await asyncio.to_thread(_write, data)
                            self.written = end
                            bar.update(end, size)
                except NotAvailableError as error:
                    raise lacking(error, content.collection) from None

    def _choose(self, content: Content) -> int:
        chosen = content.chosen(self.only)
        if len(chosen) != 1:
            raise ValueError(
                f"the sender has {amounts.counted(len(chosen), 'file')} for standard output; "
                "choose one with --only, or a folder with -o"
            )
        return chosen[0]

    async def _piece(self, connection: Connection, file: _File, start: int) -> bytes:
        """The bytes from `start` on, in memory."""
        end = min(start + PIECE, file.size)
        # The last chunk proves the size.
        wanted = ChunkRanges.bytes(start, end) | ChunkRanges.last_chunk()
        async with MemoryStore() as store:
            async with give_up_when_silent(connection, self.sender.timeout):
                await file.get(connection, store, wanted)
            async with store.reader(file.hash) as reader:
                return await reader.read_at(start, end - start)


class _File:
    """The file that is wanted. It is asked for as a part of what the ticket names, which a sender counts."""

    def __init__(
        self, content: HashAndFormat, sequence: bytes, index: int, hash: Hash, size: int
    ) -> None:
        self._content = content
        self._sequence = sequence
        self._index = index
        self.hash = hash
        self.size = size

    @classmethod
    async def of(cls, ticket: BlobTicket, store: Store, content: Content, index: int) -> _File:
        """`store` has what lists the files."""
        hash, size = content.collection.hashes[index], content.sizes[index]
        if ticket.format is BlobFormat.RAW:
            return cls(ticket.content, b"", 0, hash, size)
        sequence = await store.read_bytes(ticket.hash, limit=MAX_HASH_SEQ_SIZE)
        return cls(ticket.content, sequence, index + 2, hash, size)

    async def get(self, connection: Connection, store: Store, wanted: ChunkRanges) -> None:
        if self._sequence:
            await store.add_bytes(self._sequence, BlobFormat.HASH_SEQ)
        nothing = ChunkRanges.empty()
        entries = ((self._index, wanted), (self._index + 1, nothing))
        await get(connection, self._content, into=store, ranges=ChunkRangesSeq(entries))


def _write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
