"""What a download still has to ask for: nothing gets lost, nothing is given out twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aioiroh.blobs.downloading.backlog import SMALLEST_PIECE, Backlog, Part
from aioiroh.blobs.downloading.fetch import Fetch
from aioiroh.blobs.ranges import ChunkRanges

ALL, NOTHING, LAST = ChunkRanges.all(), ChunkRanges.empty(), ChunkRanges.last_chunk()
MIB = 1 << 20


def has_all(_index: int) -> ChunkRanges:
    return NOTHING


def test_runs_are_taken_from_the_front_and_put_back_at_the_end() -> None:
    backlog = Backlog()
    backlog.add_whole([(1, 4), (4, 4), (7, 9)])
    assert [part.index for part in backlog.take(MIB, 2, has_all)] == [1, 2]
    assert [part.index for part in backlog.take(MIB, 9, has_all)] == [3, 7, 8]
    assert not backlog and not backlog.take(MIB, 9, has_all)
    backlog.put_back([Part(2, ALL), Part(3, ALL), Part(1, ALL)])
    assert [part.index for part in backlog.take(MIB, 9, has_all)] == [2, 3, 1]


def test_what_a_provider_lacks_stays_for_others() -> None:
    backlog = Backlog()
    backlog.add_whole([(1, 6)])

    def lacks(index: int) -> ChunkRanges:
        return ALL if index in (1, 3) else NOTHING

    assert [part.index for part in backlog.take(MIB, 2, lacks)] == [2, 4]
    assert [part.index for part in backlog.take(MIB, 9, lacks)] == [5]
    assert backlog and not backlog.has_for(lacks) and backlog.has_for(has_all)
    assert [part.index for part in backlog.take(MIB, 9, has_all)] == [1, 3]


def test_nothing_is_cut_before_the_size_is_proved() -> None:
    backlog = Backlog()
    backlog.divide(0, ALL, None)
    proof, head = backlog.take(MIB, 1, has_all), backlog.take(MIB, 1, has_all)
    assert proof == (Part(0, LAST),) and head == (Part(0, ChunkRanges((0, 1024))),)
    assert backlog and not backlog.has_for(has_all) and not backlog.take(MIB, 1, has_all)
    backlog.prove(0, 3 * MIB + 5)
    # The last chunk came with the proof.
    pieces = [backlog.take(MIB, 1, has_all)[0].ranges.boundaries for _ in range(2)]
    assert pieces == [(1024, 2048), (2048, 3072)]
    assert not backlog
    backlog.put_back([Part(0, ChunkRanges((1500,)))])
    assert backlog.take(MIB, 1, has_all) == (Part(0, ChunkRanges((1500, 2048))),)


def test_a_proof_that_did_not_come_is_asked_for_again() -> None:
    backlog = Backlog()
    backlog.divide(0, ALL, None)
    backlog.put_back(backlog.take(MIB, 1, has_all))
    assert backlog.take(MIB, 1, has_all)[0].is_proof


@given(
    st.integers(1, 20 * MIB),
    st.lists(st.tuples(st.sampled_from([1, 2, 8]), st.integers(0, 1 << 14), st.booleans())),
)
def test_pieces_cover_a_blob_exactly(size: int, steps: list[tuple[int, int, bool]]) -> None:
    """Whatever is taken, given back in part, or cut, each chunk is given out or still to be had."""
    backlog = Backlog()
    everything = ALL.select(size)
    backlog.divide(3, everything, size)
    out = NOTHING
    for number, (piece, chunks, cut) in enumerate(steps):
        for part in backlog.take(piece * SMALLEST_PIECE, 1, has_all):
            assert part.ranges.isdisjoint(out) and part.ranges <= everything
            fetch: Fetch[str] = Fetch(number, "a", [part], 0.0)
            verified = part.ranges.split(chunks)[0].byte_count(size)
            fetch.arrived(
                1.0,
                0,
                size,
                verified,
            )
            if cut:
                given_away = fetch.cut_ranges(chunks + 20)
                assert fetch.is_cut == bool(given_away)
                backlog.put_back(given_away)
            backlog.put_back(fetch.remaining)
            out |= part.ranges.split(chunks)[0]
    left = NOTHING
    while parts := backlog.take(SMALLEST_PIECE, 1, has_all):
        for part in parts:
            assert part.ranges.isdisjoint(left)
            left |= part.ranges
    assert left.isdisjoint(out) and left | out == everything


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 7), st.sets(st.integers(0, 40)))))
def test_small_blobs_are_given_out_once(steps: list[tuple[bool, int, set[int]]]) -> None:
    backlog = Backlog()
    backlog.add_whole([(1, 20), (25, 40)])
    inside = {*range(1, 20), *range(25, 40)}
    outside: set[int] = set()
    for give_back, count, lacking in steps:
        if give_back:
            returned = outside & lacking
            backlog.put_back(Part(index, ALL) for index in returned)
            outside -= returned
            continue

        def lacks(index: int, lacking: set[int] = lacking) -> ChunkRanges:
            return ALL if index in lacking else NOTHING

        taken = {part.index for part in backlog.take(MIB, count, lacks)}
        assert taken.isdisjoint(outside) and taken <= inside - lacking
        assert len(taken) == min(count, len(inside - outside - lacking))
        outside |= taken
    assert {p.index for p in backlog.take(MIB, 100, has_all)} == inside - outside


def test_a_request_knows_what_is_still_to_come() -> None:
    parts = [Part(1, ALL), Part(2, ALL), Part(3, ALL)]
    fetch: Fetch[str] = Fetch(1, "a", parts, 0.0)
    assert fetch.arrived(1.0, 0, 5000, 2048) == 2048
    assert fetch.remaining == (Part(1, ChunkRanges((2,))), *parts[1:])
    assert fetch.bytes_left(1000) == 5000 - 2048 + 2000
    assert fetch.arrived(2.0, 0, 5000, 1024) == 0
    assert fetch.cut_blobs(2) == (Part(3, ALL),)
    fetch.arrived(3.0, 2, None, 0)
    assert fetch.is_over
