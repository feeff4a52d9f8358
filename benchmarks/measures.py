"""What is measured. Each measure gives one number per round and kind."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.peers import Pair

MIB = 1 << 20


@dataclass(frozen=True)
class Measure:
    """One row of the table."""

    key: str
    title: str
    unit: str
    kinds: tuple[str, ...]
    reach: str

    def value(self, pair: Pair) -> float:
        """One round."""
        return globals()["measure_" + self.key](pair)


KINDS = ("aioiroh", "uvloop", "rust", "rust-multi", "wheel")

MEASURES = (
    Measure(
        "bulk",
        "one stream, bulk",
        "MiB/s",
        (*KINDS, "aioquic"),
        "≥ 1.0 × native, ≥ 80 × wheel",
    ),
    Measure(
        "request_quiet",
        "request on a new stream, one at a time, p50, quiet machine",
        "µs",
        (*KINDS, "busy", "aioquic"),
        "≤ 1.0 × native",
    ),
    Measure(
        "request_awake",
        "the same, cores kept awake",
        "µs",
        (*KINDS, "busy"),
        "≤ 2.0 × native",
    ),
    Measure(
        "requests",
        "requests, 50 in flight",
        "per s",
        (*KINDS, "aioquic"),
        "≥ 0.5 × native, ≥ 8 × wheel",
    ),
    Measure("connects", "new connections, one at a time", "per s", KINDS, "≥ 1.2 × native"),
    Measure(
        "connects_many",
        "new connections, 64 in flight",
        "per s",
        KINDS,
        "≥ 1.0 × one at a time",
    ),
)


def measure_bulk(pair: Pair) -> float:
    size = 6 * MIB if pair.kind == "wheel" else 32 * MIB if pair.kind == "aioquic" else 256 * MIB
    answer = pair.client("bench_bulk", conn=pair.conn, bytes=size, down=True)
    assert answer["bytes"] == size
    return size / MIB / float(answer["seconds"])


def measure_request_quiet(pair: Pair) -> float:
    time.sleep(0.2)
    return float(pair.client("bench_requests", conn=pair.conn, count=400)["p50"])


def measure_request_awake(pair: Pair) -> float:
    with cores_awake():
        return float(pair.client("bench_requests", conn=pair.conn, count=1000)["p50"])


def measure_requests(pair: Pair) -> float:
    count = 1000 if pair.kind in ("wheel", "aioquic") else 5000
    return count / float(
        pair.client("bench_requests", conn=pair.conn, count=count, in_flight=50)["seconds"]
    )


def measure_connects(pair: Pair) -> float:
    return 150 / float(pair.client("bench_connects", **pair.where, count=150)["seconds"])


def measure_connects_many(pair: Pair) -> float:
    return 256 / float(
        pair.client("bench_connects", **pair.where, count=256, in_flight=64)["seconds"]
    )


@contextlib.contextmanager
def cores_awake() -> Iterator[None]:
    """Keeps every core from sleeping, by work that gives way to any other."""
    code = "import os\nos.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\nwhile True: pass"
    spinners = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(os.cpu_count() or 1)]
    time.sleep(0.2)
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


def udp_floor(count: int = 1000) -> float:
    """Median round trip of a bare UDP datagram between two processes, in microseconds."""
    echo = (
        "import socket\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.bind(('127.0.0.1', 0))\n"
        "print(s.getsockname()[1], flush=True)\n"
        "while True:\n"
        "    data, addr = s.recvfrom(2048)\n"
        "    s.sendto(data, addr)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", echo], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("127.0.0.1", port))
            probe.settimeout(5)
            times = []
            for _ in range(count):
                started = time.perf_counter()
                probe.send(b"x" * 64)
                probe.recv(2048)
                times.append(time.perf_counter() - started)
        return sorted(times)[count // 2] * 1e6
    finally:
        process.kill()
        process.wait()
