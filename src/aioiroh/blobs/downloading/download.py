"""One download: carries out what the core decides, over shared connections."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aioiroh.address import EndpointAddr
from aioiroh.aio import Job, Tasks, TokenBucket
from aioiroh.errors import AioirohError, EndpointClosedError

from ..errors import DownloadError, ProviderFailure
from ..getting.get import Got
from ..hash import HashAndFormat
from ..messages import ALPN
from ..rangeseq import ChunkRangesSeq
from ..transfer.pacing import Pace, Pacer
from ..transfer.receive import Arrival
from .actions import Action, Ask, Complete, Connect, End, Fail, Release, Stop
from .asking import ask, ask_what_is_there, end_of
from .backlog import Part
from .count import Count, DownloadProgress, ProviderProgress
from .inventory import Inventory, needed
from .scheduler import Scheduler

if TYPE_CHECKING:
    from aioiroh.address import Dialable
    from aioiroh.keys import EndpointId
    from aioiroh.pool import ConnectionPool
    from aioiroh.quic.connection import Connection
    from aioiroh.quic.receiving import RecvStream

    from ..store.interface import Store
    from .discovery import Discovery
    from .peers import Retries
    from .shares import Shares
    from .turns import Turns

__all__ = ["Download", "Resources"]

logger = logging.getLogger("aioiroh.blobs")

TELL_INTERVAL: Final = 0.05
"""Seconds between two values of the progress."""
MOST_FRUITLESS: Final = 3
"""Times in a row that everything was fetched, nothing came, and something is missing."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What the downloads of one downloader share. `id` is its own endpoint's, which is never asked."""

    id: EndpointId
    store: Store
    pool: ConnectionPool
    turns: Turns
    shares: Shares[EndpointId]
    pacer: Pacer
    limits: Sequence[TokenBucket]
    discoveries: Sequence[Discovery]
    retries: Retries
    random: Callable[[], float]


@dataclass(slots=True)
class _Link:
    """The connection to one provider, while it is needed."""

    task: asyncio.Task[None] | None = None
    connection: Connection | None = None


@dataclass(slots=True)
class _Request:
    """A request on its way."""

    task: asyncio.Task[None]
    # A task that is cancelled before it has begun would not tell the core of its end.
    is_begun: bool = False
    is_stopped: bool = False
    stream: RecvStream | None = None
    taken: int = 0


class Download(Job[Got, DownloadProgress]):
    """A download in progress; see `Downloader.download`.

    `await download` gives `Got`; `async for progress in download` gives the latest
    `DownloadProgress` from time to time, and raises what went wrong. Cancelling the task that does either
    cancels the download, leaving the iteration does not. As a context manager it is cancelled on the
    way out. What was verified stays in the store; another download continues there.

    Raises DownloadError, whose `failures` say what became of each provider; OSError if the store cannot be
    written; DecodeError if the content is to be a hash sequence and is none.
    """

    def __init__(
        self,
        resources: Resources,
        content: HashAndFormat,
        *,
        ranges: ChunkRangesSeq | None,
        priority: int,
        limits: Sequence[TokenBucket],
        max_blob_size: int,
    ) -> None:
        """Not for direct use; see `Downloader.download`."""
        super().__init__(
            f"download {content.hash.short()}", DownloadProgress(0, None, 0, None, received=0)
        )
        self.content: HashAndFormat = content
        self.priority: int = priority
        """Downloads with a higher one go first where they ask the same provider."""
        self._shared = resources
        self._pace = Pace(resources.pacer, (*limits, *resources.limits), priority)
        self._max_blob_size = max_blob_size
        self._loop = asyncio.get_running_loop()
        self._core: Scheduler[EndpointId] = Scheduler(
            resources.retries, resources.random, self._loop.time()
        )
        wanted = needed(content, ranges)
        self._count = Count()
        self._inventory = Inventory(resources.store, content, wanted, self._core, self._count)
        self._addrs: dict[EndpointId, EndpointAddr] = {}
        self._tasks = Tasks(f"download {content.hash.short()}", on_error=self._broke)
        self._links: dict[EndpointId, _Link] = {}
        self._requests: dict[int, _Request] = {}
        # Those that do not tell what they have.
        self._reticent: set[EndpointId] = set()
        self._search_errors: list[BaseException] = []
        # Set when the core has asked for a new plan, or something has failed for good.
        self._news = asyncio.Event()
        self._error: BaseException | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._tell_timer: asyncio.TimerHandle | None = None

    # --- for people -------------------------------------------------------------------------------

    @property
    def progress(self) -> DownloadProgress:
        """How far it is."""
        here, total, blobs = self._count.totals()
        providers = tuple(
            ProviderProgress(
                report.provider, report.state.value, report.rate, report.received, report.reason
            )
            for report in self._core.reports(self._loop.time())
        )
        received = self._count.received
        return DownloadProgress(here, total, blobs, self._count.blobs, received, providers)

    def add_provider(self, provider: Dialable) -> None:
        """One more provider: an id, an address, a ticket. One that was given up is asked again, unless it
        lied or refused. Does nothing once the download is over. Raises as `EndpointAddr.coerce`.
        """
        addr = EndpointAddr.coerce(provider)
        if addr.id == self._shared.id:
            return
        actions = self._core.add(self._now(), addr.id)
        if self._core.knows(addr.id):
            # What was said last counts, if it says where.
            self._addrs[addr.id] = addr if addr.addrs else self._addrs.get(addr.id, addr)
        self._carry_out(actions)

    # --- the work ---------------------------------------------------------------------------------

    async def _run(self) -> Got:
        with self._shared.store.hold(self.content):
            try:
                async with self._shared.turns.turn(self.priority), self._tasks:
                    await self._work()
            finally:
                self._end()
        return Got(self.content, self._count.received)

    async def _work(self) -> None:
        if not await self._inventory.plan(self._now):
            return
        self._tasks.spawn(self._search(), name="search")
        fruitless = 0
        while True:
            received = self._count.received
            self._carry_out(self._core.tick(self._now()))
            await self._news.wait()
            self._news.clear()
            if self._error is not None:
                raise self._error
            if not await self._inventory.plan(self._now):
                return
            fruitless = fruitless + 1 if received == self._count.received else 0
            if fruitless == MOST_FRUITLESS:
                raise self._failure("the store does not keep what arrives")

    def _end(self) -> None:
        for timer in (self._alarm, self._tell_timer):
            if timer is not None:
                timer.cancel()
        self._progress.set(self.progress)

    def _now(self) -> float:
        return self._loop.time()

    async def _search(self) -> None:
        """Asks everybody who may know providers."""
        async with asyncio.TaskGroup() as group:
            for discovery in self._shared.discoveries:
                group.create_task(self._search_with(discovery))
        self._carry_out(self._core.searched(self._now()))

    async def _search_with(self, discovery: Discovery) -> None:
        try:
            async for provider in discovery.find(self.content):
                self.add_provider(provider)
        except Exception as error:
            # One that fails does not keep the others from helping.
            logger.warning("looking for providers failed: %s", error, exc_info=error)
            self._search_errors.append(error)

    # --- what the core says -----------------------------------------------------------------------

    def _carry_out(self, actions: Iterable[Action[EndpointId]]) -> None:
        if self._tasks.closed or (self._task is not None and self._task.done()):
            return
        for action in actions:
            match action:
                case Connect(provider):
                    link = self._links[provider] = _Link()
                    link.task = self._tasks.spawn(self._hold(provider, link), name="provider")
                case Release(provider):
                    link = self._links.pop(provider, _Link())
                    if link.task is not None:
                        link.task.cancel()
                case Ask():
                    task = self._tasks.spawn(self._ask(action), name="request")
                    self._requests[action.number] = _Request(task)
                case Stop(number):
                    request = self._requests.get(number)
                    if request is not None and not request.is_stopped:
                        request.is_stopped = True
                        if request.is_begun:
                            request.task.cancel()
                case Complete():
                    self._news.set()
                case Fail(reason):
                    self._fail(self._failure(reason))
        self._set_alarm()

    def _set_alarm(self) -> None:
        due = self._core.wake
        if self._alarm is not None:
            # One that rings too early sets itself again.
            if self._alarm.when() <= due:
                return
            self._alarm.cancel()
            self._alarm = None
        if due < float("inf"):
            self._alarm = self._loop.call_at(due, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        try:
            self._time_has_passed(self._now())
        except Exception as error:  # noqa: BLE001 - kept and raised to whoever waits
            # There is no task that would tell: whoever waits for the download is told.
            self._fail(error)

    def _time_has_passed(self, now: float) -> None:
        for number, request in self._requests.items():
            stream = request.stream
            if stream is None:
                continue
            # Bytes are told of when many are verified, which may take a while over a slow link.
            taken, request.taken = request.taken, stream.taken
            if taken != request.taken or self._pace.was_held(stream):
                self._core.alive(now, number)
        self._carry_out(self._core.tick(now) if now >= self._core.wake else ())

    def _fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self._news.set()

    def _broke(self, task: asyncio.Task[object], error: BaseException) -> None:
        """One of our tasks failed in a way that is no provider's fault."""
        self._fail(error)

    def _failure(self, reason: str) -> DownloadError:
        failures = [
            ProviderFailure(report.provider, report.reason or "it was not asked")
            for report in self._core.reports(self._now())
        ]
        return DownloadError(self.content, reason, failures, self._search_errors)

    # --- providers --------------------------------------------------------------------------------

    async def _hold(self, provider: EndpointId, link: _Link) -> None:
        """Keeps a connection until it is released."""
        leave = None
        try:
            async with self._shared.pool.connection(self._addrs[provider], ALPN) as connection:
                link.connection = connection
                leave = self._shared.shares.join(provider, self.priority, self._allotted)
                self._carry_out(self._core.connected(self._now(), provider))
                await self._loop.create_future()
        except EndpointClosedError as error:
            self._fail(error)
        except AioirohError as error:
            self._carry_out(self._core.lost(self._now(), provider, str(error)))
        finally:
            if leave is not None:
                leave()

    def _allotted(self, provider: EndpointId, requests: int) -> None:
        self._carry_out(self._core.allotted(self._now(), provider, requests))

    # --- requests ---------------------------------------------------------------------------------

    async def _ask(self, action: Ask[EndpointId]) -> None:
        number, parts = action.number, action.parts
        request = self._requests[number]
        request.is_begun = True
        link = self._links.get(action.provider)
        end, reason = End.STOPPED, ""
        try:
            if link is not None and link.connection is not None and not request.is_stopped:
                end = await ask(
                    link.connection,
                    parts,
                    [self._inventory.hash(part.index) for part in parts],
                    self._shared.store,
                    max_size=self._max_blob_size,
                    pace=self._pace,
                    on_stream=lambda stream: setattr(request, "stream", stream),
                    on_arrival=lambda arrival: self._arrived(number, parts, arrival),
                )
        except asyncio.CancelledError:
            if not request.is_stopped or self._tasks.closed:
                raise
            request.task.uncancel()
        except AioirohError as error:
            end, reason = end_of(error), str(error)
        # From here on it is not to be cancelled: the core has to hear of its end.
        request.is_stopped = True
        has = None
        if end is End.LACKS and len(parts) == 1 and action.provider not in self._reticent:
            assert link is not None and link.connection is not None
            has = await ask_what_is_there(link.connection, self._inventory.hash(parts[0].index))
            if has is None:
                self._reticent.add(action.provider)
        left = await self._inventory.left(number)
        del self._requests[number]
        self._count.ended(number)
        self._carry_out(self._core.ended(self._now(), number, end, reason, left, has))

    def _arrived(self, number: int, parts: Sequence[Part], arrival: Arrival) -> None:
        at = arrival.item.index
        self._count.arrived(number, parts[at], arrival.size, arrival.verified, arrival.is_done)
        actions = self._core.arrived(
            self._now(), number, at, arrival.size, arrival.verified, arrival.is_done
        )
        if actions:
            self._carry_out(actions)
        if self._tell_timer is None:
            self._tell_timer = self._loop.call_later(TELL_INTERVAL, self._tell)

    def _tell(self) -> None:
        self._tell_timer = None
        self._progress.set(self.progress)
