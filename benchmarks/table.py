"""From rounds to a table: medians, and ratios pair by pair with the interval of their median."""

from __future__ import annotations

import platform
import random
import statistics
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import upstream

if TYPE_CHECKING:
    from benchmarks.endpoints import Found
    from benchmarks.measures import Measure


_METHOD = """\
Written by `make bench`. Both peers run on one machine, each in a process of its own, over loopback in a
network namespace where nothing else exists. Medians of interleaved rounds; ratios are ours to theirs, round by
round, with the 95 % interval of their median. Native is iroh 1.4.1 with iroh-blobs 0.104, built for release, on
either of tokio's runtimes: one thread, or several (tokio's default, so most programs').
The wheel is upstream's Python package. What did not end in its time says so."""


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


def render(found: Found, parts: Sequence[str]) -> str:
    """The text of README.md: the main table, and the lines of the others."""
    lines = ["# Benchmarks", "", _METHOD, "", _machine(found.floors), ""]
    if found.measures:
        lines += [
            f"Connections, {len(found.floors)} rounds:",
            "",
            "| measure | aioiroh | with uvloop | with busy_poll | native, one thread | native, several | wheel | aioquic | ours : one thread | ours : several | ours : wheel | reach |",
            "|---|---|---|---|---|---|---|---|---|---|---|---|",
            *(_row(measure, found.values[measure.key]) for measure in found.measures),
            "",
        ]
    limits = Path(__file__).with_name("limits.md").read_text()
    return "\n".join([*lines, *parts, limits])


def _row(measure: Measure, values: dict[str, list[float]]) -> str:
    """One measure. A kind that did not end in its time has no number."""
    medians = {kind: statistics.median(numbers) for kind, numbers in values.items()}
    cells = [f"{measure.title} ({measure.unit})"]
    for kind in ("aioiroh", "uvloop", "busy", "rust", "rust-multi", "wheel", "aioquic"):
        cells.append(number(medians[kind]) if kind in medians else "–")
    for kind in ("rust", "rust-multi", "wheel"):
        compared = "aioiroh" in values and kind in values
        cells.append(ratio(values["aioiroh"], values[kind]) if compared else "–")
    return "| " + " | ".join([*cells, measure.reach]) + " |"


def _machine(floors: Sequence[float]) -> str:
    system = f"{platform.system()} {platform.release()}, {_cpu()}"
    versions = ", ".join(
        f"{name} {version(name)}" for name in ("iroh", "aioquic", "magic-wormhole")
    )
    text = f"{system}, Python {platform.python_version()}; {versions}, sendme {upstream.CRATES['sendme']}."
    if floors:
        text += (
            f"\nA bare UDP round trip between two processes took {statistics.median(floors):.0f} µs "
            f"({min(floors):.0f}–{max(floors):.0f}) in the same minutes."
        )
    return text


def _cpu() -> str:
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    cores = subprocess.run(["nproc"], capture_output=True, text=True, check=True).stdout.strip()
    return f"{cores} × {model}"
