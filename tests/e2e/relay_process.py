"""`aioiroh relay` in a process of its own, with ports that the system chose."""

from __future__ import annotations

import asyncio
import json
import signal
import urllib.request
from pathlib import Path
from typing import Any

from commands import Process

__all__ = ["RelayProcess"]


class RelayProcess:
    """A relay with the configuration in `path`; its log is read as it comes."""

    def __init__(self, path: Path, *options: object, **popen: Any) -> None:
        arguments = ["relay", "-c", path, "--log-format", "json", "--log-level", "debug", *options]
        self.process = Process(arguments, **popen)

    @property
    def log(self) -> list[dict[str, Any]]:
        """What it has logged so far."""
        return [json.loads(line) for line in self.process.err.splitlines(keepends=True)[:-1]] + [
            json.loads(line) for line in self.process.err.splitlines()[-1:] if line.endswith("}")
        ]

    def said(self, message: str, count: int = 1) -> dict[str, Any]:
        """Waits for the `count`th such record of the log."""

        def found() -> Any:
            named = [record for record in self.log if record["message"].startswith(message)]
            return named[count - 1] if len(named) >= count else None

        record: dict[str, Any] = self.process.until(found, f"log of {message!r}")
        return record

    async def heard(self, message: str, count: int = 1) -> dict[str, Any]:
        """As `said`, while the loop goes on."""
        return await asyncio.to_thread(self.said, message, count)

    def url(self, kind: str = "http") -> str:
        """Where it listens for that."""
        return (
            f"{'https' if kind == 'https' else 'http'}://{self.said('the relay is ready')[kind]}/"
        )

    def metrics(self) -> dict[str, int]:
        """What it has counted."""
        with urllib.request.urlopen(self.url("metrics") + "metrics", timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        assert lines[-1] == "# EOF"
        samples = (line.split() for line in lines if not line.startswith("#"))
        return {name.removeprefix("relayserver_"): int(value) for name, value in samples}

    def reload(self) -> None:
        self.process.signal(signal.SIGHUP)

    def kill(self) -> None:
        self.process.kill()
