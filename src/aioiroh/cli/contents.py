"""What a ticket stands for: its files and their sizes, asked for without fetching them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from aioiroh import Endpoint
from aioiroh.blobs import (
    ALPN,
    BlobFormat,
    BlobTicket,
    ChunkRanges,
    ChunkRangesSeq,
    Collection,
    ErrorCode,
    IncompleteBlobError,
    NotAvailableError,
    NotFoundError,
    Store,
    get,
    get_size,
    get_sizes,
    load_collection,
    select,
)
from aioiroh.quic import Connection, TransportConfig

from .display import Display
from .failures import ExitCode, Failure, explain
from .relays import NONE_NAMED, RelayChoice

__all__ = ["Content", "Sender", "content_in", "lacking", "look"]

KEEP_ALIVE = 5.0
"""Seconds of silence after which a sign of life is asked for, as upstream does."""


@dataclass(frozen=True, slots=True)
class Sender:
    """Whom to ask. `relay`: relays to use; if none, those that the ticket names. `timeout`: seconds without
    an answer after which it is given up.
    """

    ticket: BlobTicket
    bind: tuple[str, ...] = ()
    relay: RelayChoice = NONE_NAMED
    timeout: float = 30.0

    @contextlib.asynccontextmanager
    async def connected(self, display: Display) -> AsyncIterator[Connection]:
        """The connection to the sender, which learns by a code whether it was of use."""
        ticket = self.ticket
        transport = TransportConfig(
            idle_timeout=self.timeout, keep_alive=min(KEEP_ALIVE, self.timeout / 3)
        )
        async with Endpoint.bind(
            bind=self.bind or None,
            transport=transport,
            **self.relay.or_else(ticket.addr.relay_urls).binding,
        ) as endpoint:
            display.event("connecting", sender=str(ticket.addr.id), hash=str(ticket.hash))
            with display.bar(f"connecting to {ticket.addr.id.short()}"):
                connection = await endpoint.connect(ticket, alpn=ALPN, timeout=self.timeout)
            async with connection:
                try:
                    yield connection
                except BaseException:
                    connection.close(ErrorCode.INTERNAL, b"not received")
                    raise


@dataclass(frozen=True, slots=True)
class Content:
    """The files, the size of each, and `extra` bytes of what lists them."""

    collection: Collection
    sizes: tuple[int, ...]
    extra: int

    @property
    def payload(self) -> int:
        """Bytes of all files."""
        return sum(self.sizes)

    def chosen(self, patterns: tuple[str, ...]) -> list[int]:
        """Indexes of the files that patterns select; all without any. Raises ValueError."""
        if not patterns:
            return list(range(len(self.sizes)))
        return select(self.collection.names, patterns)


async def look(
    connection: Connection, store: Store, ticket: BlobTicket, display: Display
) -> Content:
    """Asks the sender what there is; what lists the files is kept in the store."""
    with display.bar("asking what there is"):
        if ticket.format is BlobFormat.RAW:
            # It has no name but its hash.
            size = await get_size(connection, ticket.hash)
            return Content(Collection([(str(ticket.hash), ticket.hash)]), (size,), 0)
        try:
            found = await get_sizes(connection, ticket.hash)
        except NotAvailableError as error:
            if error.hash is None or error.hash == ticket.hash:
                raise
            raise lacking(error, await _names(connection, store, ticket)) from None
        sequence = bytes(found.sequence)
        await store.add_bytes(sequence, BlobFormat.HASH_SEQ)
        collection = await _names(connection, store, ticket)
        return Content(collection, found.sizes[1:], len(sequence) + sum(found.sizes[:1]))


async def _names(connection: Connection, store: Store, ticket: BlobTicket) -> Collection:
    everything = ChunkRanges.all()
    names = ChunkRangesSeq.from_sets((everything, everything))
    await get(connection, ticket.content, into=store, ranges=names)
    return await load_collection(store, ticket.hash)


def lacking(error: NotAvailableError, collection: Collection) -> Failure:
    """What there is to say when the sender does not have a file that its ticket names."""
    names = [name for name, hash in collection if hash == error.hash]
    if not names:
        return explain(error)
    return Failure(
        f"the sender lacks {names[0]!r}, or it has been changed there since it was shared; "
        "have it sent anew, with a new ticket",
        ExitCode.BAD_CONTENT,
    )


async def content_in(store: Store, ticket: BlobTicket) -> Content | None:
    """What there is, if an earlier receive has brought all of it; None if not."""
    if ticket.format is BlobFormat.RAW:
        collection = Collection([(str(ticket.hash), ticket.hash)])
    else:
        try:
            collection = await load_collection(store, ticket.hash)
        except (NotFoundError, IncompleteBlobError):
            return None
    sizes = []
    for status in await store.statuses(collection.hashes):
        if not status.is_complete or status.size is None:
            return None
        sizes.append(status.size)
    return Content(collection, tuple(sizes), 0)
