"""A model of providers and of a store, against which the core of a download runs."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from aioiroh.blobs.downloading.actions import (
    Action,
    Ask,
    Complete,
    Connect,
    End,
    Fail,
    Release,
    Stop,
)
from aioiroh.blobs.downloading.backlog import Part
from aioiroh.blobs.downloading.peers import Retries
from aioiroh.blobs.downloading.scheduler import MOST_CONNECTED, Scheduler
from aioiroh.blobs.ranges import ChunkRanges, chunk_count

MIB = 1 << 20
STEP = 0.05
ALL = ChunkRanges.all()
NOTHING = ChunkRanges.empty()
LAST = ChunkRanges.last_chunk()


def everything(size: int) -> ChunkRanges:
    return ChunkRanges.chunks(0, chunk_count(size))


@dataclass
class Provider:
    """How one behaves. `has`: what it has of some blobs; None: everything."""

    rate: float = 10 * MIB
    latency: float = 0.02
    has: dict[int, ChunkRanges] | None = None
    joins: float = 0.0
    dies: float = float("inf")
    lies_after: float = float("inf")
    busy_until: float = 0.0
    refuses: bool = False
    no_groups: bool = False
    old: bool = False
    silent: bool = False
    tells: bool = True
    sent: int = 0
    asked: int = 0
    banned: bool = False

    @property
    def is_good(self) -> bool:
        return not (
            self.refuses
            or self.silent
            or self.dies < float("inf")
            or self.lies_after < float("inf")
        )

    def owns(self, index: int) -> ChunkRanges:
        return ALL if self.has is None else self.has.get(index, NOTHING)


@dataclass
class Answer:
    """A request on its way."""

    provider: str
    parts: Sequence[Part]
    begins: float
    at: int = 0
    verified: int = 0
    announced: bool = False
    stopped: bool = False


@dataclass
class World:
    """Providers, a store, and the shell around the core; time goes in steps."""

    sizes: dict[int, int]
    providers: dict[str, Provider]
    retries: Retries = field(default_factory=Retries)
    present: dict[int, ChunkRanges] = field(default_factory=dict)
    now: float = 0.0
    answers: dict[int, Answer] = field(default_factory=dict)
    connected: dict[str, float] = field(default_factory=dict)
    connecting: dict[str, float] = field(default_factory=dict)
    outcome: str | None = None
    received: int = 0
    asks: list[Ask[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.core: Scheduler[str] = Scheduler(self.retries, random.Random(7).random, 0.0)

    # --- the store

    def missing(self, index: int, ranges: ChunkRanges) -> ChunkRanges:
        here = self.present.get(index, NOTHING)
        size = self.sizes[index]
        return ranges - here if not ranges.select(size) <= here else NOTHING

    def proved(self, index: int) -> bool:
        return chunk_count(self.sizes[index]) - 1 in self.present.get(index, NOTHING)

    @property
    def is_complete(self) -> bool:
        return all(
            everything(size) <= self.present.get(i, NOTHING) for i, size in self.sizes.items()
        )

    # --- the shell

    def want(self) -> None:
        whole = []
        for index, size in self.sizes.items():
            here = self.present.get(index, NOTHING)
            if index and not here:
                whole.append((index, index + 1))
            elif not everything(size) <= here:
                if self.proved(index):
                    self.core.want(self.now, index, everything(size) - here, size)
                else:
                    self.core.want(self.now, index, ALL - here, None)
        self.core.want_whole(self.now, whole)

    def run(self, seconds: float = 1000.0) -> str:
        self.want()
        joined: set[str] = set()
        while self.outcome is None and self.now < seconds:
            for name, provider in self.providers.items():
                if name not in joined and provider.joins <= self.now:
                    joined.add(name)
                    self.carry_out(self.core.add(self.now, name))
                    if len(joined) == len(self.providers):
                        self.carry_out(self.core.searched(self.now))
            if not self.providers:
                self.carry_out(self.core.searched(self.now))
            if self.core.wake <= self.now:
                self.carry_out(self.core.tick(self.now))
            self.now += STEP
            self.connections()
            for number in list(self.answers):
                self.progress(number)
        return self.outcome or "did not end"

    def carry_out(self, actions: Iterable[Action[str]]) -> None:
        queue = list(actions)
        while queue:
            match queue.pop(0):
                case Connect(name):
                    assert not self.providers[name].banned
                    assert name not in self.connecting and name not in self.connected
                    self.connecting[name] = self.now + 2 * self.providers[name].latency
                case Release(name):
                    self.connecting.pop(name, None)
                    self.connected.pop(name, None)
                case Ask(number, name, parts) as ask:
                    self.asks.append(ask)
                    self.check(name, parts)
                    self.providers[name].asked += 1
                    begins = self.now + self.providers[name].latency
                    self.answers[number] = Answer(name, parts, begins)
                case Stop(number):
                    if number in self.answers:
                        self.answers[number].stopped = True
                case Complete():
                    if self.is_complete:
                        self.outcome = "complete"
                    else:
                        self.want()
                        queue += self.core.tick(self.now)
                case Fail(reason):
                    self.outcome = reason

    def check(self, name: str, parts: Sequence[Part]) -> None:
        assert name in self.connected, "asked without a connection"
        assert not self.providers[name].banned, "asked a liar again"
        assert parts
        assert len(self.connected) + len(self.connecting) <= MOST_CONNECTED
        running = Counter(answer.provider for answer in self.answers.values())
        assert running[name] < 8
        for part in parts:
            assert part.ranges and part.index in self.sizes
            self.check_owners(part.index)

    def check_owners(self, index: int) -> None:
        """At most two requests at a time are to bring the same; but the last chunk proves the size."""
        once = twice = NOTHING
        but_the_last = ChunkRanges.chunks(0, chunk_count(self.sizes[index]) - 1)
        for number, answer in self.answers.items():
            for part in () if answer.stopped else self.core.parts(number):
                if part.index == index:
                    ranges = part.ranges & but_the_last
                    assert ranges.isdisjoint(twice), "three bring the same"
                    once, twice = once | ranges, twice | (once & ranges)

    def connections(self) -> None:
        for name, due in list(self.connecting.items()):
            if due > self.now:
                continue
            del self.connecting[name]
            if self.providers[name].dies <= self.now:
                self.carry_out(self.core.lost(self.now, name, "no answer"))
            else:
                self.connected[name] = self.now
                self.carry_out(self.core.connected(self.now, name))

    def end(self, number: int, end: End) -> None:
        answer = self.answers.pop(number)
        if end is End.LIED or (end is End.REFUSED and len(answer.parts) == 1):
            self.providers[answer.provider].banned = True
        left = []
        for part in self.core.parts(number):
            if self.core.lacks_size(part.index) and self.proved(part.index):
                self.core.proved(part.index, self.sizes[part.index])
            ranges = self.missing(part.index, part.ranges)
            if ranges:
                left.append(Part(part.index, ranges))
        has = None
        provider = self.providers[answer.provider]
        if end is End.LACKS and len(answer.parts) == 1 and provider.tells:
            has = provider.owns(answer.parts[0].index)
        self.carry_out(self.core.ended(self.now, number, end, end.name, left, has))

    # --- the network

    def progress(self, number: int) -> None:
        answer = self.answers.get(number)
        if answer is None or self.now < answer.begins:
            return
        provider = self.providers[answer.provider]
        if answer.stopped:
            return self.end(number, End.STOPPED)
        if provider.dies <= self.now:
            return self.end(number, End.LOST)
        if provider.silent:
            return None
        if provider.refuses or (provider.no_groups and len(answer.parts) > 1):
            return self.end(number, End.REFUSED)
        if provider.old and len(answer.parts) > 1:
            return self.end(number, End.LACKS)
        if self.now < provider.busy_until:
            return self.end(number, End.BUSY)
        running = sum(a.provider == answer.provider for a in self.answers.values())
        budget = int(provider.rate * STEP / running)
        while budget > 0 and number in self.answers:
            if answer.at == len(answer.parts):
                return self.end(number, End.DONE)
            budget -= self.deliver(number, answer, provider, budget)
        return None

    def deliver(self, number: int, answer: Answer, provider: Provider, budget: int) -> int:
        """Moves one answer on by at most about `budget` bytes; how many it took."""
        part = answer.parts[answer.at]
        size = self.sizes[part.index]
        ranges = part.ranges.select(size)
        if not ranges <= provider.owns(part.index):
            self.end(number, End.LACKS)
            return budget
        if provider.sent >= provider.lies_after:
            self.end(number, End.LIED)
            return budget
        if not answer.announced:
            answer.announced = True
            self.carry_out(self.core.arrived(self.now, number, answer.at, size, 0, False))
        total = ranges.byte_count(size)
        done = answer.verified // 1024
        chunks = max(1, min(budget, MIB) // 1024)
        now, _ = ranges.split(done)[1].split(chunks)
        here = self.present.get(part.index, NOTHING)
        self.present[part.index] = here | now
        more = now.byte_count(size)
        answer.verified += more
        self.received += more
        provider.sent += more
        finished = answer.verified >= total
        self.carry_out(
            self.core.arrived(self.now, number, answer.at, size, answer.verified, finished)
        )
        if finished:
            answer.at += 1
            answer.verified = 0
            answer.announced = False
        return more + 100


def good_holders(world: World) -> bool:
    """Whether honest providers that stay have everything among them."""
    for index, size in world.sizes.items():
        held = NOTHING
        for provider in world.providers.values():
            if provider.is_good:
                held |= provider.owns(index)
        if not everything(size) <= held:
            return False
    return True
