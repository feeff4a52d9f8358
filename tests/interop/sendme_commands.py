"""Calls of sendme, in processes of their own."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from commands import SECONDS

Sending = Callable[..., Any]
"""What the fixture `sending` gives."""


def quiet(sendme: Path, *arguments: object) -> list[str]:
    """A call of sendme that looks for nobody and shows no bars."""
    return [str(sendme), *map(str, arguments), "--relay", "disabled", "--no-progress"]


@contextmanager
def sendme_sends(sendme: Path, path: Path, work: Path, *options: str) -> Iterator[str]:
    """Shares a path with sendme; gives its ticket."""
    work.mkdir(exist_ok=True)
    command = quiet(sendme, "send", path, "--ticket-type", "addresses", *options)
    with subprocess.Popen(command, cwd=work, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(3)]
            yield lines[-1].split()[-1]
            process.send_signal(signal.SIGINT)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()


def sendme_receives(sendme: Path, ticket: str, target: Path) -> None:
    """Receives with sendme into a new folder."""
    target.mkdir()
    command = quiet(sendme, "receive", ticket)
    done = subprocess.run(
        command, cwd=target, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stderr
