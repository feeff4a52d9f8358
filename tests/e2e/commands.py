"""The command `aioiroh` in a process of its own, and folders to send."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aioiroh

PYTHON = [sys.executable, "-W", "default::ResourceWarning"]
AIOIROH = [*PYTHON, "-m", "aioiroh"]
SLOWLY = [*PYTHON, str(Path(__file__).with_name("slow_sender.py"))]
"""The same, sending at 40 MiB/s."""
LOOPBACK = ["--bind", "127.0.0.1:0"]
SECONDS = 60

DEAD = (
    "blobacqjvjpupjtvtabp7fk7rxbnfikklsm5eo7jp6decj77sobukwspaaabab7qaaabbeatgmztgmztgmztgmzt"
    "gmztgmztgmztgmztgmztgmztgmztgmztgmy"
)
"""A ticket of a sender at port 9 of 127.0.0.1, where nobody is."""


class Process:
    """A command that runs; its output is collected while it does."""

    def __init__(self, arguments: Sequence[object], **options: Any) -> None:
        pipes = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "encoding": "utf-8",
            "errors": "surrogateescape",
        }
        self._process = self.spawn(arguments, **{**pipes, **options})
        self._news = threading.Condition()
        self._out: list[str] = []
        self._err: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            for stream, lines in (
                (self._process.stdout, self._out),
                (self._process.stderr, self._err),
            )
            if stream is not None
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def spawn(
        arguments: Sequence[object], *, program: Sequence[str] = AIOIROH, **options: Any
    ) -> subprocess.Popen[Any]:
        """Starts the command; options are those of `Popen`, `env` is added to ours."""
        # The package that is tested, wherever the process runs.
        source = str(Path(aioiroh.__file__).parent.parent)
        environment = {**os.environ, **options.get("env", {})}
        path = [environment.get("PYTHONPATH_FIRST"), source]
        options["env"] = {**environment, "PYTHONPATH": os.pathsep.join(filter(None, path))}
        return subprocess.Popen([*program, *map(str, arguments)], **options)

    def _read(self, stream: Any, lines: list[str]) -> None:
        for line in stream:
            with self._news:
                lines.append(line)
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    @property
    def out(self) -> str:
        """Standard output so far."""
        return "".join(self._out)

    @property
    def err(self) -> str:
        """Standard error so far."""
        return "".join(self._err)

    @property
    def events(self) -> list[dict[str, Any]]:
        """Standard output so far as JSON lines."""
        return [json.loads(line) for line in list(self._out)]

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Waits for output that makes `condition` true, and gives its value."""
        deadline = time.monotonic() + SECONDS
        with self._news:
            while not (value := condition()):
                over = not any(reader.is_alive() for reader in self._readers)
                left = deadline - time.monotonic()
                if over or left <= 0:
                    raise AssertionError(f"no {what}; wrote {self.out!r} and {self.err!r}")
                self._news.wait(min(left, 0.2))
        return value

    def event(self, name: str, count: int = 1) -> dict[str, Any]:
        """Waits for the `count`th event of that name."""

        def found() -> Any:
            named = [event for event in self.events if event["event"] == name]
            return named[count - 1] if len(named) >= count else None

        event: dict[str, Any] = self.until(found, f"event {name}")
        return event

    def under_way(self, size: int = 10 << 20) -> int:
        """Waits until `size` bytes have come or gone on one connection; gives how many it were."""

        def found() -> int:
            told = [event["bytes"] for event in self.events if event["event"] == "progress"]
            return max((count for count in told if count >= size), default=0)

        count: int = self.until(found, f"progress of {size} bytes")
        return count

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self, code: int | None = 0, seconds: float = SECONDS) -> Process:
        """Waits for the end; `code` is what it has to exit with (None: anything)."""
        try:
            exit_code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise AssertionError(
                f"still running after {seconds} s; wrote {self.out!r} and {self.err!r}"
            ) from None
        for reader in self._readers:
            reader.join()
        if code is not None:
            assert "Traceback" not in self.err, self.err
            assert "Warning" not in self.err, self.err
            assert exit_code == code, f"exit code {exit_code}: {self.out!r} and {self.err!r}"
        return self

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


class Sender(Process):
    """`aioiroh send`, once it has written its ticket."""

    ticket: str


def tree(folder: Path) -> dict[str, bytes | None]:
    """What is below a folder: content by name, None for folders."""
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    """Writes files below a folder and gives it."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def sparse(path: Path, size: int) -> Path:
    """A file of `size` zeros that takes no space."""
    with path.open("wb") as file:
        file.truncate(size)
    return path
