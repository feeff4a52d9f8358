"""What is measured once, not in rounds: memory and processor time with many connections held."""

from __future__ import annotations

import time

from benchmarks.peers import Pair
from benchmarks.steps import Plan, Section, Step, within

KINDS = ("aioiroh", "rust")


def memory_per_connection(kind: str) -> tuple[float, float]:
    """KiB per idle connection at the client and the server: the slope from 500 to 2,000 held."""
    with Pair(kind) as pair:
        pair.client("bench_connects", **pair.where, count=500, keep=True)
        time.sleep(2)
        before = pair.client.rss(), pair.server.rss()
        pair.client("bench_connects", **pair.where, count=1500, keep=True)
        time.sleep(2)
        after = pair.client.rss(), pair.server.rss()
    client, server = ((b - a) / 1500 / 1024 for a, b in zip(before, after, strict=True))
    return client, server


def cpu_per_connection(kind: str, held: int) -> float:
    """Milliseconds of processor time, both ends, for a new connection while `held` are open."""
    with Pair(kind) as pair:
        pair.client("bench_connects", **pair.where, count=held, keep=True)
        time.sleep(1)

        def used() -> float:
            return pair.client.cpu() + pair.server.cpu()

        # What the held ones cost meanwhile (keep-alives) is measured too, and taken off.
        started, before = time.monotonic(), used()
        time.sleep(3)
        idle = (used() - before) / (time.monotonic() - started)
        started, before = time.monotonic(), used()
        pair.client("bench_connects", **pair.where, count=400)
        spent = used() - before - idle * (time.monotonic() - started)
    return spent / 400 * 1000


def step_p99() -> float:
    """Our own: p99 of a native step during bulk, in milliseconds: the upper end of its class.

    Steps are counted in classes of powers of two.
    """
    with Pair("aioiroh") as pair:
        before = pair.client("step_times")["classes"]
        pair.client("bench_bulk", conn=pair.conn, bytes=1 << 30, down=True)
        after = pair.client("step_times")["classes"]
    counts = [b - a for a, b in zip(before, after, strict=True)]
    seen = 0
    for index, count in enumerate(counts):
        seen += count
        if seen >= sum(counts) * 0.99:
            return 2**index / 1000
    return 0.0


def gap_p99() -> float:
    """Our own: p99 of the loop's gaps during bulk, in milliseconds."""
    with Pair("aioiroh") as pair:
        pair.client("watch_gaps")
        pair.client("bench_bulk", conn=pair.conn, bytes=1 << 30, down=True)
        return float(pair.client("gaps")["p99"]) * 1000


# --- the table ----------------------------------------------------------------------------------


def _memory(_plan: Plan) -> list[str]:
    def cell(kind: str) -> str:
        return "{:.0f} and {:.0f}".format(*memory_per_connection(kind))

    return [*(within(60, cell, kind) for kind in KINDS), "≤ 66"]


def _cpu(plan: Plan) -> list[str]:
    # Upstream's needs minutes to get to 10,000.
    most = {"aioiroh": plan.size(10_000, 500), "rust": plan.size(2_000, 500)}

    def cell(kind: str) -> str:
        few, many = cpu_per_connection(kind, 100), cpu_per_connection(kind, most[kind])
        return f"{few:.2f}, with {most[kind]:,} held {many:.2f} (× {many / few:.2f})"

    return [*(within(120, cell, kind) for kind in KINDS), "≤ × 1.5"]


SECTION = Section(
    ("held connections", "aioiroh", "native", "reach"),
    (
        Step(
            "held_memory",
            "memory per idle connection, client and server (KiB, slope 500 → 2,000)",
            _memory,
        ),
        Step("held_cpu", "CPU per new connection with 100 held (ms, both ends)", _cpu),
        Step(
            "step",
            "native step during bulk, p99 (ms, upper end of its class)",
            lambda _plan: [within(30, lambda: f"{step_p99():.2f}"), "–", "≤ 0.3"],
        ),
        Step(
            "gap",
            "loop gap during bulk, p99 (ms)",
            lambda _plan: [within(30, lambda: f"{gap_p99():.2f}"), "–", "≤ 1"],
        ),
    ),
)
