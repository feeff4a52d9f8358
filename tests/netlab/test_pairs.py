"""Pairs behind every kind of NAT meet at upstream's relay, and go on without it where that is possible."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import pytest

from expected import BOTH_STRICT, MIXED, MIXED_BACK, OURS, Nats, Programs, direct
from lab import Lab
from nat import Nat
from pairs import ALL, Outcome, meet

PATIENCE = 30
"""Seconds for a direct path where one is expected."""
WITH_UPSTREAM: tuple[Nats, ...] = (
    (Nat.NONE, Nat.STRICT),
    (Nat.OPEN, Nat.MODERATE),
    (Nat.MODERATE, Nat.MODERATE),
    (Nat.STRICT, Nat.OPEN),
    (Nat.MODERATE, Nat.STRICT),
    (Nat.STRICT, Nat.STRICT),
)
CASES: tuple[tuple[Programs, Nats], ...] = (
    *((OURS, nats) for nats in ALL),
    *((programs, nats) for programs in (MIXED, MIXED_BACK) for nats in WITH_UPSTREAM),
)
WITH_IPV6: tuple[Programs, ...] = (OURS, MIXED, MIXED_BACK)
Outcomes = dict[tuple[Programs, Nats | None], Outcome]
"""None: the two NATs are strict, and both sides have IPv6 as well."""


async def _all_of_them(folder: Path) -> Outcomes:
    async with Lab(folder) as lab:
        # Side by side, as they mostly wait.
        running: dict[tuple[Programs, Nats | None], Awaitable[Outcome]] = {}
        for programs, nats in CASES:
            patience = PATIENCE if direct(programs, nats) else 0
            running[programs, nats] = meet(lab, programs, nats, patience)
        for programs in WITH_IPV6:
            running[programs, None] = meet(lab, programs, BOTH_STRICT, PATIENCE, ipv6=True)
        return dict(zip(running, await asyncio.gather(*running.values()), strict=True))


@pytest.fixture(scope="module")
def outcomes(upstream_is_built: None, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    return asyncio.run(_all_of_them(tmp_path_factory.mktemp("lab")))


@pytest.mark.parametrize(
    ("programs", "nats"),
    [
        pytest.param(*case, id="-".join([*case[0], *(nat.value for nat in case[1])]))
        for case in CASES
    ],
)
def test_pair(outcomes: Outcomes, programs: Programs, nats: Nats) -> None:
    outcome = outcomes[programs, nats]
    assert outcome.connected is not None, outcome.problem
    if direct(programs, nats):
        assert outcome.direct is not None, f"it stays on the relay: {outcome}"


@pytest.mark.parametrize("programs", WITH_IPV6, ids="-".join)
def test_pair_that_has_ipv6(outcomes: Outcomes, programs: Programs) -> None:
    outcome = outcomes[programs, None]
    assert outcome.connected is not None, outcome.problem
    assert outcome.direct is not None, f"it stays on the relay: {outcome}"
