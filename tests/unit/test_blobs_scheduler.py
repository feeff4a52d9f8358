"""The core of a download against a model of providers: what it asks of whom, and that it ends."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from provider_model import (
    ALL,
    MIB,
    NOTHING,
    Provider,
    World,
    everything,
    good_holders,
)

from aioiroh.blobs.downloading.actions import (
    Ask,
    Connect,
    Release,
)
from aioiroh.blobs.downloading.peers import PeerState, Rate, Retries
from aioiroh.blobs.downloading.scheduler import MOST_CONNECTED, MOST_PROVIDERS, Scheduler
from aioiroh.blobs.ranges import ChunkRanges, chunk_count


def test_one_provider_brings_a_blob() -> None:
    for size in (1, 1024, 5000, MIB, MIB + 1, 50 * MIB + 7):
        world = World({0: size}, {"a": Provider()})
        assert world.run() == "complete"
        # The last chunk may come twice: as the proof of the size and with the head.
        assert size <= world.received <= size + 1024


def test_four_providers_share_the_work() -> None:
    size = 256 * MIB
    world = World({0: size}, {name: Provider(rate=5 * MIB) for name in "abcd"})
    assert world.run() == "complete"
    assert world.now < 1.05 * size / (20 * MIB) + 0.5
    assert world.received < 1.02 * size
    shares = [provider.sent / size for provider in world.providers.values()]
    assert all(0.2 < share < 0.3 for share in shares)


def test_pieces_are_aligned() -> None:
    world = World({0: 300 * MIB}, {name: Provider(rate=30 * MIB) for name in "ab"})
    assert world.run() == "complete"
    whole = [part for ask in world.asks for part in ask.parts if not part.is_proof]
    aligned = 0
    for part in whole:
        start, end = part.ranges.boundaries[0], part.ranges.boundaries[-1]
        assert end - start <= 8 * 1024
        aligned += start % 1024 == 0
    assert aligned > 0.9 * len(whole)
    assert any(part.ranges.byte_count(1 << 40) == 8 * MIB for part in whole)


def test_a_slow_provider_does_not_hold_up_the_end() -> None:
    size = 64 * MIB
    world = World({0: size}, {"slow": Provider(rate=0.1 * MIB), "a": Provider(), "b": Provider()})
    assert world.run() == "complete"
    assert world.now < 1.3 * size / (20 * MIB) + 1.0
    assert world.received < 1.1 * size


def test_a_liar_is_never_asked_again_and_its_work_is_done_by_others() -> None:
    world = World({0: 64 * MIB}, {"liar": Provider(lies_after=3 * MIB), "a": Provider()})
    assert world.run() == "complete"
    report = {report.provider: report for report in world.core.reports(world.now)}
    assert report["liar"].state is PeerState.OUT
    # Also not when it is named again.
    world.core.add(world.now, "liar")
    assert world.core.reports(world.now)[0].state is PeerState.OUT


def test_one_that_dies_and_one_that_joins_later() -> None:
    world = World({0: 64 * MIB}, {"dying": Provider(dies=1.0), "late": Provider(joins=30.0)})
    assert world.run() == "complete"
    assert 33.0 < world.now < 40.0


def test_busy_is_asked_again_later() -> None:
    world = World({0: 8 * MIB}, {"busy": Provider(busy_until=2.0)})
    assert world.run() == "complete"
    assert world.providers["busy"].asked < 30
    world = World({0: 8 * MIB}, {"busy": Provider(busy_until=1e9)})
    assert world.run() == "no provider is left"
    assert world.core.reports(world.now)[0].reason == "BUSY"


def test_a_silent_one_is_dropped() -> None:
    world = World({0: 8 * MIB}, {"silent": Provider(silent=True), "a": Provider()})
    assert world.run() == "complete"
    assert world.now < 4.0
    world = World({0: 8 * MIB}, {"silent": Provider(silent=True)})
    assert world.run() in ("no provider is left", "nothing came for 60 s")


def test_nobody_has_it() -> None:
    world = World({0: 8 * MIB}, {name: Provider(has={}) for name in "ab"})
    assert world.run() == "no provider is left"
    assert all(r.reason == "it lacks what is missing" for r in world.core.reports(0))
    assert max(provider.asked for provider in world.providers.values()) < 50
    assert World({0: 8 * MIB}, {}).run() == "no provider is known"
    world = World({0: 8 * MIB}, {"late": Provider(joins=1e9)})
    assert world.run() == "nothing came for 60 s"


def test_parts_that_only_some_have() -> None:
    first, second = ChunkRanges.chunks(0, 20_000), ChunkRanges.chunks(20_000)
    size = 40_000 * 1024
    world = World({0: size}, {"a": Provider(has={0: first}), "b": Provider(has={0: second})})
    assert world.run() == "complete"
    assert world.received < 1.05 * size


def test_small_blobs_of_which_each_has_a_part() -> None:
    sizes = {index: 90_000 for index in range(1, 4)}
    first, second = ChunkRanges.chunks(0, 48), ChunkRanges.chunks(48)
    world = World(
        sizes,
        {
            "a": Provider(has={index: first for index in sizes}),
            "b": Provider(has={index: second for index in sizes}),
        },
    )
    assert world.run() == "complete"
    assert world.now < 60


def test_many_small_blobs_are_asked_for_together() -> None:
    sizes = {index: 1000 for index in range(1, 5001)}
    world = World(sizes, {name: Provider(rate=MIB) for name in "abc"})
    assert world.run() == "complete"
    assert len(world.asks) < 100
    assert world.received <= 1.05 * 5_000_000


def test_small_and_large_blobs_together() -> None:
    sizes = {index: 60 * MIB if index % 50 == 25 else 2000 for index in range(1, 151)}
    world = World(sizes, {name: Provider() for name in "abc"})
    assert world.run() == "complete"
    assert world.now < 1.2 * 180 / 30 + 1.0
    assert world.received < 1.05 * sum(sizes.values())


def test_each_provider_has_other_children() -> None:
    sizes = {index: 30_000 for index in range(1, 61)}
    world = World(
        sizes,
        {
            name: Provider(has={index: ALL for index in sizes if index % 3 == turn})
            for turn, name in enumerate("abc")
        },
    )
    assert world.run() == "complete"
    assert world.now < 30


def test_who_answers_no_groups_is_asked_one_by_one() -> None:
    sizes = {index: 30_000 for index in range(1, 61)}
    world = World(sizes, {"old": Provider(no_groups=True)})
    assert world.run() == "complete"
    assert world.now < 30


def test_who_knows_no_groups_is_seldom_asked_for_one() -> None:
    sizes = {index: 30_000 for index in range(1, 201)}
    world = World(sizes, {"old": Provider(old=True)})
    assert world.run() == "complete"
    assert len(world.asks) < 225


@pytest.mark.parametrize(
    "bad",
    [{"tries": 0}, {"first_delay": 0}, {"first_delay": 50}, {"patience": 0}, {"stall_time": 0}],
)
def test_retries_that_make_no_sense(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|wanted"):
        Retries(**bad)


def test_the_table_of_providers_is_bounded() -> None:
    core: Scheduler[int] = Scheduler(Retries(), random.random, 0.0)
    core.want(0.0, 0, ALL, None)
    connects = 0
    for number in range(1000):
        connects += sum(isinstance(action, Connect) for action in core.add(0.0, number))
    assert len(core.reports(0.0)) == MOST_PROVIDERS
    assert connects == MOST_CONNECTED


def test_what_is_held_back_here_is_not_the_providers_fault() -> None:
    core: Scheduler[str] = Scheduler(Retries(), random.random, 0.0)
    core.want(0.0, 0, ALL, None)
    core.add(0.0, "a")
    asked = [a for a in core.connected(0.1, "a") if isinstance(a, Ask)]
    assert len(asked) == 2
    for second in range(1, 200):
        for ask in asked:
            core.alive(float(second), ask.number)
        assert core.tick(float(second)) == []
    assert any(isinstance(action, Release) for action in core.tick(210.0))


def test_a_download_whose_turn_it_is_not_does_not_run_out_of_patience() -> None:
    core: Scheduler[str] = Scheduler(Retries(), random.random, 0.0)
    core.want(0.0, 0, ALL, None)
    core.add(0.0, "a")
    core.allotted(0.0, "a", 0)
    assert core.connected(0.1, "a") == []
    for second in range(1, 200):
        assert core.tick(float(second)) == []
    assert isinstance(core.allotted(200.0, "a", 1)[0], Ask)


def test_a_rate_follows_what_comes_and_sleeps_meanwhile() -> None:
    rate = Rate()
    assert rate.get(5.0) == 0.0
    rate.resume(10.0)
    for step in range(1, 11):
        rate.add(10 + step / 10, 100)
    assert rate.get(11.0) == pytest.approx(1000, rel=0.1)
    rate.pause(11.0)
    assert rate.get(100.0) == rate.get(11.0)
    rate.resume(100.0)
    assert rate.get(110.0) < 10


# --- at random ------------------------------------------------------------------------------------


@st.composite
def worlds(draw: st.DrawFn) -> World:
    chance = draw(st.randoms(use_true_random=False))
    count = draw(st.integers(1, 5))
    sizes: dict[int, int] = {}
    kind = draw(st.sampled_from(["blob", "many", "mixed"]))
    if kind == "blob":
        sizes[0] = draw(st.sampled_from([1, 1025, MIB, 3 * MIB + 5, 40 * MIB]))
    else:
        for index in range(1, draw(st.integers(1, 60)) + 1):
            large = kind == "mixed" and chance.random() < 0.1
            sizes[index] = (
                chance.choice([9 * MIB, 30 * MIB]) if large else chance.randrange(1, 90_000)
            )
    providers = {}
    for number in range(count):
        has: dict[int, ChunkRanges] | None = None
        if draw(st.booleans()):
            has = {}
            for index, size in sizes.items():
                middle = chance.randrange(chunk_count(size) + 1)
                has[index] = chance.choice(
                    [ALL, ALL, NOTHING, ChunkRanges.chunks(0, middle), ChunkRanges.chunks(middle)]
                )
        trouble: dict[str, Any] = draw(
            st.sampled_from(
                [
                    {},
                    {},
                    {},
                    {"lies_after": 2 * MIB},
                    {"lies_after": 0},
                    {"dies": 1.0},
                    {"busy_until": 3.0},
                    {"refuses": True},
                    {"no_groups": True},
                    {"old": True},
                    {"silent": True},
                    {"tells": False},
                    {"tells": False},
                    {"joins": 5.0},
                ]
            )
        )
        rate = draw(st.sampled_from([0.2 * MIB, 2 * MIB, 20 * MIB]))
        providers[f"p{number}"] = Provider(rate=rate, has=has, **trouble)
    present = {
        index: ChunkRanges.chunks(0, chance.randrange(1, chunk_count(size) + 1))
        for index, size in sizes.items()
        if chance.random() < 0.2
    }
    return World(sizes, providers, present=present)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(worlds())
def test_it_completes_if_it_can_and_ends_in_any_case(world: World) -> None:
    before = sum(
        (world.present.get(index, NOTHING) & everything(size)).byte_count(size)
        for index, size in world.sizes.items()
    )
    possible = good_holders(world)
    outcome = world.run(3000.0)
    assert outcome != "did not end"
    if possible:
        assert outcome == "complete"
    if outcome == "complete":
        wanted = sum(world.sizes.values()) - before
        # What is asked for twice, and what comes after a piece was cut, is little.
        assert world.received <= 1.5 * wanted + 20 * MIB
    assert len(world.asks) < 3000
    assert not world.core._fetches or outcome != "complete"
