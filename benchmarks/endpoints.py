"""The main table: every measure and kind in turn, round by round."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.measures import MEASURES, Measure, udp_floor
from benchmarks.peers import Pair, PeerFailed
from benchmarks.steps import Late, Plan, limit, rotated

SECONDS = 300
"""The time for all rounds; the rest of them is left out when it is over."""
ONE_SECONDS = 20
"""The time for one measure of one kind in one round."""


@dataclass
class Found:
    """One number per measure, kind and round, beside the bare UDP round trip of each round (µs)."""

    measures: list[Measure]
    values: dict[str, dict[str, list[float]]]
    floors: list[float] = field(default_factory=list)


class Pairs:
    """A connected pair of each kind, made when it is first asked for."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._pairs: dict[str, Pair] = {}

    def __getitem__(self, kind: str) -> Pair:
        if kind not in self._pairs:
            self._pairs[kind] = self._stack.enter_context(Pair(kind))
        return self._pairs[kind]

    def drop(self, kind: str) -> None:
        """Ends a pair that is late or has failed; the next one is new."""
        pair = self._pairs.pop(kind, None)
        if pair is not None:
            pair.__exit__()


def measure(plan: Plan, only: Sequence[str]) -> Found:
    """Measures those of the `only` keys, or all."""
    measures = [m for m in MEASURES if not only or m.key in only]
    found = Found(measures, {m.key: {k: [] for k in m.kinds} for m in measures})
    if not measures:
        return found
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        pairs = Pairs(stack)
        for number in range(plan.rounds):
            found.floors.append(udp_floor())
            for measure in measures:
                values = found.values[measure.key]
                for kind in rotated(list(values), number):
                    try:
                        with limit(ONE_SECONDS):
                            values[kind].append(measure.value(pairs[kind]))
                    except (Late, PeerFailed, OSError) as error:
                        print(f"{measure.key}, {kind}: {error}", file=sys.stderr, flush=True)
                        # It is not measured any more.
                        del values[kind]
                        pairs.drop(kind)
            print(f"round {number + 1} of {plan.rounds}", file=sys.stderr, flush=True)
            if (time.monotonic() - started) * (number + 2) > SECONDS * (number + 1):
                break
    return found
