"""A measurement that does not end, or fails, costs its own row and nothing else."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.peers import PeerFailed
from benchmarks.steps import Late, Plan, Section, Step, interleaved, limit, within

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "setitimer") or sys.platform == "win32", reason="platform: no timers"
)

PLAN = Plan(rounds=3, quick=False, folder=Path())


def for_ever(_plan: Plan | None = None) -> Sequence[str]:
    signal.pause()
    signal.pause()
    return ["never"]


def test_a_late_block_is_ended() -> None:
    with pytest.raises(Late, match="not finished within 0 s"), limit(0.01):
        for_ever()
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_late_cell_says_so() -> None:
    assert within(0.01, lambda: str(for_ever())) == "not finished within 0 s"
    assert within(5, "{}".format, 7) == "7"


def test_the_other_rows_go_on() -> None:
    def late(plan: Plan) -> Sequence[str]:
        with limit(0.01):
            return for_ever(plan)

    def failing(_plan: Plan) -> Sequence[str]:
        raise PeerFailed("bind: no")

    section = Section(
        ("what", "ours", "reach"),
        (
            Step("late", "A", late),
            Step("failing", "B", failing),
            Step("fine", "C", lambda plan: [str(plan.rounds), "≥ 1"]),
            Step("long", "D", lambda plan: ["1"], on_request=True),
        ),
    )
    assert section.lines(PLAN, [])[2:] == [
        "| A | not finished within 0 s | – |",
        "| B | failed | – |",
        "| C | 3 | ≥ 1 |",
        "",
    ]
    assert section.lines(PLAN, ["fine"])[2:] == ["| C | 3 | ≥ 1 |", ""]
    assert section.lines(PLAN, ["long"])[2:] == ["| D | 1 | – |", ""]
    assert section.lines(PLAN, ["of another table"]) == []


def test_rounds_begin_with_another_kind_each() -> None:
    order: list[str] = []

    def one(kind: str) -> float:
        order.append(kind)
        return float(len(order))

    values = interleaved(("a", "b", "c"), 3, 60, one)
    assert "".join(order) == "abcbcacab"
    assert values == {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]}


def test_what_was_measured_in_time_counts() -> None:
    calls = 0

    def one(kind: str) -> float:
        nonlocal calls
        calls += 1
        if calls > 5:
            for_ever()
        return calls

    assert interleaved(("a", "b"), 9, 0.5, one) == {"a": [1, 4], "b": [2, 3]}


def test_without_a_whole_round_nothing_counts() -> None:
    with pytest.raises(Late):
        interleaved(("a", "b"), 9, 0.01, lambda kind: float(len(for_ever()) if kind == "b" else 1))
