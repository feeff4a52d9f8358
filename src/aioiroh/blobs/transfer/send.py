"""From a store into a stream: what a request asks for, as far as it is here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from aioiroh import _native
from aioiroh.aio import within
from aioiroh.errors import ConnectionLostError, DecodeError, StreamStoppedError

from ..errors import BlobTooLargeError, IncompleteBlobError, NotFoundError
from ..hash import Hash
from ..messages import ErrorCode, GetManyRequest, GetRequest
from ..ranges import CHUNK_SIZE, ChunkRanges, chunk_count
from ..store.interface import BlobStatus, Pieces
from ..store.local import handle_status
from ..store.sequences import KnownChildren, read_known_children
from .pacing import Pace
from .patience import Patience
from .plan import Item, Response

if TYPE_CHECKING:
    from aioiroh.quic.sending import SendStream

    from ..store.interface import Store

__all__ = ["Departure", "Outcome", "can_serve", "send"]

AHEAD: Final = 64
"""Blobs handed to the native sender before they are due."""
PIECES: Final = 2
"""Pieces of a blob that comes in pieces (1 MiB each) that the native sender has at once."""
TOO_SLOW: Final = "the peer takes too little data"
STOPPED: Final = "the peer stopped the stream with code {}"
LOST: Final = "the connection ended"


@dataclass(slots=True)
class Departure:
    """One blob that is being sent: its `size`, and how far it is (`end_offset`), in bytes."""

    item: Item
    size: int
    end_offset: int = 0
    is_done: bool = False


@dataclass(slots=True)
class Outcome:
    """How far an answer came, in bytes of content and in all, and how it ended.

    Completely if `reason` is None. `stop_code`: what the peer stopped the stream with, if it did.
    `lacking`: the blob that is not, or no more, in the store.
    """

    payload_bytes: int = 0
    bytes: int = 0
    blobs: int = 0
    reason: str | None = None
    stop_code: int | None = None
    lacking: Hash | None = None


def can_serve(ranges: ChunkRanges, status: BlobStatus) -> bool:
    """Whether everything that an answer to `ranges` needs is there.

    The hash pairs inside a chunk group are made from the group's data, so a part of a group can
    only be sent by who has the whole group. A size that is not proved is not passed on.
    """
    if status.is_complete:
        return True
    if not status.size_verified or status.size is None:
        return False
    needed = ranges.select(status.size).whole_groups()
    return needed & ChunkRanges.chunks(0, chunk_count(status.size)) <= status.present


async def send(
    stream: SendStream,
    request: GetRequest | GetManyRequest,
    store: Store,
    outcome: Outcome,
    *,
    patience: Patience,
    on_departure: Callable[[Departure], None] | None,
    pace: Pace = Pace.FREE,
) -> None:
    """Answers a request and ends the stream; `outcome` is filled in, also when this is cancelled.

    What of a blob is asked for is sent only if all of it is here. If the first blob is not, the
    stream is reset with code 3 and carries nothing; if a later one is not, the stream ends before
    it, because a reset would throw away what is still on its way. A peer with which `patience` ends
    is given up with code 2.
    """
    if not pace.limits and isinstance(request, GetRequest) and request.ranges.is_blob:
        item = Item(0, request.hash, request.ranges[0])
        [found] = await store.outgoing((item.hash,), (item.ranges,))
        response = (
            found.response(item.ranges.boundaries) if isinstance(found, _native.Blob) else None
        )
        if found is not None and response is not None:
            departure = Departure(item, found.size or 0)
            await _write(stream, response, departure, outcome, patience, on_departure)
            return
    outflow = _Outflow(stream, request, store, outcome, patience, on_departure, pace)
    with outflow.attached():
        await outflow.run()


async def _write(
    stream: SendStream,
    response: bytes,
    departure: Departure,
    outcome: Outcome,
    patience: Patience,
    on_departure: Callable[[Departure], None] | None,
) -> None:
    """All of an answer, which is one small blob in memory."""
    if on_departure is not None:
        on_departure(departure)
    try:
        await within(patience.window, stream.write(response))
        await stream.finish()
    except TimeoutError:
        stream.reset(ErrorCode.LIMIT)
        outcome.reason = TOO_SLOW
    except StreamStoppedError as stopped:
        outcome.stop_code = stopped.code
        outcome.reason = STOPPED.format(stopped.code)
    except ConnectionLostError:
        outcome.reason = LOST
    else:
        departure.is_done = True
        outcome.blobs = 1
        outcome.payload_bytes = sent_bytes(departure)
        if on_departure is not None:
            on_departure(departure)
    outcome.bytes = stream.bytes_written


class _Outflow:
    def __init__(
        self,
        stream: SendStream,
        request: GetRequest | GetManyRequest,
        store: Store,
        outcome: Outcome,
        patience: Patience,
        on_departure: Callable[[Departure], None] | None,
        pace: Pace,
    ) -> None:
        self._stream = stream
        self._request = request
        self._store = store
        self._patience = patience
        self._on_departure = on_departure or (lambda departure: None)
        self._pace = pace
        self._response = Response(request)
        self._children: KnownChildren | None = None
        self._sender = _native.BlobSender(store.worker.native)
        self._under_way: dict[int, Departure] = {}
        # Pieces that the sender has: the number of the first of their blob, and how far they go.
        self._pieces: dict[int, tuple[int, int]] = {}
        self._count = 0
        self._all_pushed = False
        self._over = False
        self._wake = asyncio.Event()
        self._outcome = outcome

    @contextlib.contextmanager
    def attached(self) -> Iterator[None]:
        """Within, the native sender writes the stream."""
        self._stream.attach(self._sender, self._wake.set)
        with (
            self._store.worker.reports(self._sender, self._wake.set),
            self._pace.kept(self._stream),
        ):
            try:
                yield
            finally:
                if self._over:
                    self._stream.detach(finished=True)
                else:
                    self._stream.reset(ErrorCode.INTERNAL)
                self._outcome.bytes = self._sender.sent
                for departure in self._under_way.values():
                    self._outcome.payload_bytes += sent_bytes(departure)

    async def run(self) -> None:
        while True:
            if len(self._under_way) <= AHEAD // 2:
                await self._push()
            if self._over:
                break
            await self._news()

    async def _news(self, *, held: bool = False) -> None:
        """Waits for reports, as long as the peer is worth it. `held`: we had nothing for it meanwhile."""
        if await self._patience.wait(self._wake):
            self._take_reports()
            return
        now = asyncio.get_running_loop().time()
        held = self._pace.was_held(self._stream) or held
        if not self._patience.is_enough(now, self._sender.sent, held=held):
            self._give_up(ErrorCode.LIMIT, TOO_SLOW)

    async def _push(self) -> None:
        """Hands the next blobs to the sender; finishes when there are none."""
        while not self._all_pushed and len(self._under_way) < AHEAD:
            items = self._response.take(AHEAD - len(self._under_way))
            if not items and self._response.needs_children:
                if not await self._learn():
                    return self._lacking(self._request_hash)
                continue
            pushed: list[tuple[_native.Blob, tuple[int, ...]]] = []
            found = await self._store.outgoing(
                [item.hash for item in items], [item.ranges for item in items]
            )
            for item, source in zip(items, found, strict=True):
                if source is None or not (self._knows(item) and _has(source, item.ranges)):
                    self._sender.push(pushed)
                    return self._lacking(item.hash)
                departure = Departure(item, source.size or 0)
                if isinstance(source, _native.Blob):
                    self._under_way[self._count] = departure
                    self._count += 1
                    pushed.append((source, item.ranges.boundaries))
                else:
                    self._sender.push(pushed)
                    pushed = []
                    await self._feed(departure, source)
                    if self._over:
                        return
            self._sender.push(pushed)
            if not items:
                if not self._is_end():
                    return self._lacking(self._request_hash)
                self._all_pushed = True
                self._sender.finish()
            self._store.worker.touched()

    async def _feed(self, departure: Departure, source: Pieces) -> None:
        """Hands over a blob that comes in pieces, no faster than the peer takes them."""
        first, item = self._count, departure.item
        self._under_way[first] = departure
        self._on_departure(departure)
        try:
            async with contextlib.aclosing(source.answer(item.ranges)) as pieces:
                async for end, data in pieces:
                    held = not self._pieces
                    self._pieces[self._count] = first, end
                    self._count += 1
                    self._sender.raw(data)
                    self._store.worker.touched()
                    while not self._over and (len(self._pieces) > PIECES or self._wake.is_set()):
                        await self._news(held=held)
                    if self._over:
                        return
        except OSError as error:
            self._outcome.lacking = item.hash
            self._give_up(ErrorCode.INTERNAL, f"a blob could not be read: {error}")

    async def _learn(self) -> bool:
        """Reads the children of the hash sequence; False if nothing of it is here or it is none."""
        assert isinstance(self._request, GetRequest)
        try:
            self._children = await read_known_children(self._store, self._request.hash)
        except (DecodeError, BlobTooLargeError, NotFoundError, IncompleteBlobError):
            return False
        self._response.learn(self._children.hashes)
        return True

    def _knows(self, item: Item) -> bool:
        """Whether the hash of the item is more than a hole in the sequence."""
        children = self._children
        return children is None or item.index == 0 or children.knows(item.index - 1)

    def _is_end(self) -> bool:
        """Whether nothing that is asked for follows the last item."""
        return self._children is None or self._children.reaches(self._request.ranges)

    @property
    def _request_hash(self) -> Hash | None:
        return self._request.hash if isinstance(self._request, GetRequest) else None

    def _lacking(self, hash: Hash | None) -> None:
        self._outcome.lacking = hash
        if self._count:
            self._outcome.reason = "a part of what was asked for is not in the store"
            self._all_pushed = True
            self._sender.finish()
            self._store.worker.touched()
        else:
            self._give_up(ErrorCode.INTERNAL, "what was asked for is not in the store")

    def _give_up(self, code: ErrorCode, reason: str) -> None:
        self._outcome.reason = reason
        self._stream.reset(code)
        self._over = True

    def _take_reports(self) -> None:
        self._wake.clear()
        for report in self._sender.poll():
            match report:
                case ("started", number, size):
                    departure = self._under_way[number]
                    departure.size = size
                    self._on_departure(departure)
                case ("progress", number, end_offset):
                    departure = self._under_way[number]
                    departure.end_offset = end_offset
                    if end_offset < departure.size:  # or it is done, which comes next
                        self._on_departure(departure)
                case ("done", number):
                    self._done(number)
                case ("error", number, kind, detail):
                    self._failed(number, kind, detail)
                    break
                case ("end", _):
                    self._over = True

    def _done(self, number: int) -> None:
        """A blob, or a piece of one, is sent."""
        first, end = self._pieces.pop(number, (number, None))
        departure = self._under_way[first]
        if end is not None and end < last_byte(departure):
            departure.end_offset = end
        else:
            del self._under_way[first]
            departure.is_done = True
            self._outcome.blobs += 1
            self._outcome.payload_bytes += sent_bytes(departure)
        if end != 0:
            self._on_departure(departure)

    def _failed(self, number: int, kind: str, detail: Any) -> None:
        if kind == "stopped":
            self._outcome.stop_code = detail
        if kind == "stopped" and self._all_pushed and not self._under_way:
            pass  # it has everything, and did not wait for the end
        elif kind == "stopped":
            self._outcome.reason = STOPPED.format(detail)
        elif kind == "lost":
            self._outcome.reason = LOST
        else:
            departure = self._under_way.get(number)
            self._outcome.lacking = None if departure is None else departure.item.hash
            self._give_up(ErrorCode.INTERNAL, f"a blob could not be read: {kind} {detail}")
            return
        self._over = True


def _has(source: _native.Blob | Pieces, ranges: ChunkRanges) -> bool:
    if not isinstance(source, _native.Blob):
        return True
    return source.is_complete or can_serve(ranges, handle_status(source))


def last_byte(departure: Departure) -> int:
    """Up to which byte of the blob it goes."""
    boundaries = departure.item.ranges.select(departure.size).boundaries
    return min(boundaries[-1] * CHUNK_SIZE, departure.size) if boundaries else 0


def sent_bytes(departure: Departure) -> int:
    """Payload bytes that were sent of a blob that may be broken off."""
    size = departure.size
    ranges = departure.item.ranges
    if departure.is_done:
        return ranges.selected_bytes(size)
    return (ranges.select(size) & ChunkRanges.bytes(0, departure.end_offset)).byte_count(size)
