"""Getting several blobs with one request."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aioiroh.aio import Job

from ..errors import NotAvailableError
from ..hash import Hash, HashAndFormat
from ..messages import GetManyRequest, encode_request
from ..ranges import ChunkRanges
from ..rangeseq import ChunkRangesSeq
from ..transfer.plan import Response, missing_of_many
from ..transfer.receive import Arrival, receive
from .get import MAX_BLOB_SIZE
from .source import Source
from .tally import Progress, Tally

if TYPE_CHECKING:
    from aioiroh.address import Dialable
    from aioiroh.endpoint import Endpoint
    from aioiroh.quic.connection import Connection

    from ..store.interface import Store

__all__ = ["GotMany", "ManyTransfer", "get_many"]


@dataclass(frozen=True, slots=True)
class GotMany:
    """What a get of several blobs brought: all `hashes` are there, `received` payload bytes came."""

    hashes: tuple[Hash, ...]
    received: int


def get_many(
    source: Endpoint | Connection,
    hashes: Iterable[Hash],
    *,
    into: Store,
    provider: Dialable | None = None,
    ranges: ChunkRangesSeq | None = None,
    max_blob_size: int = MAX_BLOB_SIZE,
) -> ManyTransfer:
    """Gets several blobs into the store `into`, in one request as far as it can hold them.

    What is there already is not asked for again, and the same blob only once. `ranges` limits what is
    wanted: index i is for the i-th hash. Other arguments and errors as with `get`; if the provider lacks
    one of the blobs, those before it arrive.
    """
    hashes = tuple(hashes)
    wanted: dict[Hash, ChunkRanges] = {}
    for index, hash in enumerate(hashes):
        more = ChunkRanges.all() if ranges is None else ranges[index]
        wanted[hash] = wanted[hash] | more if hash in wanted else more
    return ManyTransfer(Source(source, provider), hashes, wanted, into, max_blob_size)


class ManyTransfer(Job[GotMany, Progress]):
    """A get of several blobs in progress; otherwise as `Transfer`."""

    def __init__(
        self,
        source: Source,
        hashes: tuple[Hash, ...],
        wanted: dict[Hash, ChunkRanges],
        store: Store,
        max_blob_size: int,
    ) -> None:
        """Not for direct use; see `get_many`."""
        self._tally = Tally()
        super().__init__(f"get {len(wanted)} blobs", self._tally.progress())
        self._source = source
        self._hashes = hashes
        self._wanted = wanted
        self._places = {hash: place for place, hash in enumerate(wanted)}
        self._sets = ChunkRangesSeq.from_sets(wanted.values())
        self._store = store
        self._max_blob_size = max_blob_size

    async def _run(self) -> GotMany:
        with contextlib.ExitStack() as held:
            for hash in self._wanted:
                held.enter_context(self._store.hold(HashAndFormat(hash)))
            request = await self._plan()
            if request.hashes:
                async with self._source.connection() as connection:
                    while request.hashes:
                        asked = request
                        await self._fetch(connection, asked)
                        request = await self._plan()
                        if request == asked:
                            raise NotAvailableError(
                                "the provider answered and brought nothing that is missing"
                            )
        return GotMany(self._hashes, self._tally.received)

    async def _plan(self) -> GetManyRequest:
        """What is missing."""
        if not self._wanted:
            return GetManyRequest((), ChunkRangesSeq.empty())
        statuses = await self._store.statuses(list(self._wanted))
        self._tally.local(self._sets, statuses[0], statuses[1:])
        self._progress.set(self._tally.progress())
        return missing_of_many(self._wanted, [status.present for status in statuses])

    async def _fetch(self, connection: Connection, request: GetManyRequest) -> None:
        def arrived(arrival: Arrival) -> None:
            place = self._places[arrival.item.hash]
            self._tally.arrived(place, arrival.size, arrival.verified, arrival.is_done)
            self._progress.set(self._tally.progress())

        async with connection.open_bi() as stream:
            await stream.write(encode_request(request))
            await stream.finish()
            await receive(
                stream.recv,
                Response(request),
                self._store,
                max_size=self._max_blob_size,
                on_arrival=arrived,
            )
