"""The relays that are measured, ours and upstream's, each in a process of its own."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import upstream
from benchmarks.peers import ROOT, memory, processor_time


class Relay:
    """A relay without TLS on loopback, as a context manager."""

    def __init__(self, kind: str, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address: tuple[str, int] = probe.getsockname()
        self.url = f"http://127.0.0.1:{self.address[1]}/"
        self._process = subprocess.Popen(
            self._command(kind, folder), cwd=ROOT, stdout=subprocess.DEVNULL
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

    def _command(self, kind: str, folder: Path) -> list[str]:
        if kind != "rust":
            ours = [sys.executable, "-m", "benchmarks.relays", str(self.address[1])]
            return [*ours, "--uvloop"] if kind == "uvloop" else ours
        config = folder / f"relay-{self.address[1]}.toml"
        config.write_text(
            f'http_bind_addr = "127.0.0.1:{self.address[1]}"\nenable_metrics = false\n'
        )
        return [
            str(upstream.program("iroh-relay", release=True).path),
            "--config-path",
            str(config),
        ]

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


async def _serve(port: int) -> None:
    from aioiroh.relayserver import RelayServer

    async with RelayServer.bind(http=("127.0.0.1", port)) as relay:
        await relay.closed()


if __name__ == "__main__":
    if "--uvloop" in sys.argv:
        import uvloop

        uvloop.run(_serve(int(sys.argv[1])))
    else:
        asyncio.run(_serve(int(sys.argv[1])))
