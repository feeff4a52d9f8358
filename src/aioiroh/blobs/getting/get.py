"""Getting content from a provider into a store, only what is missing, with progress."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aioiroh.aio import Job

from ..errors import NotAvailableError
from ..hash import BlobFormat, Hash, HashAndFormat
from ..hashseq import HashSeq
from ..messages import GetRequest, encode_request
from ..rangeseq import ChunkRangesSeq
from ..store.memory import MemoryStore
from ..store.sequences import read_hash_seq
from ..transfer.plan import Response, missing, wanted_ranges
from ..transfer.receive import Arrival, receive
from .answer import Answer
from .sizes import get_sizes, read_blob
from .source import Content, Source, resolved
from .tally import Arriving, Progress, Tally

if TYPE_CHECKING:
    from aioiroh.address import Dialable
    from aioiroh.endpoint import Endpoint
    from aioiroh.quic.connection import Connection

    from ..store.interface import Store

__all__ = ["Got", "Transfer", "get", "get_bytes"]

AT_ONCE: Final = 1024 * 1024
"""A blob of up to so many bytes is verified in one go; more would hold up the loop."""
MAX_BLOB_SIZE: Final = 1 << 62
"""Default limit for the size that a provider may announce, in bytes: none that matters."""


@dataclass(frozen=True, slots=True)
class Got:
    """What a get brought: `received` payload bytes came over the network, `content` is complete."""

    content: HashAndFormat
    received: int


def get(
    source: Endpoint | Connection,
    content: Content | str,
    *,
    into: Store,
    provider: Dialable | None = None,
    ranges: ChunkRangesSeq | None = None,
    totals: bool = False,
    max_blob_size: int = MAX_BLOB_SIZE,
) -> Transfer:
    """Gets `content` into the store `into`: what is there already is not asked for again.

    `source` is an endpoint, which dials the ticket's address or `provider`, or a connection to the
    provider. `content` is a ticket (or its text), a hash with format, or the hash of a plain blob.
    `ranges` limits what is wanted, as in a request: index 0 is the blob itself, i + 1 child i.
    `totals`: ask for the sizes of a hash sequence's children first, at the price of a round
    trip, so that progress has totals. A blob over `max_blob_size` bytes is not taken.
    """
    content, provider = resolved(content, provider)
    wanted = wanted_ranges(content) if ranges is None else ranges
    return Transfer(Source(source, provider), content, wanted, into, totals, max_blob_size)


async def get_bytes(
    source: Endpoint | Connection,
    content: Content | str,
    *,
    limit: int,
    provider: Dialable | None = None,
) -> bytes:
    """A blob of at most `limit` bytes, without a store. Arguments and errors as with `get`.

    Of a hash sequence only the sequence itself. BlobTooLargeError: it has more than `limit` bytes.
    """
    content, provider = resolved(content, provider)
    wanted = ChunkRangesSeq.blob()
    if limit <= AT_ONCE:
        asked = Source(source, provider)
        if asked.is_connection:
            return await _get_small(asked.given, content.hash, limit)
        async with asked.connection() as connection:
            return await _get_small(connection, content.hash, limit)
    async with MemoryStore() as store:
        await get(
            source, content, into=store, provider=provider, ranges=wanted, max_blob_size=limit
        )
        return await store.read_bytes(content.hash, limit=limit)


async def _get_small(connection: Connection, hash: Hash, limit: int) -> bytes:
    async with connection.open_bi() as stream:
        await stream.write(encode_request(GetRequest(hash, ChunkRangesSeq.blob())))
        await stream.finish()
        return await read_blob(Answer(stream.recv), hash, limit)


class Transfer(Job[Got, Progress]):
    """A get in progress. Starts when awaited or iterated.

    `await transfer` gives `Got`; `async for progress in transfer` gives the latest `Progress` after
    each change, coalesced, and raises what went wrong. Cancelling the task that does either
    cancels the transfer; leaving the iteration does not. What was verified stays in the store;
    another get continues there. As a context manager it is cancelled on the way out.

    Raises ProviderError and its subclasses, BlobTooLargeError, ConnectError, ConnectionLostError,
    OSError if the store cannot be written, and DecodeError if children were asked for and the blob
    is no hash sequence.
    """

    def __init__(
        self,
        source: Source,
        content: HashAndFormat,
        wanted: ChunkRangesSeq,
        store: Store,
        totals: bool,
        max_blob_size: int,
    ) -> None:
        """Not for direct use; see `get`."""
        self._tally = Tally()
        self._is_behind = False
        super().__init__(f"get {content.hash.short()}", self._tally.progress())
        self.content = content
        self._source = source
        self._wanted = wanted
        self._store = store
        self._totals = totals
        self._max_blob_size = max_blob_size

    @property
    def arriving(self) -> list[Arriving]:
        """The blobs that are on their way."""
        return self._tally.arriving

    # --- the work ---------------------------------------------------------------------------------

    async def _run(self) -> Got:
        with self._store.hold(self.content):
            request, children = await self._plan()
            if request:
                async with self._source.connection() as connection:
                    if self._totals and await self._get_sizes(connection, children):
                        request, children = await self._plan()
                    while request:
                        asked = request
                        refused = brought_all = False
                        try:
                            brought_all = await self._fetch(connection, asked, children)
                        except NotAvailableError:
                            refused = True
                        if brought_all and children is None:
                            break  # such a request names all that is wanted
                        request, children = await self._plan()
                        if request and (refused or request == asked):
                            raise self._not_available(request, children)
        self._publish()
        return Got(self.content, self._tally.received)

    def _not_available(
        self, request: ChunkRangesSeq, children: HashSeq | None
    ) -> NotAvailableError:
        """What there is to say when an answer has brought nothing that is missing."""
        first = next(request.runs())[0]
        hash = self.content.hash if first == 0 or children is None else children[first - 1]
        return NotAvailableError(
            f"blob {hash}: the provider lacks it or a part of it; ask another one", hash
        )

    async def _plan(self) -> tuple[ChunkRangesSeq, HashSeq | None]:
        """What is missing, and the children if they are known and matter."""
        root = await self._store.status(self.content.hash)
        children: HashSeq | None = None
        if self.content.format is BlobFormat.HASH_SEQ and root.is_complete:
            children = await read_hash_seq(self._store, self.content.hash)
        statuses = await self._store.statuses(tuple(children)) if children is not None else []
        self._tally.local(self._wanted, root, statuses if children is not None else None)
        self._publish()
        present = [status.present for status in statuses]
        return missing(self._wanted, root.present, children, present), children

    async def _get_sizes(self, connection: Connection, children: HashSeq | None) -> bool:
        """Learns the sizes of the children, and the root with them; False if there are none."""
        if self.content.format is not BlobFormat.HASH_SEQ or not self._wanted[0]:
            return False
        found = await get_sizes(connection, self.content.hash)
        if children is None:
            await self._store.add_bytes(bytes(found.sequence), BlobFormat.HASH_SEQ)
            self._tally.received += len(bytes(found.sequence))
        self._tally.sizes(found.sizes)
        return True

    async def _fetch(
        self, connection: Connection, ranges: ChunkRangesSeq, children: HashSeq | None
    ) -> bool:
        request = GetRequest(self.content.hash, ranges)
        async with connection.open_bi() as stream:
            await stream.write(encode_request(request))
            await stream.finish()
            return await receive(
                stream.recv,
                Response(request, children),
                self._store,
                max_size=self._max_blob_size,
                on_arrival=self._arrived,
                sizes=self._tally.known_sizes,
            )

    def _arrived(self, arrival: Arrival) -> None:
        self._tally.arrived(arrival.item.index, arrival.size, arrival.verified, arrival.is_done)
        if not self._is_behind:
            # Many arrive in one turn of the loop.
            self._is_behind = True
            asyncio.get_running_loop().call_soon(self._publish)

    def _publish(self) -> None:
        self._is_behind = False
        self._progress.set(self._tally.progress())
