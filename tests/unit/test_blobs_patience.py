"""When a peer that moves little is given up."""

from __future__ import annotations

from itertools import pairwise

import pytest

from aioiroh.blobs.transfer.patience import Patience


def judge(amounts: list[int], *, rate: float, held: frozenset[int] = frozenset()) -> int | None:
    """How many windows of 10 s a peer is kept that moves these amounts, one in each; None: all."""
    patience = Patience(10, rate, now=0)
    total = 0
    for number, amount in enumerate(amounts):
        total += amount
        assert patience.due == 10 * (number + 1)
        if not patience.is_enough(patience.due, total, held=number in held):
            return number
    return None


@pytest.mark.parametrize(
    ("amounts", "rate", "kept"),
    [
        ([1] * 20, 0, None),
        ([1, 1, 0], 0, 2),
        ([1000] * 50, 100, None),
        # The first window is a gift.
        ([900] * 50, 100, 10),
        ([1] * 20, 100, 1),
        # What came at once counts for later.
        ([10_000, *[1] * 20], 100, 11),
        ([1, 2000, 1, 2000, 1, 2000], 100, None),
    ],
)
def test_what_is_enough(amounts: list[int], rate: float, kept: int | None) -> None:
    assert judge(amounts, rate=rate) == kept


def test_what_we_hold_up_does_not_count() -> None:
    amounts = [1000, 0, 0, 0, 1000, 1000]
    assert judge(amounts, rate=100) == 1
    assert judge(amounts, rate=100, held=frozenset((1, 2, 3))) is None
    assert judge([1000, *[1] * 9, 0], rate=100, held=frozenset(range(1, 10))) == 10


def test_a_trickle_ends_whatever_its_size() -> None:
    kept = [judge([amount] * 100_000, rate=1000) for amount in (1, 100, 5000, 9000)]
    assert all(kept is not None for kept in kept)
    assert all(a <= b for a, b in pairwise(kept))  # type: ignore[operator]
