"""`python -m benchmarks [--rounds N] [--only KEY…] [--quick]`: measure, and write README.md."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from benchmarks import blobs, once
from benchmarks.measures import MEASURES, udp_floor
from benchmarks.peers import Pair
from benchmarks.table import render


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="*", help="keys of measures")
    parser.add_argument(
        "--quick", action="store_true", help="rounds only, and print instead of write"
    )
    arguments = parser.parse_args()
    measures = [m for m in MEASURES if not arguments.only or m.key in arguments.only]
    rounds: dict[str, dict[str, list[float]]] = {m.key: {k: [] for k in m.kinds} for m in measures}
    floors: list[float] = []
    with contextlib.ExitStack() as stack:
        kinds = dict.fromkeys(kind for measure in measures for kind in measure.kinds)
        pairs = {kind: stack.enter_context(Pair(kind)) for kind in kinds}
        for number in range(arguments.rounds):
            floors.append(udp_floor())
            for measure in measures:
                # Another order each round, so that nobody always runs after the same neighbour.
                order = (
                    measure.kinds[number % len(measure.kinds) :]
                    + measure.kinds[: number % len(measure.kinds)]
                )
                for kind in order:
                    rounds[measure.key][kind].append(measure.value(pairs[kind]))
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
    extra: list[str] = [] if arguments.quick else [*held(), *blobs.rows(arguments.rounds)]
    text = render(measures, rounds, floors, extra)
    if arguments.quick:
        print(text)
    else:
        Path(__file__).with_name("README.md").write_text(text)
    return 0


def held() -> list[str]:
    """The measures with many connections, as lines of the page."""
    lines = ["| held connections | aioiroh | native | reach |", "|---|---|---|---|"]
    ours, native = once.memory_per_connection("aioiroh"), once.memory_per_connection("rust")
    lines.append(
        "| memory per idle connection, client and server (KiB, slope 500 → 2,000) | "
        f"{ours[0]:.0f} and {ours[1]:.0f} | {native[0]:.0f} and {native[1]:.0f} | ≤ 66 |"
    )
    for kinds in [("aioiroh", "rust")]:
        few = [once.cpu_per_connection(kind, 100) for kind in kinds]
        many = [once.cpu_per_connection(kind, 10_000) for kind in kinds]
        growth = [b / a for a, b in zip(few, many, strict=True)]
        lines.append(
            "| CPU per new connection, 100 held → 10,000 held (ms, both ends) | "
            f"{few[0]:.2f} → {many[0]:.2f} (× {growth[0]:.2f}) | "
            f"{few[1]:.2f} → {many[1]:.2f} (× {growth[1]:.2f}) | ≤ × 1.5 |"
        )
    step, gap = once.steps_and_gaps()
    lines.append(
        f"| native step during bulk, p99 (ms, upper end of its class) | {step:.2f} | – | ≤ 0.3 |"
    )
    lines.append(f"| loop gap during bulk, p99 (ms) | {gap:.2f} | – | ≤ 1 |")
    return [*lines, ""]


if __name__ == "__main__":
    sys.exit(main())
