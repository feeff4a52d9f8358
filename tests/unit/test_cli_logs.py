"""The log of a server."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from collections.abc import Iterator

import pytest

from aioiroh.cli.relay import logs
from aioiroh.cli.relay.levels import level_from
from aioiroh.cli.relay.logs import write_log

logger = logging.getLogger("aioiroh.relayserver")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Logging is afterwards as it was."""
    root, noisy = logging.getLogger(), logging.getLogger("asyncio")
    handlers, levels = root.handlers[:], (root.level, noisy.level)
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    noisy.setLevel(levels[1])


def written(capfd: pytest.CaptureFixture[str]) -> str:
    """What the log has written, which is then at its end."""
    logging.getLogger().handlers[-1].close()
    return capfd.readouterr().err


@pytest.mark.parametrize(
    ("directives", "level"),
    [
        ("", None),
        ("info", "info"),
        ("WARN", "warn"),
        ("iroh_relay=debug", "debug"),
        ("warn,iroh_relay::server=trace,hyper=off", "trace"),
        ("hyper=debug", None),
        ("error, hyper=debug", "error"),
        ("nonsense", None),
        ("=debug,", None),
    ],
)
def test_upstreams_variable(directives: str, level: str | None) -> None:
    assert level_from(directives) == level


def test_lines_for_people(capfd: pytest.CaptureFixture[str]) -> None:
    write_log("info", as_json=False)
    logger.debug("not this")
    logger.info("ready\x1b[31m", extra={"fields": {"http": "[::]:80"}})
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    ready\\x1b\[31m http=\[::\]:80\n",
        written(capfd),
    )


def test_nobody_can_make_a_line_of_their_own(capfd: pytest.CaptureFixture[str]) -> None:
    write_log("info", as_json=False)
    forged = "x\n2026-01-01T00:00:00.000Z INFO    the relay has stopped"
    logger.info("%s", forged, extra={"fields": {"token": "a\r\nb"}})
    try:
        raise ValueError(forged)
    except ValueError:
        logger.exception("it failed")
    first, *more = written(capfd).splitlines()
    assert first.endswith(r"x\n2026-01-01T00:00:00.000Z INFO    the relay has stopped token=a\r\nb")
    assert more[0].endswith("it failed") and all(line.startswith("    ") for line in more[1:])


def test_objects_for_programs(capfd: pytest.CaptureFixture[str]) -> None:
    write_log("debug", as_json=True)
    logger.warning("limits of %s", "x\ny", extra={"fields": {"clients": 3}})
    try:
        raise ValueError("why")
    except ValueError:
        logger.exception("it failed")
    first, second = map(json.loads, written(capfd).splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "warning",
        "target": "aioiroh.relayserver",
        "message": "limits of x\ny",
        "clients": 3,
    }
    assert second["level"] == "error" and "ValueError: why" in second["exception"]


def test_nothing_at_all(capfd: pytest.CaptureFixture[str]) -> None:
    write_log("off", as_json=False)
    logger.critical("not even this")
    assert written(capfd) == ""


def test_a_log_that_nobody_reads_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logs, "MAX_WAITING", 3)
    written, may_write = threading.Event(), threading.Event()
    lines: list[bytes] = []

    def slow(file: int, data: memoryview) -> int:
        written.set()
        may_write.wait()
        lines.append(bytes(data))
        return len(data)

    monkeypatch.setattr(os, "write", slow)
    write_log("info", as_json=True)
    logger.info("first")
    assert written.wait(20)
    for number in range(10):
        logger.info("%d", number)
    may_write.set()
    while len(lines) < 4:
        time.sleep(0.001)
    logger.info("last")
    logging.getLogger().handlers[-1].close()
    told = [json.loads(line)["message"] for line in lines]
    assert told == [
        "first",
        "0",
        "1",
        "2",
        "7 lines were lost, since nobody has read the log",
        "last",
    ]


def test_a_reader_who_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(file: int, data: memoryview) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(os, "write", broken)
    monkeypatch.setattr(logs, "MAX_WAITING", 3)
    write_log("info", as_json=False)
    for number in range(10):
        logger.info("%d", number)
    logging.getLogger().handlers[-1].close()
