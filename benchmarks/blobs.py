"""Verified transfer of one big blob, from a file to a file."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.peers import Process, command
from benchmarks.table import number, ratio

SIZE = 1 << 30


def rows(rounds: int) -> list[str]:
    """The measure, as lines of the page."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        source = folder / "source"
        block = os.urandom(1 << 20)
        with source.open("wb") as file:
            for index in range(SIZE >> 20):
                file.write(index.to_bytes(8, "little") + block[8:])
        seconds: dict[str, list[float]] = {"aioiroh": [], "rust": [], "rust-multi": []}
        for index in range(max(3, rounds // 3)):
            for kind, values in seconds.items():
                values.append(transfer(kind, source, folder / f"{kind}-{index}")[0])
                time.sleep(0.5)
        # Sampled apart: looking at the loop all the time costs speed.
        gap = transfer("aioiroh", source, folder / "gap", gaps=True)[1]
    best = min(("rust", "rust-multi"), key=lambda kind: statistics.median(seconds[kind]))
    rates = {kind: [SIZE / (1 << 20) / v for v in values] for kind, values in seconds.items()}
    ours, native = rates["aioiroh"], rates[best]
    cells = (
        "1 GiB blob, file to file, verified (MiB/s)",
        number(statistics.median(ours)),
        number(statistics.median(native)),
        ratio(ours, native),
        "≥ 1.5",
    )
    return [
        "| blobs | aioiroh | native | ours : native | reach |",
        "|---|---|---|---|---|",
        "| " + " | ".join(cells) + " |",
        f"| loop gap at the receiver meanwhile, p99 (ms) | {(gap or 0) * 1000:.2f} | – | – | ≤ 1 |",
        "",
    ]


def transfer(
    kind: str, source: Path, folder: Path, *, gaps: bool = False
) -> tuple[float, float | None]:
    """Seconds, dialling included, and the p99 of the receiver's loop gaps where that is known."""
    folder.mkdir()
    server, client = Process(command(kind)), Process(command(kind))
    try:
        server("store", path=str(folder / "from"))
        server("bind", alpns={"/iroh-bytes/4": "blobs"}, addrs=["127.0.0.1:0"])
        added = server("blob_add", path=str(source))
        ticket = server("blob_ticket", hash=added["hash"])["ticket"]
        client("store", path=str(folder / "to"))
        client("bind", alpns={}, addrs=["127.0.0.1:0"])
        answer = client("blob_fetch", ticket=ticket, gaps=gaps)
        return float(answer["seconds"]), answer.get("gap_p99")
    finally:
        client.close()
        server.close()
        shutil.rmtree(folder)
