"""Ctrl-C at any moment: a clear word, the right code, nothing half-written, and soon."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import DEAD, LOOPBACK, SLOWLY, fill, sparse, tree

Sending = Callable[..., Any]
Start = Callable[..., Any]
PROMPTLY = 10.0
"""Seconds, also on a busy machine."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_receive_in_the_middle(
    tmp_path: Path, sending: Sending, start: Start, number: signal.Signals
) -> None:
    sparse(tmp_path / "big", 200 << 20)
    there = tmp_path / "there"
    with sending(tmp_path / "big", "--json", program=SLOWLY) as sender:
        receiver = start("receive", *LOOPBACK, sender.ticket, "-o", there, "--json")
        receiver.under_way()
        began = time.monotonic()
        receiver.signal(number)
        receiver.wait(128 + number)
        assert time.monotonic() - began < PROMPTLY
        assert receiver.events[-1] == {"event": "interrupted", "code": 128 + number}
        assert receiver.events[-2]["event"] == "kept"
        left = sender.event("disconnected")
        assert left["complete"] is False


def test_receive_says_so(tmp_path: Path, sending: Sending, start: Start) -> None:
    sparse(tmp_path / "big", 200 << 20)
    there = fill(tmp_path / "there", {"mine": b"mine"})
    with sending(tmp_path / "big", "--json", program=SLOWLY) as sender:
        receiver = start("receive", *LOOPBACK, sender.ticket, "-o", there)
        sender.under_way()
        receiver.signal(signal.SIGINT)
        receiver.wait(130)
    assert f"Interrupted: nothing was put into {there}." in receiver.err
    assert re.search(
        r" of 200.0 MiB are kept in .*; the same command goes on from there", receiver.err
    )
    assert receiver.out == ""
    assert [name[:17] for name in sorted(os.listdir(there))] == [".aioiroh-receive-", "mine"]


def test_receive_while_it_connects(tmp_path: Path, start: Start) -> None:
    receiver = start("receive", *LOOPBACK, DEAD, "-o", tmp_path / "there", "--json")
    receiver.event("connecting")
    time.sleep(0.3)
    began = time.monotonic()
    receiver.signal(signal.SIGINT)
    receiver.wait(130)
    assert time.monotonic() - began < PROMPTLY
    assert not (tmp_path / "there").exists()


def test_send_while_it_hashes(tmp_path: Path, start: Start) -> None:
    sparse(tmp_path / "huge", 1 << 40)
    sender = start("send", *LOOPBACK, tmp_path / "huge", "--json")
    sender.event("import", 2)
    began = time.monotonic()
    sender.signal(signal.SIGINT)
    sender.wait(130)
    assert time.monotonic() - began < PROMPTLY


def test_send_while_it_serves(tmp_path: Path, sending: Sending) -> None:
    with sending(sparse(tmp_path / "big", 64 << 20)) as sender:
        began = time.monotonic()
        sender.signal(signal.SIGINT)
        sender.wait(0)
        assert time.monotonic() - began < PROMPTLY
        assert sender.err.endswith("Stopped.\n")


@pytest.mark.parametrize(("number", "options"), [(signal.SIGTERM, []), (signal.SIGINT, ["--once"])])
def test_send_before_it_was_to_end(
    tmp_path: Path, sending: Sending, number: signal.Signals, options: list[str]
) -> None:
    with sending(fill(tmp_path, {"x": b""}), *options) as sender:
        sender.signal(number)
        sender.wait(128 + number)


def test_the_second_one_ends_at_once(tmp_path: Path, sending: Sending) -> None:
    with sending(fill(tmp_path, {"x": b""})) as sender:
        os.kill(sender.pid, signal.SIGSTOP)
        sender.signal(signal.SIGINT)
        sender.signal(signal.SIGTERM)
        os.kill(sender.pid, signal.SIGCONT)
        sender.wait(None, seconds=PROMPTLY)


def test_before_anything_has_begun() -> None:
    code = (
        "import os, signal, click, aioiroh.cli\n"
        "click.Command.main = lambda *_, **__: os.kill(os.getpid(), signal.SIGINT)\n"
        "aioiroh.cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


def test_while_files_are_put_in_place(tmp_path: Path, sending: Sending, start: Start) -> None:
    folder = fill(tmp_path / "many", {f"{number}": b"%06d" % number for number in range(3000)})
    there = tmp_path / "there"
    with sending(folder) as sender:
        receiver = start("receive", *LOOPBACK, sender.ticket, "-o", there, "--json")
        receiver.event("file")
        receiver.signal(signal.SIGINT)
        receiver.wait(None)
    assert receiver.exit_code in (0, 130)
    placed = tree(there / "many")
    assert placed
    assert all(data == b"%06d" % int(name) for name, data in placed.items())
    if receiver.exit_code == 130:
        files = [event for event in receiver.events if event["event"] == "file"]
        assert len(files) == len(placed)
