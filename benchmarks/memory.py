"""The most memory that a process takes while something very large goes through it."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Sequence
from functools import partial

from benchmarks.blobs import MIB, file, getter, provider, scratch
from benchmarks.commands import at_home, receive_command, sender
from benchmarks.peers import memory
from benchmarks.steps import Plan, Section, Step, limit

PIECES, PIECE = 64, 16 * MIB


class Peak:
    """The most resident memory of a process that will end by itself, looked at while it runs."""

    def __init__(self, pid: int) -> None:
        self.bytes = 0
        self._pid = pid
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        try:
            while True:
                self.bytes = memory(self._pid, "VmHWM")
                time.sleep(0.02)
        except OSError:
            pass


def mib(count: int) -> str:
    return f"{count / MIB:,.0f}"


def _sparse(plan: Plan) -> Sequence[str]:
    """Hashed and offered as a whole; fetched are pieces all over it, since a disk has to hold them."""
    size = plan.size(100 << 30, 1 << 30)
    pieces = [
        [start, start + PIECE]
        for start in range(0, size - PIECE + 1, (size - PIECE) // (PIECES - 1))
    ]
    with (
        limit(240),
        scratch(plan) as folder,
        provider("aioiroh", folder / "here") as server,
        getter("aioiroh", folder / "there") as client,
    ):
        source = folder / "sparse"
        with source.open("wb") as handle:
            handle.truncate(size)
        ticket = file(source)(server)
        moved = client("blob_fetch", ticket=ticket, ranges=pieces)["bytes"]
        return [
            mib(server.peak()),
            mib(client.peak()),
            f"hashed in place; {len(pieces)} pieces all over it ({mib(moved)} MiB) fetched",
            "bounded",
        ]


def _files(count: int, seconds: float, plan: Plan) -> Sequence[str]:
    count = plan.size(count, 5000)
    with limit(seconds), scratch(plan) as folder:
        source = folder / "source"
        for number in range(count // 1000):
            (source / str(number)).mkdir(parents=True)
            for index in range(1000):
                (source / str(number) / f"{index}.txt").write_bytes(b"%d %d\n" % (number, index))
        here, there = folder / "here", folder / "there"
        here.mkdir()
        there.mkdir()
        started = time.monotonic()
        with sender("aioiroh", source, here) as (process, ticket):
            receiver = subprocess.Popen(
                receive_command("aioiroh", ticket),
                cwd=there,
                env=at_home(there),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                peak = Peak(receiver.pid)
                if receiver.wait():
                    raise OSError(f"receive ended with {receiver.returncode}")
            finally:
                receiver.kill()
                receiver.wait()
            return [
                mib(memory(process.pid, "VmHWM")),
                mib(peak.bytes),
                f"`aioiroh send` to `aioiroh receive`, {time.monotonic() - started:.0f} s",
                "bounded",
            ]


SECTION = Section(
    ("most memory (MiB)", "sender", "receiver", "what was done", "reach"),
    (
        Step("sparse", "a sparse blob of 100 GiB", _sparse),
        Step("files", "a collection of 100,000 files", partial(_files, 100_000, 240)),
        Step(
            "million",
            "a collection of 1,000,000 files",
            partial(_files, 1_000_000, 3600),
            on_request=True,
        ),
    ),
)
