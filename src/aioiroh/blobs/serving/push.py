"""Taking what a peer pushes, with bounds on all of it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aioiroh.errors import AioirohError

from ..errors import BlobTooLargeError, IncompleteBlobError
from ..hash import HASH_SIZE, BlobFormat, HashAndFormat
from ..messages import ErrorCode, GetRequest, PushRequest
from ..rangeseq import ChunkRangesSeq
from ..store.sequences import read_known_children
from ..transfer.patience import Patience, StalledError
from ..transfer.plan import Response
from ..transfer.receive import Again, Arrival, receive
from ..transfer.send import Outcome
from .access import IncomingRequest
from .events import TransferEvent, TransferProgress, TransferStarted
from .limits import Limits

if TYPE_CHECKING:
    from aioiroh.quic.streams import BiStream

    from ..store.interface import Store
    from ..store.tags import TempTag

__all__ = ["OnPush", "PushReceived", "take_push"]


@dataclass(frozen=True, slots=True)
class PushReceived:
    """A push that has arrived: `payload_bytes` were verified, in `blobs` blobs.

    `tag` spares the content from garbage collection until the call-back that gets this has returned.
    Give the content a name to keep it; of a part of a hash sequence only what arrived is there.
    """

    source: IncomingRequest
    content: HashAndFormat
    payload_bytes: int
    blobs: int
    tag: TempTag


OnPush = Callable[[PushReceived], Awaitable[None] | None]
"""Called when a push has arrived. There is no answer to the peer; it looks for itself."""


class _Account:
    """Counts what arrives, and ends it when there is to be too much."""

    def __init__(
        self,
        source: IncomingRequest,
        limits: Limits,
        outcome: Outcome,
        tell: Callable[[TransferEvent], None],
    ) -> None:
        assert isinstance(source.request, PushRequest)
        self._ranges = source.request.ranges
        self._source = source
        self._limits = limits
        self._outcome = outcome
        self._tell = tell
        self._under_way: dict[int, int] = {}

    def has_children(self, ranges: ChunkRangesSeq, count: int) -> None:
        """Raises BlobTooLargeError."""
        blobs = sum((end or 0) - start for start, end, _ in ranges.runs(1 + count))
        if blobs > self._limits.push_blobs:
            raise BlobTooLargeError(f"a push of {blobs} blobs; {self._limits.push_blobs} may come")

    def arrived(self, arrival: Arrival) -> None:
        """Raises BlobTooLargeError."""
        index, hash, size = arrival.item.index, arrival.item.hash, arrival.size or 0
        if index not in self._under_way:
            self._tell(TransferStarted(self._source, index, hash, size))
        self._outcome.payload_bytes += arrival.verified - self._under_way.get(index, 0)
        self._under_way[index] = arrival.verified
        if arrival.is_done:
            del self._under_way[index]
            self._outcome.blobs += 1
            if index == 0:
                self.has_children(self._ranges, size // HASH_SIZE)
            self._tell(TransferProgress(self._source, index, hash, size))


async def take_push(
    stream: BiStream,
    source: IncomingRequest,
    store: Store,
    limits: Limits,
    outcome: Outcome,
    *,
    on_push: OnPush | None,
    tell: Callable[[TransferEvent], None],
) -> None:
    """Takes what follows the request on the stream into the store; `outcome` says how far it came.

    Whatever verified stays there, without a tag, if the rest does not come. What is wrong or too much
    stops the stream with code 3, a peer that brings too little with code 2.
    """
    request = source.request
    assert isinstance(request, PushRequest)
    format = BlobFormat.RAW if request.ranges.is_blob else BlobFormat.HASH_SEQ
    content = HashAndFormat(request.hash, format)
    account = _Account(source, limits, outcome, tell)
    with store.hold(content) as tag:
        try:
            response = Response(GetRequest(request.hash, request.ranges))
            if not request.ranges[0] and response.needs_children:
                children = await read_known_children(store, request.hash)
                if not children.knows_all(request.ranges):
                    raise IncompleteBlobError("hashes of children that are pushed are not here")
                account.has_children(request.ranges, len(children.hashes))
                response.learn(children.hashes)
            now = asyncio.get_running_loop().time()
            await receive(
                stream.recv,
                response,
                store,
                max_size=limits.push_blob_size,
                max_total=limits.push_size,
                on_arrival=account.arrived,
                again=Again.TAKE,
                stop_code=ErrorCode.INTERNAL,
                patience=Patience(limits.stall_time, limits.minimum_rate, now=now),
            )
        except (AioirohError, OSError, StalledError) as error:
            outcome.reason = f"{type(error).__name__}: {error}"
            code = ErrorCode.LIMIT if isinstance(error, StalledError) else ErrorCode.INTERNAL
            stream.recv.stop(code)
            stream.send.reset(code)
        else:
            if on_push is not None:
                done = on_push(
                    PushReceived(source, content, outcome.payload_bytes, outcome.blobs, tag)
                )
                if inspect.isawaitable(done):
                    await done
