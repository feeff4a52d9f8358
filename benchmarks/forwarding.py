"""Relays: what forwarding costs them, what their idle clients weigh, how fast a stream goes through."""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from functools import partial
from statistics import median

from benchmarks.peers import Pair
from benchmarks.relay_load import FULL, SINGLE, SMALL, Load, RelayClient, run
from benchmarks.relays import Relay
from benchmarks.steps import Plan, Section, Step, interleaved, limit
from benchmarks.table import ratio

KINDS = ("aioiroh", "rust")
MIB = 1 << 20
RUNTIMES = {"rust": ("rust", "rust-multi")}
FLOWS = 4
FIRST_CLIENTS = 500


def _cost(plan: Plan, load: Load, frames: int, per: float) -> Sequence[str]:
    """Processor time of the relay alone, in seconds for `per` frames or bytes of content."""
    frames = plan.size(frames, frames // 10)

    def one(kind: str) -> float:
        with Relay(kind, plan.folder) as relay:
            run(relay.address, load, FLOWS, 8 * load.at_once, 20)
            before = relay.cpu()
            count = run(relay.address, load, FLOWS, frames // FLOWS, 60)
            return (relay.cpu() - before) / count * per

    return _row(interleaved(KINDS, plan.rounds, 120, one), "≤ × 1.25")


def _idle(plan: Plan) -> Sequence[str]:
    """KiB of the relay per client: the slope from some hundreds to all of them."""
    held = plan.size(10_000, 1_000)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    def one(kind: str) -> str:
        with limit(90), Relay(kind, plan.folder) as relay:
            clients = [RelayClient(relay.address) for _ in range(FIRST_CLIENTS)]
            before = relay.rss()
            clients += [RelayClient(relay.address) for _ in range(held - FIRST_CLIENTS)]
            time.sleep(1)
            grown = relay.rss() - before
            for client in clients:
                client.close()
        return f"{grown / (held - FIRST_CLIENTS) / 1024:.1f}"

    return [*map(one, KINDS), "–", "≤ 20"]


def _stream(plan: Plan) -> Sequence[str]:
    """MiB/s between two peers of one kind at a relay of the same kind."""
    size = plan.size(256 * MIB, 16 * MIB)

    def speed(relay: Relay, kind: str) -> float:
        with Pair(kind, relay=relay.url) as pair:
            answer = pair.client("bench_bulk", conn=pair.conn, bytes=size, down=True)
            assert answer["bytes"] == size
            return size / MIB / float(answer["seconds"])

    def one(kind: str) -> float:
        # Native is the faster of its two runtimes.
        with Relay(kind, plan.folder) as relay:
            return max(speed(relay, each) for each in RUNTIMES.get(kind, (kind,)))

    return _row(interleaved(KINDS, plan.rounds, 240, one), "≥ × 1.0")


def _row(values: dict[str, list[float]], reach: str) -> list[str]:
    cells = [f"{median(values[kind]):.3g}" for kind in KINDS]
    return [*cells, ratio(values["aioiroh"], values["rust"]), reach]


SECTION = Section(
    ("relays", "aioiroh", "native", "ours : native", "reach"),
    (
        Step(
            "relay_small",
            "CPU per million datagrams of 100 bytes, many on their way (s)",
            partial(_cost, load=SMALL, frames=400_000, per=1e6),
        ),
        Step(
            "relay_single",
            "the same, each sender waits for each to arrive (s)",
            partial(_cost, load=SINGLE, frames=80_000, per=1e6),
        ),
        Step(
            "relay_full",
            "CPU per GB in batches of 10 datagrams (s)",
            partial(_cost, load=FULL, frames=80_000, per=1e9 / FULL.content),
        ),
        Step("relay_idle", "memory per idle client, 10,000 held (KiB)", _idle),
        Step("relay_stream", "one stream through a relay (MiB/s)", _stream),
    ),
)
