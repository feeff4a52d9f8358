"""The commands as people run them: processes of their own, on loopback.

with sending(folder) as sender:
    receive(sender.ticket, "-o", target)         # a finished process; fails unless it exits with 0
    receive(sender.ticket, "-o", target, code=3)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from commands import LOOPBACK, Process, Sender


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where commands remember what they have sent, for one test."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    return folder


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """`start(*arguments, **options of Popen)`: a process, killed at the end of the test."""
    processes: list[Process] = []

    def make(*arguments: object, **options: Any) -> Process:
        processes.append(Process(arguments, **options))
        return processes[-1]

    yield make
    for process in processes:
        process.kill()


@pytest.fixture
def sending() -> Callable[..., Any]:
    """`with sending(*paths and options) as sender`: shares until the end of the block."""

    @contextmanager
    def run(*arguments: object, bind: str = "127.0.0.1:0", **options: Any) -> Iterator[Sender]:
        sender = Sender(["send", "--bind", bind, *arguments], **options)
        try:
            if "--json" in arguments:
                sender.ticket = sender.event("ticket")["ticket"]
            else:
                sender.ticket = sender.until(lambda: sender.out, "ticket").strip()
            yield sender
        finally:
            sender.kill()

    return run


@pytest.fixture
def receive(start: Callable[..., Process]) -> Callable[..., Process]:
    """`receive(ticket, *options, code=0)`: a receive that has ended."""

    def run(ticket: str, *options: object, code: int = 0, **popen: Any) -> Process:
        return start("receive", *LOOPBACK, ticket, *options, **popen).wait(code)

    return run
