"""What is measured once, not in rounds: memory and processor time with many connections held."""

from __future__ import annotations

import time

from benchmarks.peers import Pair


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


def steps_and_gaps() -> tuple[float, float]:
    """Our own: p99 of a native step and of the loop's gaps during bulk, in milliseconds.

    Steps are counted in classes of powers of two; the upper end of the class is given.
    """
    with Pair("aioiroh") as pair:
        before = pair.client("step_times")["classes"]
        answer = pair.client("bench_bulk", conn=pair.conn, bytes=1 << 30, down=True, gaps=True)
        after = pair.client("step_times")["classes"]
    counts = [b - a for a, b in zip(before, after, strict=True)]
    seen, step = 0, 0.0
    for index, count in enumerate(counts):
        seen += count
        if seen >= sum(counts) * 0.99:
            step = 2**index / 1000
            break
    return step, float(answer["gap_p99"]) * 1000
