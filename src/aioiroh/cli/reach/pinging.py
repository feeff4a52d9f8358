"""`aioiroh ping`: ask a peer again and again, and show which way the answers come."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from math import inf

from aioiroh import Endpoint, EndpointAddr, RelayAddr, RelayUrl, SecretKey, ping
from aioiroh.quic import Connection

from ..display import Display
from ..failures import ExitCode, Failure
from ..relays import NONE_NAMED, RelayChoice
from ..run import Interrupts
from .ways import Way, milliseconds, way_of

__all__ = ["PingOptions", "ping_peer"]


@dataclass(frozen=True, slots=True)
class PingOptions:
    """What was typed. `count`: questions; None: until it is interrupted. Times are seconds."""

    target: EndpointAddr
    count: int | None = None
    interval: float = 1.0
    timeout: float = 10.0
    bind: tuple[str, ...] = ()
    relay: RelayChoice = NONE_NAMED
    secret: SecretKey | None = None

    @property
    def peer(self) -> EndpointAddr:
        """Who is asked, and where; an id alone is looked for at the named relays."""
        if self.target.addrs:
            return self.target
        return EndpointAddr(self.target.id, [RelayAddr(RelayUrl(url)) for url in self.relay.urls])


async def ping_peer(options: PingOptions, display: Display, interrupts: Interrupts) -> int:
    """Asks until there were enough questions or a person has seen enough."""
    tally = Tally()
    async with Endpoint.bind(
        secret_key=options.secret,
        bind=options.bind or None,
        **options.relay.or_else(options.target.relay_urls).binding,
    ) as endpoint:
        try:
            await _Pinger(endpoint, options, tally, display).run()
        except asyncio.CancelledError:
            if interrupts.received != signal.SIGINT or options.count is not None:
                raise
        finally:
            tally.tell(display)
    if not tally.answered:
        raise Failure("there was no answer", ExitCode.NO_CONNECTION)
    return ExitCode.OK


@dataclass(slots=True)
class Tally:
    """How many were asked, how many answered, and how long that took, in seconds."""

    asked: int = 0
    answered: int = 0
    least: float = inf
    most: float = 0.0
    total: float = 0.0
    way: Way | None = None
    """The way of late."""

    def add(self, seconds: float) -> None:
        """An answer."""
        self.answered += 1
        self.least = min(self.least, seconds)
        self.most = max(self.most, seconds)
        self.total += seconds

    def tell(self, display: Display) -> None:
        """The sum of it."""
        if not self.asked:
            return
        words = f"{self.answered} of {self.asked} answered"
        facts: dict[str, object] = {}
        if self.answered:
            average = self.total / self.answered
            words += (
                f"; least {milliseconds(self.least)}, average {milliseconds(average)}, most "
                f"{milliseconds(self.most)}; last {self.way}"
            )
            facts = {"least": self.least, "average": average, "most": self.most}
        display.note(words + ".")
        display.event("done", asked=self.asked, answered=self.answered, **facts)


class _Pinger:
    """One peer, and the connection to it that is watched."""

    def __init__(
        self, endpoint: Endpoint, options: PingOptions, tally: Tally, display: Display
    ) -> None:
        self._endpoint = endpoint
        self._options = options
        self._tally = tally
        self._display = display

    async def run(self) -> None:
        with self._display.bar(f"connecting to {self._options.target.id.short()}"):
            connection = await self._connect()
        async with connection:
            self._display.event(
                "connected",
                peer=str(connection.remote_id),
                repeated=connection.alpn == ping.REPEATED_ALPN,
            )
            watching = asyncio.create_task(self._watch(connection))
            try:
                await self._ask_again_and_again(connection)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)

    async def _connect(self) -> Connection:
        return await self._endpoint.connect(
            self._options.peer, alpn=list(ping.HANDLERS), timeout=self._options.timeout
        )

    async def _watch(self, connection: Connection) -> None:
        """Says which way the data take, whenever that changes."""
        async for paths in connection.paths:
            self._noticed(way_of(paths))

    def _noticed(self, way: Way | None) -> None:
        if way is None or way == self._tally.way:
            return
        self._display.note(f"{'Reached' if self._tally.way is None else 'Now'} {way}.")
        self._display.event("way", **way.facts)
        self._tally.way = way

    async def _ask_again_and_again(self, connection: Connection) -> None:
        options, tally = self._options, self._tally
        loop = asyncio.get_running_loop()
        due = loop.time()
        while options.count is None or tally.asked < options.count:
            await asyncio.sleep(due - loop.time())
            tally.asked += 1
            try:
                async with asyncio.timeout(options.timeout), self._asked(connection) as asked:
                    took = await ping.ping(asked)
            except TimeoutError:
                if connection.close_reason is not None:
                    raise
                self._display.result(f"{tally.asked}: no answer within {options.timeout:g} s")
                self._display.event("lost", number=tally.asked)
            else:
                self._answered(took, way_of(asked.paths.value))
            due = max(due + options.interval, loop.time())

    @contextlib.asynccontextmanager
    async def _asked(self, watched: Connection) -> AsyncIterator[Connection]:
        """The connection for the next question: upstream's server answers only one on each."""
        if watched.alpn == ping.REPEATED_ALPN or self._tally.asked == 1:
            yield watched
            return
        async with await self._connect() as another:
            yield another

    def _answered(self, seconds: float, way: Way | None) -> None:
        self._tally.add(seconds)
        self._noticed(way)
        self._display.result(f"{self._tally.asked}: {milliseconds(seconds)} {way}")
        facts = {} if way is None else way.facts
        self._display.event("answer", number=self._tally.asked, seconds=seconds, **facts)
