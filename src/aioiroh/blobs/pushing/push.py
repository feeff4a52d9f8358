"""Giving content to a peer that did not ask for it, with progress."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aioiroh.aio import Job
from aioiroh.errors import ReadLimitError, StreamResetError, StreamStoppedError

from ..errors import IncompleteBlobError, NotFoundError, ProviderError
from ..getting.source import Source
from ..hash import Hash, HashAndFormat
from ..messages import GetRequest, PushRequest, encode_request
from ..ranges import ChunkRanges
from ..rangeseq import ChunkRangesSeq
from ..store.sequences import read_hash_seq
from ..transfer.ends import from_push_end
from ..transfer.patience import Patience
from ..transfer.plan import Item, Response, wanted_ranges
from ..transfer.send import Departure, Outcome, can_serve, send, sent_bytes
from .confirm import confirm_push

if TYPE_CHECKING:
    from aioiroh.address import Dialable
    from aioiroh.endpoint import Endpoint
    from aioiroh.quic.connection import Connection
    from aioiroh.quic.streams import BiStream

    from ..store.interface import Store

__all__ = ["Push", "PushProgress", "Pushed", "push"]

STALL_TIME: Final = 60.0
"""Seconds that a peer may take nothing, or may need to end the stream after the last byte."""


@dataclass(frozen=True, slots=True)
class PushProgress:
    """How far a push is: `bytes` of `total` payload bytes and `blobs` of `total_blobs` are handed to
    the network. The totals are 0 before it is known what there is to push.
    """

    bytes: int
    total: int
    blobs: int
    total_blobs: int


@dataclass(frozen=True, slots=True)
class Pushed:
    """What was pushed: `sent` payload bytes.

    The protocol has no answer to a push. Only if `is_confirmed` has the peer been asked, and has said
    that it has everything.
    """

    content: HashAndFormat
    sent: int
    is_confirmed: bool


def push(
    source: Endpoint | Connection,
    content: HashAndFormat | Hash,
    *,
    store: Store,
    provider: Dialable | None = None,
    ranges: ChunkRangesSeq | None = None,
    confirm: bool = False,
) -> Push:
    """Pushes `content` out of `store` to the peer, all of it or the `ranges` of it (as in `get`).

    `source` is a connection to the peer, or an endpoint that dials `provider`. The peer verifies what
    comes; whether it takes pushes is up to it. `confirm`: ask the peer afterwards what it has, by
    observing it or, where it lets nobody observe, by getting a chunk of each blob.
    """
    if isinstance(content, Hash):
        content = HashAndFormat(content)
    wanted = wanted_ranges(content) if ranges is None else ranges
    return Push(Source(source, provider), content, wanted, store, confirm)


class Push(Job[Pushed, PushProgress]):
    """A push in progress. Starts when awaited or iterated; see `Job`.

    Raises NotFoundError or IncompleteBlobError if the store lacks something that is to be pushed,
    ProviderRefusedError if the peer takes no pushes from here, ProviderBusyError if it has too much to
    do, ProviderError if it could not take this one or does not confirm it, ConnectError or
    ConnectionLostError.
    """

    def __init__(
        self,
        source: Source,
        content: HashAndFormat,
        ranges: ChunkRangesSeq,
        store: Store,
        confirm: bool,
    ) -> None:
        """Not for direct use; see `push`."""
        super().__init__(f"push {content.hash.short()}", PushProgress(0, 0, 0, 0))
        self.content = content
        self._source = source
        self._request = GetRequest(content.hash, ranges)
        self._store = store
        self._confirm = confirm
        self._outcome = Outcome()

    async def _run(self) -> Pushed:
        with self._store.hold(self.content):
            items = await self._items()
            expected = await self._expected(items)
            async with self._source.connection() as connection:
                async with connection.open_bi() as stream:
                    await self._send(stream)
                if self._confirm:
                    await confirm_push(connection, expected)
        return Pushed(self.content, self._outcome.payload_bytes, self._confirm)

    async def _items(self) -> list[Item]:
        """What is going to be sent, in order."""
        response = Response(self._request)
        if response.needs_children:
            response.learn(await read_hash_seq(self._store, self.content.hash))
        return response.take_all()

    async def _expected(self, items: list[Item]) -> dict[Hash, ChunkRanges]:
        """The chunks of each blob that the peer has afterwards; everything has to be here."""
        expected: dict[Hash, ChunkRanges] = {}
        total = 0
        statuses = await self._store.statuses([item.hash for item in items])
        for item, status in zip(items, statuses, strict=True):
            if not can_serve(item.ranges, status) or status.size is None:
                if not status.present:
                    raise NotFoundError(f"the store has no blob {item.hash}; get or add it first")
                raise IncompleteBlobError(
                    f"the store has only a part of blob {item.hash}; get the rest, or push a part"
                )
            chunks = item.ranges.select(status.size)
            expected[item.hash] = expected.get(item.hash, ChunkRanges.empty()) | chunks
            total += chunks.byte_count(status.size)
        self._progress.set(PushProgress(0, total, 0, len(items)))
        return expected

    async def _send(self, stream: BiStream) -> None:
        await stream.write(encode_request(PushRequest(self._request.hash, self._request.ranges)))
        now = asyncio.get_running_loop().time()
        await send(
            stream.send,
            self._request,
            self._store,
            self._outcome,
            patience=Patience(STALL_TIME, 0.0, now=now),
            on_departure=self._departed,
        )
        code = self._outcome.stop_code
        if code is None and self._outcome.reason is not None:
            if stream.connection.close_reason is not None:
                raise stream.connection.close_reason
            raise ProviderError(f"the push broke off: {self._outcome.reason}")
        # The peer finishes its side when it is ready to take the push or, ours, when it has taken it; it
        # resets it, with the reason, when it refuses.
        try:
            async with asyncio.timeout(STALL_TIME):
                await stream.recv.read_all(limit=0)
                if code is None:
                    await stream.send.acked()
        except StreamResetError as reset:
            raise from_push_end(reset.code) from None
        except StreamStoppedError as stopped:
            code = stopped.code
        except TimeoutError:
            raise ProviderError("the peer neither takes the push nor refuses it") from None
        except ReadLimitError:
            raise ProviderError("the peer answered a push, which has no answer") from None
        # Upstream's receiver leaves with 0 as soon as it has what it was told of.
        if code or self._outcome.reason is not None:
            raise from_push_end(code or 0)

    def _departed(self, departure: Departure) -> None:
        before = self._progress.value
        sent = self._outcome.payload_bytes
        if not departure.is_done:
            sent += sent_bytes(departure)
        self._progress.set(
            PushProgress(
                max(before.bytes, sent), before.total, self._outcome.blobs, before.total_blobs
            )
        )
