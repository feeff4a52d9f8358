"""The relays that are measured, ours and upstream's, each in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import upstream
from benchmarks.peers import ROOT, memory, processor_time

PROGRAMS: dict[str, Callable[[], list[str]]] = {
    "aioiroh": lambda: [sys.executable, "-m", "aioiroh", "relay"],
    "rust": lambda: [str(upstream.program("iroh-relay", release=True).path)],
}
"""How to start one; both read the same configuration."""


class Relay:
    """A relay without TLS on loopback, as a context manager."""

    def __init__(self, kind: str, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address: tuple[str, int] = probe.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}/"
        config = folder / f"relay-{self.address[1]}.toml"
        config.write_text(
            f'http_bind_addr = "127.0.0.1:{self.address[1]}"\nenable_metrics = false\n'
        )
        self._process = subprocess.Popen(
            [*PROGRAMS[kind](), "--config-path", str(config)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(self.address).close()
                return
            except ConnectionRefusedError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.close()
                    raise
                time.sleep(0.02)

    def cpu(self) -> float:
        """Processor time used so far, in seconds."""
        return processor_time(self._process.pid)

    def rss(self) -> int:
        """Resident memory, in bytes."""
        return memory(self._process.pid, "VmRSS")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
