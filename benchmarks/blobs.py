"""Verified blobs between two stores on disk, and hashing of a file."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import upstream
from benchmarks.links import behind_link
from benchmarks.peers import Process, command
from benchmarks.steps import Plan, Section, Step, interleaved, limit, within
from benchmarks.table import number, ratio

MIB = 1 << 20
ALPN = "/iroh-bytes/4"
KINDS = ("aioiroh", "rust", "rust-multi")
LINKS, LINK_MBIT = 4, 200
PREPARING = 120
"""Seconds for what has to be there before anything is measured."""

Share = Callable[[Process], str]
"""Puts something into a provider's store and gives a ticket for it."""


@contextmanager
def scratch(plan: Plan) -> Iterator[Path]:
    """An empty folder, gone at the end. What was written before is on disk when it begins."""
    os.sync()
    folder = Path(tempfile.mkdtemp(dir=plan.folder))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def random_file(path: Path, size: int) -> Path:
    """A file in which every MiB is another."""
    block = os.urandom(MIB)
    with path.open("wb") as file:
        for start in range(0, size, MIB):
            file.write((start.to_bytes(8, "little") + block[8:])[: size - start])
    return path


@contextmanager
def provider(kind: str, folder: Path | None) -> Iterator[Process]:
    """A process that serves a store in `folder`, or one in memory."""
    with Process(command(kind)) as server:
        server("store", path=None if folder is None else str(folder))
        where = server("bind", alpns={ALPN: "blobs"}, addrs=["127.0.0.1:0"])
        server.where = {"peer": where["peer"], "addrs": where["addrs"], "alpn": ALPN}
        yield server


@contextmanager
def getter(kind: str, folder: Path) -> Iterator[Process]:
    """A process with an empty store in `folder`."""
    with Process(command(kind)) as client:
        client("store", path=str(folder))
        client("bind", alpns={}, addrs=["127.0.0.1:0"])
        yield client


# --- what is shared -----------------------------------------------------------------------------


def file(path: Path) -> Share:
    """The file as one blob."""

    def share(server: Process) -> str:
        hash = server("blob_add", path=str(path))["hash"]
        return str(server("blob_ticket", hash=hash)["ticket"])

    return share


def small_blobs(count: int) -> Share:
    """A sequence of that many different blobs of 1 KiB."""

    def share(server: Process) -> str:
        hash = server("bench_small_blobs", count=count, size=1024)["hash"]
        return str(server("blob_ticket", hash=hash, hash_seq=True)["ticket"])

    return share


# --- measuring ----------------------------------------------------------------------------------


def fetches(plan: Plan, rounds: int, seconds: float, share: Share) -> dict[str, list[float]]:
    """Seconds that a get took, dialling included, each into a new store."""
    with ExitStack() as stack:
        stack.enter_context(scratch(plan))
        tickets = {}
        with limit(PREPARING):
            for kind in KINDS:
                server = stack.enter_context(provider(kind, stack.enter_context(scratch(plan))))
                tickets[kind] = share(server)

        def one(kind: str) -> float:
            with scratch(plan) as folder, getter(kind, folder) as client:
                return float(client("blob_fetch", ticket=tickets[kind])["seconds"])

        return interleaved(KINDS, rounds, seconds, one)


def compared(amount: float, seconds: dict[str, list[float]], reach: str) -> list[str]:
    """The cells of a row of rates, native being the faster of upstream's two runtimes."""
    rates = {kind: [amount / value for value in values] for kind, values in seconds.items()}
    medians = {kind: statistics.median(values) for kind, values in rates.items()}
    native = max((kind for kind in rates if kind != "aioiroh"), key=medians.__getitem__)
    return [
        str(len(rates[native])),
        number(medians["aioiroh"]),
        number(medians[native]),
        ratio(rates["aioiroh"], rates[native]),
        reach,
    ]


def _big(plan: Plan) -> list[str]:
    size = plan.size(1 << 30, 1 << 26)
    with scratch(plan) as folder:
        source = random_file(folder / "source", size)
        seconds = fetches(plan, min(5, plan.rounds), 150, file(source))
    return compared(size / MIB, seconds, "≥ 1.5")


def _small(plan: Plan) -> list[str]:
    count = plan.size(10_000, 1000)
    seconds = fetches(plan, min(7, plan.rounds), 60, small_blobs(count))
    return compared(count, seconds, "≥ 28,000 per s")


def _gets(plan: Plan) -> list[str]:
    """From a store in memory: upstream's on disk refuses some of 50 requests for one blob."""
    count = 1000
    with ExitStack() as stack:
        path = random_file(stack.enter_context(scratch(plan)) / "small", 1024)
        conns = {}
        with limit(PREPARING):
            for kind in KINDS:
                server = stack.enter_context(provider(kind, None))
                client = stack.enter_context(getter(kind, stack.enter_context(scratch(plan))))
                hash = server("blob_add", path=str(path))["hash"]
                conns[kind] = client, client("connect", **server.where)["conn"], hash

        def one(kind: str) -> float:
            client, conn, hash = conns[kind]
            answer = client("bench_gets", conn=conn, hash=hash, count=count, in_flight=50)
            return float(answer["seconds"])

        return compared(count, interleaved(KINDS, plan.rounds, 60, one), "≥ 0.8")


def _import(plan: Plan) -> list[str]:
    size = plan.size(4 << 30, 1 << 28)
    b3sum = [str(upstream.program("b3sum", release=True).path), "--num-threads", "1"]
    with scratch(plan) as folder:
        path = random_file(folder / "source", size)

        def one(kind: str) -> float:
            if kind == "b3sum":
                started = time.perf_counter()
                subprocess.run([*b3sum, path], check=True, stdout=subprocess.DEVNULL)
                return time.perf_counter() - started
            with scratch(plan) as store, getter(kind, store) as process:
                return float(process("blob_add", path=str(path))["seconds"])

        seconds = interleaved(("aioiroh", "b3sum"), min(5, plan.rounds), 90, one)
    return compared(size / MIB, seconds, "≥ 0.8")


def _download(plan: Plan) -> Sequence[str]:
    """What `blobs.Downloader` gets from four providers behind a link each, of the sum of the links."""
    size = plan.size(512 * MIB, 32 * MIB)
    with ExitStack() as stack:
        source = random_file(stack.enter_context(scratch(plan)) / "source", size)
        tickets = []
        with limit(PREPARING):
            for number in range(LINKS):
                link = behind_link("aioiroh", number, LINK_MBIT)
                server, address = stack.enter_context(link)
                folder = stack.enter_context(scratch(plan))
                server("store", path=str(folder))
                server("bind", alpns={ALPN: "blobs"}, addrs=[f"{address}:0"])
                tickets.append(file(source)(server))

        def one(_kind: str) -> float:
            with scratch(plan) as folder, Process(command("aioiroh")) as client:
                client("store", path=str(folder))
                client("bind", alpns={}, addrs=["0.0.0.0:0"])
                return float(client("blob_download", tickets=tickets)["seconds"])

        seconds = interleaved(("aioiroh",), min(5, plan.rounds), 90, one)["aioiroh"]
    shares = [size * 8 / value / (LINKS * LINK_MBIT * 1e6) for value in seconds]
    return [str(len(shares)), f"{statistics.median(shares):.2f}", "–", "–", "≥ 0.9"]


# --- the loop meanwhile -------------------------------------------------------------------------


def fetch(client: Process, server: Process, ticket: str) -> None:
    client("blob_fetch", ticket=ticket)


def gaps(plan: Plan, share: Share, act: Callable[[Process, Process, str], None] = fetch) -> str:
    """p99 of the loop's gaps at the getter and at the provider, in milliseconds: medians of some rounds."""
    rounds = [_gaps_once(plan, share, act) for _ in range(_gap_rounds(plan))]
    return " and ".join(f"{statistics.median(side):.3f}" for side in zip(*rounds, strict=True))


def _gap_rounds(plan: Plan) -> int:
    return min(plan.rounds, 5)


def _gaps_once(
    plan: Plan, share: Share, act: Callable[[Process, Process, str], None]
) -> list[float]:
    with (
        scratch(plan) as here,
        scratch(plan) as there,
        provider("aioiroh", here) as server,
        getter("aioiroh", there) as client,
    ):
        ticket = share(server)
        for process in (client, server):
            process("watch_gaps")
        act(client, server, ticket)
        return [float(process("gaps")["p99"]) * 1000 for process in (client, server)]


def _big_gaps(plan: Plan) -> Sequence[str]:
    with scratch(plan) as folder:
        source = random_file(folder / "source", plan.size(1 << 30, 1 << 26))
        return [str(_gap_rounds(plan)), within(120, gaps, plan, file(source)), "–", "–", "≤ 1"]


def _small_gaps(plan: Plan) -> Sequence[str]:
    count = plan.size(10_000, 1000)
    return [str(_gap_rounds(plan)), within(120, gaps, plan, small_blobs(count)), "–", "–", "≤ 1"]


def _gets_gaps(plan: Plan) -> Sequence[str]:
    def act(client: Process, server: Process, _ticket: str) -> None:
        hash = server("bench_small_blobs", count=1, size=1024)["first"]
        conn = client("connect", **server.where)["conn"]
        client("bench_gets", conn=conn, hash=hash, count=10_000, in_flight=50)

    return [str(_gap_rounds(plan)), within(120, gaps, plan, small_blobs(1), act), "–", "–", "≤ 1"]


def _import_gaps(plan: Plan) -> Sequence[str]:
    def once() -> float:
        with scratch(plan) as folder, getter("aioiroh", folder / "store") as process:
            source = random_file(folder / "source", plan.size(1 << 30, 1 << 26))
            process("watch_gaps")
            process("blob_add", path=str(source))
            return float(process("gaps")["p99"]) * 1000

    def cell() -> str:
        return f"{statistics.median(once() for _ in range(_gap_rounds(plan))):.3f}"

    return [str(_gap_rounds(plan)), within(120, cell), "–", "–", "≤ 1"]


SECTION = Section(
    ("blobs", "rounds", "aioiroh", "native", "ours : native", "reach"),
    (
        Step("blob", "1 GiB blob, file to file, verified (MiB/s)", _big),
        Step(
            "small_blobs",
            "10,000 blobs of 1 KiB in one sequence, file store to file store (per s)",
            _small,
        ),
        Step("gets", "gets of one blob of 1 KiB, one connection, 50 in flight (per s)", _gets),
        Step("import", "import of a file of 4 GiB; native: `b3sum`, one thread (MiB/s)", _import),
        Step(
            "download",
            "download from 4 providers, each behind a link of 200 Mbit/s (part of 800 Mbit/s)",
            _download,
        ),
        Step("blob_gap", "loop gap at getter and provider, p99 (ms), 1 GiB blob", _big_gaps),
        Step("small_gap", "the same, 10,000 blobs of 1 KiB", _small_gaps),
        Step("gets_gap", "the same, 10,000 gets of one blob, 50 in flight", _gets_gaps),
        Step("import_gap", "loop gap while 1 GiB is imported, p99 (ms)", _import_gaps),
    ),
)
