"""From a stream into a store: verified pieces go straight to where the blob lives.

Of what is wanted whole and not here at all, small blobs come as their data, many at a time; for the
others there is a writer as soon as their size is known.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from aioiroh import _native

from ..hash import Hash
from ..hashseq import HashSeq
from ..messages import ErrorCode
from ..ranges import GROUP_SIZE
from ..store.interface import BlobState
from ..store.sequences import read_hash_seq
from .ends import from_report
from .pacing import Pace
from .patience import Patience, StalledError
from .plan import Item, Response

if TYPE_CHECKING:
    from aioiroh.quic.receiving import RecvStream

    from ..store.interface import BlobWriter, Store

__all__ = ["Arrival", "receive"]

AHEAD: Final = 256
"""Blobs announced to the native receiver before they arrive, so that small ones do not wait."""
PAGE: Final = 256
"""Children that are looked at before the loop gets its turn: a sequence may have a million."""
END_GRACE: Final = 5.0
"""Seconds that a peer has to end the stream after the last blob."""


class Again(Enum):
    """What to do when content comes of which all or a part is here."""

    STOP = "stop"
    """The answer is broken off: ask for what is missing then."""
    TAKE = "take"
    """It is verified, and thrown away if all of it is here: who pushes was not asked."""


@dataclass(slots=True)
class Arrival:
    """One blob that is arriving: `verified` payload bytes of this answer, `size` of the blob."""

    item: Item
    size: int | None = None
    verified: int = 0
    is_done: bool = False


OnArrival = Callable[[Arrival], None]


async def receive(
    recv: RecvStream,
    response: Response,
    store: Store,
    *,
    max_size: int,
    max_total: int | None = None,
    on_arrival: OnArrival,
    pace: Pace = Pace.FREE,
    again: Again = Again.STOP,
    stop_code: ErrorCode = ErrorCode.NONE,
    patience: Patience | None = None,
    sizes: Mapping[int, int] | None = None,
) -> bool:
    """Takes everything that `response` names from the stream.

    False if it stopped because part of what is still to come is here already (see `again`). `on_arrival`
    hears of every change. The stream is kept to `pace`. `sizes`: what is known or believed of the blobs,
    by index. A blob over `max_size` bytes is not taken, nor one with which all bring over `max_total`. Whatever was verified stays in the store, also if this fails or is cancelled; the stream
    is stopped with `stop_code` then. Raises as `ends` says, OSError if the store cannot be written,
    DecodeError if children are asked for and the root is no hash sequence, StalledError if `patience`
    ends (which stops the stream with code 2).
    """
    receiver = _native.BlobReceiver(
        store.worker.native, max_size=max_size, max_total=max_total, stop_code=stop_code
    )
    intake = _Intake(
        receiver,
        recv,
        response,
        store,
        max_size,
        on_arrival,
        pace,
        again,
        stop_code,
        patience,
        sizes or {},
    )
    async with intake.attached():
        try:
            await intake.run()
        except _Superseded:
            return False
        return True


class _Superseded(Exception):
    """The answer carries what the store has meanwhile, or twice the same."""


class _Nowhere:
    """Stands for the writer of a blob that is here: what comes is verified and thrown away."""

    def __init__(self, hash: Hash, max_size: int) -> None:
        self.handle = _native.Blob.discard(bytes(hash), max_size)

    def advanced(self) -> None:
        """Nobody can observe it."""

    async def __aexit__(self, *_: object) -> None:
        """Nothing was kept."""


class _Intake:
    """The items that are expected, in the order in which the native receiver numbers them."""

    def __init__(
        self,
        receiver: _native.BlobReceiver,
        recv: RecvStream,
        response: Response,
        store: Store,
        max_size: int,
        on_arrival: OnArrival,
        pace: Pace,
        again: Again,
        stop_code: ErrorCode,
        patience: Patience | None,
        sizes: Mapping[int, int],
    ) -> None:
        self._recv = recv
        self._response = response
        self._store = store
        self._max_size = max_size
        self._on_arrival = on_arrival
        self._pace = pace
        self._again = again
        self._stop_code = stop_code
        self._patience = patience
        self._receiver = receiver
        self._open: dict[int, tuple[Arrival, BlobWriter | _Nowhere | None]] = {}
        self._count = 0
        # Small blobs that are verified, on their way to the store.
        self._verified: list[tuple[Hash, bytes]] = []
        self._sizes = sizes
        # Whether the blob that came last was small: the next one may be like it.
        self._are_small = True
        # Nothing of what is still to come was here when it became known.
        self._are_missing = False
        self._all_expected = False
        self._ended = False
        self._wake = asyncio.Event()

    @contextlib.asynccontextmanager
    async def attached(self) -> AsyncIterator[None]:
        """Within, the native receiver reads the stream."""
        self._recv.attach(self._receiver, self._wake.set)
        with (
            self._store.worker.reports(self._receiver, self._wake.set),
            self._pace.kept(self._recv),
        ):
            code = ErrorCode.NONE
            try:
                yield
            except StalledError:
                code = ErrorCode.LIMIT
                raise
            except BaseException:
                code = self._stop_code
                raise
            finally:
                if self._ended:
                    self._recv.detach(ended=True)
                else:
                    self._recv.stop(code)
                await self._salvage()
                for number in list(self._open):
                    await self._close(number)

    async def run(self) -> None:
        await self._expect()
        while not (self._all_expected and not self._open):
            await self._news()
            await self._take_reports()
        if not self._ended:
            try:
                async with asyncio.timeout(END_GRACE):
                    while not self._ended:
                        await self._wake.wait()
                        await self._take_reports()
            except TimeoutError:
                return  # everything is here; the stream is stopped on the way out

    async def _news(self) -> None:
        """Waits for reports, as long as the peer is worth it."""
        if self._patience is None:
            await self._wake.wait()
            return
        while not await self._patience.wait(self._wake):
            now = asyncio.get_running_loop().time()
            if not self._patience.is_enough(
                now, self._recv.taken, held=self._pace.was_held(self._recv)
            ):
                raise StalledError("the peer brings too little data")

    async def _expect(self) -> None:
        """Tells the receiver what comes next, as far as it is known."""
        if self._all_expected:
            return
        items = self._response.take(AHEAD - len(self._open))
        if items:
            await self._announce(items)
        elif not self._open and not self._response.needs_children:
            self._all_expected = True
            self._receiver.finish()
        self._store.worker.touched()

    async def _announce(self, items: Sequence[Item]) -> None:
        wholes = await self._are_wholes(items)
        for whole, run in groupby(zip(items, wholes, strict=True), key=itemgetter(1)):
            parts = []
            hashes = []
            for item, _ in run:
                writer = None if whole else await self._writer(item.hash)
                self._open[self._count] = Arrival(item), writer
                self._count += 1
                hashes.append(bytes(item.hash))
                if writer is not None:
                    parts.append((hashes[-1], item.ranges.boundaries, writer.handle))
            if whole:
                self._receiver.expect_whole(hashes)
            else:
                self._receiver.expect(parts)

    async def _are_wholes(self, items: Sequence[Item]) -> list[bool]:
        """For each item whether to take it as a whole: all of a small blob, of which nothing is here.

        One that turns out not to be small is not lost, but costs more than it would have.
        """
        expected = [item.ranges.is_all and self._may_be_small(item) for item in items]
        if self._are_missing or not any(expected):
            return expected
        statuses = await self._store.statuses([item.hash for item in items])
        return [
            may_be and (status.state is BlobState.MISSING or item.hash == Hash.EMPTY)
            for item, may_be, status in zip(items, expected, statuses, strict=True)
        ]

    def _may_be_small(self, item: Item) -> bool:
        size = self._sizes.get(item.index)
        return self._are_small if size is None else size <= GROUP_SIZE

    async def _writer(self, hash: Hash) -> BlobWriter | _Nowhere:
        # The store is asked once: a blob may become complete between two questions.
        [writer] = await self._store.writers((hash,), max_size=self._max_size)
        if writer is not None:
            return writer
        if self._again is Again.STOP:
            raise _Superseded
        return _Nowhere(hash, self._max_size)

    async def _take_reports(self) -> None:
        self._wake.clear()
        for report in self._receiver.poll():
            match report:
                case ("size", number, size):
                    self._arrival(number).size = size
                case ("whole", number, data):
                    await self._whole(number, data)
                case ("wanted", number, size):
                    await self._wanted(number, size)
                case ("progress", number, verified):
                    arrival, writer = self._open[number]
                    arrival.verified = verified
                    if writer is not None:
                        writer.advanced()
                    self._on_arrival(arrival)
                case ("done", number):
                    await self._done(number)
                case ("error", number, kind, detail):
                    self._fail(number, kind, detail)
                case ("end", _trailing):
                    self._ended = True
        if len(self._open) <= AHEAD // 2:
            await self._expect()

    def _arrival(self, number: int) -> Arrival:
        return self._open[number][0]

    async def _done(self, number: int) -> None:
        arrival = self._arrival(number)
        await self._close(number)
        await self._arrived(arrival)

    async def _whole(self, first: int, data: Sequence[bytes]) -> None:
        """All of some small blobs has come."""
        arrivals = [self._open.pop(number)[0] for number in range(first, first + len(data))]
        self._verified += zip((arrival.item.hash for arrival in arrivals), data, strict=True)
        await self._store.put_verified(self._verified)
        self._verified = []
        for arrival, content in zip(arrivals, data, strict=True):
            arrival.size = arrival.verified = len(content)
            await self._arrived(arrival)

    async def _wanted(self, number: int, size: int) -> None:
        """The blob that comes next is not small: it needs a place."""
        arrival = self._arrival(number)
        arrival.size = size
        writer = await self._writer(arrival.item.hash)
        self._open[number] = arrival, writer
        self._receiver.provide(writer.handle)
        self._store.worker.touched()

    async def _salvage(self) -> None:
        """Small blobs that the receiver has verified are not lost when the transfer ends early."""
        for report in self._receiver.poll():
            if report[0] == "whole":
                for number, data in enumerate(report[2], report[1]):
                    self._verified.append((self._arrival(number).item.hash, data))
        if self._verified:
            # The store says what is wrong with it to whoever writes next.
            with contextlib.suppress(OSError):
                await self._store.put_verified(self._verified)

    async def _arrived(self, arrival: Arrival) -> None:
        arrival.is_done = True
        if arrival.item.index:  # the sequence itself says nothing of its children
            self._are_small = (arrival.size or 0) <= GROUP_SIZE
        self._on_arrival(arrival)
        if arrival.item.index == 0 and self._response.needs_children:
            await self._learn(await read_hash_seq(self._store, arrival.item.hash))

    async def _learn(self, children: HashSeq) -> None:
        """The children of the hash sequence that has arrived, which were asked for unseen."""
        if self._again is Again.STOP:
            if await self._is_known(children):
                raise _Superseded
            self._are_missing = True
        self._response.learn(children)

    async def _is_known(self, children: HashSeq) -> bool:
        """Whether a part of the children is here, or one comes twice."""
        seen: set[bytes] = set()
        count = 0
        for start in range(0, len(children), PAGE):
            page = [children[at] for at in range(start, min(start + PAGE, len(children)))]
            named = [hash for hash in page if hash != Hash.EMPTY]
            count += len(named)
            seen.update(map(bytes, named))
            if len(seen) < count or any(s.present for s in await self._store.statuses(named)):
                return True
            await asyncio.sleep(0)
        return False

    async def _close(self, number: int) -> None:
        _, writer = self._open.pop(number)
        if writer is not None:
            await writer.__aexit__(None, None, None)

    def _fail(self, number: int, kind: str, detail: Any) -> None:
        if kind in STOPPED:
            self._ended = True
        opened = self._open.get(number)
        hash = opened[0].item.hash if opened else Hash.EMPTY
        raise from_report(hash, kind, detail, self._recv.connection.close_reason)


STOPPED: Final = frozenset(("reset", "lost", "missing_header", "missing_item", "truncated"))
"""Reports after which the stream has nothing left to stop."""
