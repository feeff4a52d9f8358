"""On a terminal there are bars and whole commands; without one there is nothing but results."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import LOOPBACK, SECONDS, SLOWLY, Process, fill, sparse, tree

Sending = Callable[..., Any]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A terminal of 100 columns; `seen` is what was written to it."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        self.raw = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self.master, 65536):
                self.raw += data.decode()

    @property
    def seen(self) -> str:
        return ESCAPE.sub("", self.raw)

    def until(self, pattern: str) -> str:
        """Waits for text that matches, and gives it."""
        deadline = time.monotonic() + SECONDS
        while not (match := re.search(pattern, self.seen)):
            assert time.monotonic() < deadline, f"no {pattern!r} in {self.seen!r}"
            time.sleep(0.02)
        return match[0]

    def key(self, data: bytes) -> None:
        os.write(self.master, data)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    os.close(terminal.slave)
    os.close(terminal.master)


@pytest.fixture
def run_on() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """`run_on(terminal, *arguments)`: a command whose only terminal that is."""
    processes: list[subprocess.Popen[bytes]] = []

    def run(terminal: Terminal, *arguments: object) -> subprocess.Popen[bytes]:
        def take_terminal() -> None:
            fcntl.ioctl(terminal.slave, termios.TIOCSCTTY, 0)

        processes.append(
            Process.spawn(
                arguments,
                stdin=terminal.slave,
                stdout=terminal.slave,
                stderr=terminal.slave,
                start_new_session=True,
                preexec_fn=take_terminal,
                env={"TERM": "xterm-256color"},
            )
        )
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.wait()


def test_a_transfer_on_terminals(
    tmp_path: Path, run_on: Callable[..., Any], terminal: Terminal
) -> None:
    folder = fill(tmp_path / "[red]album", {"a": os.urandom(1000), "b": b"b"})
    sparse(folder / "big", 300 << 20)
    sender = run_on(terminal, "send", *LOOPBACK, folder)
    ticket = terminal.until(r"aioiroh receive blob\w+\r?\n").split()[-1]
    assert "hashing" in terminal.seen
    assert "Sharing [red]album (3 files, 300.0 MiB) at 127.0.0.1:" in terminal.seen

    other = Terminal()
    receiver = run_on(other, "receive", *LOOPBACK, ticket, "-o", tmp_path / "there")
    assert receiver.wait(SECONDS) == 0
    other.until(r"Received 3 files, 300.0 MiB in .* \(.*/s\), verified\.")
    other.until(re.escape(f"{tmp_path}/there/[red]album"))
    assert re.search(r"receiving .* MiB of 300.0 MiB", other.seen)
    assert tree(tmp_path / "there" / "[red]album") == tree(folder)

    terminal.until(r"[0-9a-f]{10} at 127.0.0.1 has got everything: 300.0 MiB in ")
    terminal.key(b"\x03")
    assert sender.wait(SECONDS) == 0
    terminal.until("Stopped")
    for shown in (terminal.raw, other.raw):
        assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l")


def test_control_c_on_a_terminal(
    tmp_path: Path, sending: Sending, run_on: Callable[..., Any], terminal: Terminal
) -> None:
    with sending(sparse(tmp_path / "big", 200 << 20), program=SLOWLY) as sender:
        receiver = run_on(terminal, "receive", *LOOPBACK, sender.ticket, "-o", tmp_path / "there")
        terminal.until(r"receiving .* MiB of 200.0 MiB")
        terminal.key(b"\x03")
        assert receiver.wait(SECONDS) == 128 + signal.SIGINT
        terminal.until("Interrupted: nothing was put into")
    assert terminal.raw.rfind("\x1b[?25h") > terminal.raw.rfind("\x1b[?25l")


def test_the_second_control_c_gives_the_cursor_back(
    tmp_path: Path, run_on: Callable[..., Any], terminal: Terminal
) -> None:
    sender = run_on(terminal, "send", *LOOPBACK, sparse(tmp_path / "huge", 1 << 40))
    terminal.until(r"hashing .* of 1.0 TiB")
    os.kill(sender.pid, signal.SIGSTOP)
    os.kill(sender.pid, signal.SIGINT)
    os.kill(sender.pid, signal.SIGTERM)
    os.kill(sender.pid, signal.SIGCONT)
    assert sender.wait(SECONDS) in (130, 143)
    assert terminal.raw.rfind("\x1b[?25h") > terminal.raw.rfind("\x1b[?25l")


def test_json_has_no_bars_on_a_terminal(
    tmp_path: Path, run_on: Callable[..., Any], terminal: Terminal
) -> None:
    run_on(terminal, "send", *LOOPBACK, fill(tmp_path, {"x": b"x"}), "--json")
    terminal.until('"event": "ticket"')
    assert "\x1b" not in terminal.raw


def test_without_a_terminal_no_bars_are_loaded(tmp_path: Path, sending: Sending) -> None:
    with sending(fill(tmp_path, {"x": b"x"}), env={"PYTHONPROFILEIMPORTTIME": "1"}) as sender:
        sender.until(lambda: "aioiroh.blobs" in sender.err, "list of imports")
        assert "rich" not in sender.err


@pytest.mark.parametrize("option", ["--help", "--version", "-h"])
def test_help_loads_next_to_nothing(start: Callable[..., Any], option: str) -> None:
    done = start(option, env={"PYTHONPROFILEIMPORTTIME": "1"}).wait(0)
    assert "aioiroh" in done.out
    for name in ("asyncio", "rich", "aioiroh.endpoint", "aioiroh.blobs", "aioiroh._native"):
        assert f" {name}\n" not in done.err


def test_help_has_examples(start: Callable[..., Any]) -> None:
    assert "aioiroh send photos" in start("send", "--help").wait(0).out
    assert "aioiroh receive blob" in start("receive", "--help").wait(0).out
