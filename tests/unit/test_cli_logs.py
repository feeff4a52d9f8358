"""The log of a server."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator

import pytest

from aioiroh.cli.relay.levels import level_from
from aioiroh.cli.relay.logs import write_log

logger = logging.getLogger("aioiroh.relayserver")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Logging is afterwards as it was."""
    root, noisy = logging.getLogger(), logging.getLogger("asyncio")
    handlers, levels = root.handlers[:], (root.level, noisy.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    noisy.setLevel(levels[1])


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


def test_lines_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    write_log("info", as_json=False)
    logger.debug("not this")
    logger.info("ready\x1b[31m", extra={"fields": {"http": "[::]:80"}})
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO    ready\\x1b\[31m http=\[::\]:80\n",
        capsys.readouterr().err,
    )


def test_nobody_can_make_a_line_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    write_log("info", as_json=False)
    forged = "x\n2026-01-01T00:00:00.000Z INFO    the relay has stopped"
    logger.info("%s", forged, extra={"fields": {"token": "a\r\nb"}})
    try:
        raise ValueError(forged)
    except ValueError:
        logger.exception("it failed")
    first, *more = capsys.readouterr().err.splitlines()
    assert first.endswith(r"x\n2026-01-01T00:00:00.000Z INFO    the relay has stopped token=a\r\nb")
    assert more[0].endswith("it failed") and all(line.startswith("    ") for line in more[1:])


def test_objects_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    write_log("debug", as_json=True)
    logger.warning("limits of %s", "x\ny", extra={"fields": {"clients": 3}})
    try:
        raise ValueError("why")
    except ValueError:
        logger.exception("it failed")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "warning",
        "target": "aioiroh.relayserver",
        "message": "limits of x\ny",
        "clients": 3,
    }
    assert second["level"] == "error" and "ValueError: why" in second["exception"]


def test_nothing_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    write_log("off", as_json=False)
    logger.critical("not even this")
    assert capsys.readouterr().err == ""
