"""The rows of a page, each made within a time of its own: what does not end says so, the rest goes on."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec

from benchmarks.peers import PeerFailed

P = ParamSpec("P")


class Late(Exception):
    """A measurement did not end in its time."""


@contextlib.contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Late unless the block ends within `seconds`; not to be nested."""

    def ring(*_: object) -> None:
        raise Late(f"not finished within {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def within(seconds: float, cell: Callable[P, str], *args: P.args, **kwargs: P.kwargs) -> str:
    """What `cell` gives, or that it did not end within `seconds`."""
    try:
        with limit(seconds):
            return cell(*args, **kwargs)
    except Late as late:
        return str(late)


@dataclass(frozen=True)
class Plan:
    """How much is measured: rounds at most, everything smaller if `quick`, and where files go."""

    rounds: int
    quick: bool
    folder: Path

    def size(self, full: int, quick: int) -> int:
        """How big something is this time."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Step:
    """A row: `cells` measures and gives what stands behind the title, within a limit of its own.

    `on_request`: it takes so long that it is only measured if its key is given.
    """

    key: str
    title: str
    cells: Callable[[Plan], Sequence[str]]
    on_request: bool = False


@dataclass(frozen=True)
class Section:
    """A table: the heads of its columns, and its rows."""

    head: tuple[str, ...]
    steps: tuple[Step, ...]

    def lines(self, plan: Plan, only: Sequence[str]) -> list[str]:
        """Measures, and gives the table in Markdown; with `only`, the rows with those keys."""
        steps = [step for step in self.steps if step.key in only or not (only or step.on_request)]
        if not steps:
            return []
        lines = [row(self.head), row(["---"] * len(self.head))]
        for step in steps:
            started = time.monotonic()
            try:
                cells = list(step.cells(plan))
            except (Late, PeerFailed, OSError, subprocess.SubprocessError) as error:
                print(f"{step.key}: {error!r}", file=sys.stderr, flush=True)
                cells = [str(error) if isinstance(error, Late) else "failed"]
            cells += ["–"] * (len(self.head) - 1 - len(cells))
            lines.append(row([step.title, *cells]))
            took = time.monotonic() - started
            print(f"{step.key}: {took:.0f} s", file=sys.stderr, flush=True)
        return [*lines, ""]


def row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def rotated(kinds: Sequence[str], number: int) -> Sequence[str]:
    """Another order each round, so that nobody always runs after the same neighbour."""
    shift = number % (len(kinds) or 1)
    return [*kinds[shift:], *kinds[:shift]]


def interleaved(
    kinds: Sequence[str], rounds: int, seconds: float, one: Callable[[str], float]
) -> dict[str, list[float]]:
    """One value per kind and round; ends early, with whole rounds, when `seconds` are not enough.

    Late if there was not time for a single round.
    """
    values: dict[str, list[float]] = {kind: [] for kind in kinds}
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        stack.enter_context(limit(seconds))
        for number in range(rounds):
            try:
                found = {kind: one(kind) for kind in rotated(kinds, number)}
            except Late:
                if number == 0:
                    raise
                break
            for kind, value in found.items():
                values[kind].append(value)
            if (time.monotonic() - started) * (number + 2) > seconds * (number + 1):
                break
    return values
