"""How downloads share providers, and what a download counts."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioiroh.blobs import BlobStatus, ChunkRanges
from aioiroh.blobs.downloading.backlog import Part
from aioiroh.blobs.downloading.count import Count
from aioiroh.blobs.downloading.distinct import Distinct
from aioiroh.blobs.downloading.shares import EACH, Shares
from aioiroh.blobs.downloading.turns import Turns
from aioiroh.blobs.store.interface import BlobState

ALL = ChunkRanges.all()


class Told:
    """Notes what each download was told."""

    def __init__(self) -> None:
        self.now: dict[tuple[str, str], int] = {}

    def of(self, download: str):
        def told(provider: str, requests: int) -> None:
            self.now[provider, download] = requests

        return told


def test_the_highest_priority_has_a_provider_for_itself() -> None:
    shares: Shares[str] = Shares(100)
    told = Told()
    leave_low = shares.join("p", 0, told.of("low"))
    assert told.now == {("p", "low"): EACH}
    leave_high = shares.join("p", 5, told.of("high"))
    shares.join("q", 0, told.of("low"))
    assert told.now == {("p", "low"): 0, ("p", "high"): EACH, ("q", "low"): EACH}
    other = shares.join("p", 5, told.of("other"))
    assert told.now["p", "high"] == told.now["p", "other"] == EACH // 2
    leave_high()
    leave_high()
    other()
    assert told.now["p", "low"] == EACH
    leave_low()
    assert len(shares) == 1


@given(
    st.lists(st.tuples(st.integers(0, 30), st.sampled_from("pqr"), st.integers(0, 2)), max_size=60),
    st.integers(1, 40),
)
def test_no_more_than_there_is_and_somebody_always(
    steps: list[tuple[int, str, int]], total: int
) -> None:
    shares: Shares[str] = Shares(total)
    told: dict[tuple[str, int], int] = {}
    members: dict[int, tuple[str, int, object]] = {}

    def joins(number: int, provider: str, priority: int):
        def on_share(where: str, requests: int) -> None:
            assert where == provider
            told[provider, number] = requests
            assert sum(told.values()) <= total

        members[number] = provider, priority, shares.join(provider, priority, on_share)

    for number, provider, priority in steps:
        if number in members:
            where, _, leave = members.pop(number)
            told.pop((where, number), None)
            leave()  # type: ignore[operator]
        else:
            joins(number, provider, priority)
        assert len(told) == len(members)
        highest: defaultdict[str, int] = defaultdict(lambda: -1)
        for where, level, _ in members.values():
            highest[where] = max(highest[where], level)
        per_provider: Counter[str] = Counter()
        for (where, which), requests in told.items():
            per_provider[where] += requests
            if members[which][1] < highest[where]:
                assert requests == 0
        if members:
            assert sum(told.values()) >= 1
        assert all(count <= max(EACH, len(members)) for count in per_provider.values())


def partial(size: int, *boundaries: int) -> BlobStatus:
    return BlobStatus(BlobState.PARTIAL, size, True, ChunkRanges(boundaries))


def test_counting_one_blob_from_two() -> None:
    count = Count()
    count.blobs = 1
    size = 100 * 1024
    assert count.totals() == (0, None, 0)
    a, b = Part(0, ChunkRanges((0, 50))), Part(0, ChunkRanges((50, 100)))
    count.arrived(1, a, size, 10 * 1024, False)
    count.arrived(2, b, size, 5 * 1024, False)
    assert count.totals() == (15 * 1024, size, 0)
    # One ends; what the store says includes what the other has brought so far.
    count.settle(0, partial(size, 0, 20, 50, 55))
    count.ended(1)
    assert count.totals() == (25 * 1024, size, 0)
    count.arrived(2, b, size, 50 * 1024, True)
    assert count.totals() == (70 * 1024, size, 0)
    count.ended(2)
    count.settle(0, BlobStatus.complete(size))
    count.settle(0, BlobStatus.complete(size))
    assert count.totals() == (size, size, 1)
    assert count.received == 60 * 1024


def test_counting_what_is_wanted_of_a_blob() -> None:
    count = Count()
    count.wants(0, ChunkRanges.chunks(10, 30))
    count.blobs = 1
    size = 100 * 1024
    count.settle(0, partial(size, 0, 15, 90, 95))
    assert count.totals() == (5 * 1024, 20 * 1024, 0)
    count.arrived(1, Part(0, ChunkRanges((15, 30))), size, 15 * 1024, True)
    assert count.totals() == (20 * 1024, 20 * 1024, 0)
    count.settle(0, partial(size, 0, 30, 90, 95))
    assert count.totals() == (20 * 1024, 20 * 1024, 1)


def test_counting_many() -> None:
    count = Count()
    count.blobs = 4
    for index in (1, 2, 3):
        assert count.totals()[1] is None
        count.arrived(7, Part(index, ALL), 10 * index, 10 * index, True)
        count.settle(index, BlobStatus.complete(10 * index))
    count.settle(0, BlobStatus.complete(96))
    assert count.totals() == (156, 156, 4)
    # What is asked for twice counts once, and only as received.
    count.arrived(8, Part(3, ALL), 30, 30, True)
    assert count.totals() == (156, 156, 4)
    assert count.received == 90


def test_more_is_never_here_than_there_is() -> None:
    count = Count()
    count.blobs = 1
    for number in (1, 2, 3):
        count.arrived(number, Part(0, ALL), 1000, 900, False)
    assert count.totals() == (1000, 1000, 0)


async def test_turns_by_priority_then_age() -> None:
    turns = Turns(2)
    order: list[str] = []
    release = asyncio.Event()

    async def user(name: str, priority: int) -> None:
        async with turns.turn(priority):
            order.append(name)
            await release.wait()

    names = {"a": 0, "b": 0, "low": -1, "first": 0, "high": 5, "second": 0, "gone": 9}
    tasks = {name: asyncio.create_task(user(name, level)) for name, level in names.items()}
    await asyncio.sleep(0)
    assert order == ["a", "b"]
    tasks["gone"].cancel()
    # One that is cancelled when it is its turn hands it on.
    tasks["a"].cancel()
    await asyncio.sleep(0)
    tasks["high"].cancel()
    release.set()
    await asyncio.wait(tasks.values())
    assert [name for name in order if name != "high"] == ["a", "b", "first", "second", "low"]
    assert turns._free == 2
    with pytest.raises(ValueError, match="at least one"):
        Turns(0)


async def test_distinct_hashes() -> None:
    distinct = Distinct()
    hashes = [bytes([n % 7, n % 3]) * 16 for n in range(100)]
    assert [hash for hash in hashes if distinct.add(hash)] == list(dict.fromkeys(hashes))
    assert len(distinct) == 21
    await distinct.clear()
    assert distinct.add(hashes[0])
