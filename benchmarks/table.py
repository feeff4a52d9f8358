"""From rounds to a table: medians, and ratios pair by pair with the interval of their median."""

from __future__ import annotations

import platform
import random
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.measures import Measure

Rounds = Mapping[str, Mapping[str, Sequence[float]]]
"""Measure → kind → one number per round."""


_METHOD = """\
Written by `make bench`. Both peers run on one machine, over loopback, each in a process of its own.
Median of {count} interleaved rounds; ratios are ours to theirs, round by round, with the 95 % interval of
their median. Native is iroh 1.4.1 (release build, the faster of its two runtimes), the wheel is upstream's
Python package."""

_MACHINE = """\
{system}, Python {python}, iroh wheel {wheel}, aioquic {aioquic}. A bare UDP round trip between two processes
took {floor:.0f} µs ({low:.0f}–{high:.0f}) in the same minutes."""


def interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the median, by resampling (seeded: the same rounds give the same interval)."""
    generator = random.Random(1)
    medians = sorted(
        statistics.median(generator.choices(values, k=len(values))) for _ in range(2000)
    )
    return medians[50], medians[1949]


def ratio(ours: Sequence[float], other: Sequence[float]) -> str:
    """The median of the ratios of rounds that were measured next to each other."""
    ratios = [a / b for a, b in zip(ours, other, strict=True)]
    low, high = interval(ratios)
    return f"{statistics.median(ratios):.2f} ({low:.2f}–{high:.2f})"


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def native(measure: Measure, rounds: Rounds) -> str:
    """The faster of upstream's two runtimes."""
    pick = max if measure.better == "more" else min
    return pick(
        ("rust", "rust-multi"), key=lambda kind: statistics.median(rounds[measure.key][kind])
    )


def render(
    measures: Sequence[Measure], rounds: Rounds, floors: Sequence[float], extra: Sequence[str]
) -> str:
    """The text of README.md."""
    count = max(len(values) for kinds in rounds.values() for values in kinds.values())
    lines = [
        "# Benchmarks",
        "",
        _METHOD.format(count=count),
        "",
        _MACHINE.format(
            system=f"{platform.system()} {platform.release()}, {_cpu()}",
            python=platform.python_version(),
            wheel=version("iroh"),
            aioquic=version("aioquic"),
            floor=statistics.median(floors),
            low=min(floors),
            high=max(floors),
        ),
        "",
        "| measure | aioiroh | with uvloop | native | wheel | aioquic | ours : native | ours : wheel | reach |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for measure in measures:
        kinds = rounds[measure.key]
        best = native(measure, rounds)
        cells = [f"{measure.title} ({measure.unit})"]
        for kind in ("aioiroh", "uvloop", best, "wheel", "aioquic"):
            cells.append(number(statistics.median(kinds[kind])) if kind in kinds else "–")
        cells.append(ratio(kinds["aioiroh"], kinds[best]))
        cells.append(ratio(kinds["aioiroh"], kinds["wheel"]))
        cells.append(measure.reach)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *extra, ""])


def _cpu() -> str:
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    cores = subprocess.run(["nproc"], capture_output=True, text=True, check=True).stdout.strip()
    return f"{cores} × {model}"
