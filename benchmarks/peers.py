"""The programs that are measured: ours, upstream's in Rust, upstream's Python package, aioquic.

Each end of a connection is a process of its own that speaks JSON lines, as
`tests/interop/peer/src/main.rs` describes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import upstream

ROOT = Path(__file__).resolve().parent.parent
ALPN = "bench"


class PeerFailed(Exception):
    """A measured program answered with an error."""


def memory(pid: int, which: str) -> int:
    """A line of the process's memory status, in bytes; OSError if it has ended."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(which + ":"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has ended")


def processor_time(pid: int) -> float:
    """What a process has used so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


class Process:
    """One end, in a process of its own."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=ROOT
        )
        self._next = 0
        self.where: dict[str, Any] = {}
        """What `connect` of another process needs, once it is known."""

    @property
    def pid(self) -> int:
        return self._process.pid

    def __call__(self, do: str, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._next += 1
        self._process.stdin.write(json.dumps({"id": self._next, "do": do, **request}) + "\n")
        self._process.stdin.flush()
        while True:
            line = self._process.stdout.readline()
            if not line:
                raise PeerFailed(f"{self._process.args} ended during {do}")
            answer = json.loads(line)
            if answer["id"] == self._next:
                break
        if "error" in answer:
            raise PeerFailed(f"{do}: {answer['error']}")
        return dict(answer["ok"])

    def rss(self) -> int:
        """Resident memory, in bytes."""
        return memory(self.pid, "VmRSS")

    def peak(self) -> int:
        """The most resident memory so far, in bytes."""
        return memory(self.pid, "VmHWM")

    def cpu(self) -> float:
        """Processor time used so far, in seconds."""
        return processor_time(self.pid)

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class Pair:
    """A client and a server of one kind, connected: directly, or by a relay alone."""

    def __init__(self, kind: str, *, relay: str | None = None) -> None:
        self.kind = kind
        self.server = Process(command(kind))
        self.client = Process(command(kind))
        way: dict[str, Any] = {"addrs": ["127.0.0.1:0"]}
        if relay is not None:
            way = {"addrs": [], "relay": relay}
        where = self.server("bind", alpns={ALPN: "bench"}, **way)
        self.where = {**way, "peer": where["peer"], "addrs": where["addrs"], "alpn": ALPN}
        self.client("bind", alpns={}, **way)
        self.conn: int = self.client("connect", **self.where)["conn"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.client.close()
        self.server.close()


def command(kind: str) -> list[str]:
    """How to start one end."""
    match kind:
        case "aioiroh":
            return [sys.executable, "-m", "benchmarks.ours"]
        case "busy":
            return [sys.executable, "-m", "benchmarks.ours", "--busy-poll"]
        case "uvloop":
            return [sys.executable, "-m", "benchmarks.ours", "--uvloop"]
        case "rust" | "rust-multi":
            runtime = "multi" if kind == "rust-multi" else "current"
            return [str(upstream.program("iroh-peer", release=True).path), "--runtime", runtime]
        case "wheel":
            return [sys.executable, str(ROOT / "tests" / "interop" / "wheel_peer.py")]
        case "aioquic":
            return [sys.executable, "-m", "benchmarks.aioquic_peer"]
        case _:
            raise ValueError(kind)
