"""What is written where."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import re
from typing import Any

import pytest

from aioiroh.blobs import ExportConflictError, NotAvailableError
from aioiroh.cli.display import (
    Display,
    JsonDisplay,
    Part,
    PlainDisplay,
    choose_display,
    visible,
)
from aioiroh.cli.failures import MAX_LISTED, ExitCode, Failure, explain
from aioiroh.errors import (
    ApplicationClosedError,
    AuthenticationError,
    BindError,
    ConnectionTimeoutError,
    ConnectTimeoutError,
    TicketParsingError,
)

Output = pytest.CaptureFixture[bytes]


def test_visible() -> None:
    for text in ("plain", "naïve ☕ 日本語", "👩‍👩‍👧", "two\nlines", "no-break\u00a0space"):
        assert visible(text) == text
    assert visible("\x1b[2J\x07") == "\\x1b[2J\\x07"
    assert visible("a\u202egpj.exe") == "a\\u202egpj.exe"
    assert visible("caf\udce9") == "caf\\udce9"
    assert visible("a\rb\x9bc\u2028d") == "a\\rb\\x9bc\\u2028d"


def test_plain(capsysbinary: Output) -> None:
    display = PlainDisplay()
    display.note("for people \x1b[31m")
    display.result("caf\udce9 \x1b")
    display.event("ignored", value=1)
    with display.bar("bar", "progress") as bar:
        bar.update(1, 2)
    display.failed("it broke", ExitCode.FAILED)
    out, err = capsysbinary.readouterr()
    assert out == b"caf\xe9 \x1b\n"
    assert err == b"for people \\x1b[31m\nerror: it broke\n"


def test_json(capsysbinary: Output) -> None:
    display = JsonDisplay()
    display.note("for people")
    display.result("for people")
    display.event("ready", name="ü \n", path="caf\udce9")
    display.failed("it broke", ExitCode.CONFLICT)
    out, err = capsysbinary.readouterr()
    lines = [json.loads(line) for line in out.decode().splitlines()]
    assert lines == [
        {"event": "ready", "name": "ü \n", "path": "caf\udce9"},
        {"event": "error", "message": "it broke", "code": 3},
    ]
    assert err == b"error: it broke\n"


async def test_progress_events_are_few_and_the_last_is_among_them(capsysbinary: Output) -> None:
    display = JsonDisplay()
    with display.bar("silent") as silent, display.bar("told", "progress", id=7) as bar:
        for done in range(1001):
            bar.update(done, 1000, files=3)
            silent.update(done, 1000)
    events = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    assert len(events) == 2
    assert events[-1] == {
        "event": "progress",
        "id": 7,
        "bytes": 1000,
        "total_bytes": 1000,
        "files": 3,
    }


@pytest.mark.parametrize("display", [PlainDisplay(), JsonDisplay()], ids=["plain", "json"])
def test_output_that_is_lost(monkeypatch: pytest.MonkeyPatch, display: Display) -> None:
    lost: list[bool] = []
    display.on_lost = lambda: lost.append(True)
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        for _ in range(3):
            display.event("one")
            display.result("one")
        monkeypatch.undo()
    assert lost == [True]
    assert display.lost is not None and display.lost.errno == errno.ENOSPC


def test_no_standard_streams_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    monkeypatch.setattr("sys.stderr", None)
    display = choose_display(as_json=False)
    display.note("x")
    display.result("x")
    display.failed("x", 1)


@pytest.mark.parametrize(
    ("error", "says", "code"),
    [
        (Failure("no", ExitCode.CONFLICT), "no", 3),
        (ConnectTimeoutError("no connection to abc within 3 s"), "within 3 s", 4),
        (ConnectionTimeoutError(), "no longer answers", 4),
        (ApplicationClosedError(0), "stopped before everything had come", 4),
        (ApplicationClosedError(2, b"limit"), "code 2: 'limit'", 4),
        (NotAvailableError("the provider lacks it"), "lacks it", 5),
        (TicketParsingError("damaged"), "damaged", 5),
        (AuthenticationError("no key"), "no key", 1),
        (BindError(98, "cannot bind 127.0.0.1:1: in use"), "cannot bind", 1),
        (OSError(errno.ENOSPC, "x", "/a/b"), "/a/b: no space left on device; free some", 1),
        (PermissionError(errno.EACCES, "x"), "permission denied; change its permissions", 1),
        (OSError("odd"), "odd", 1),
        (BrokenPipeError(errno.EPIPE, "x"), "nobody reads", 1),
        (ValueError("two files"), "two files", 2),
        (MemoryError(), "memory", 1),
        (KeyError("x"), "bug in aioiroh", 1),
        (ExceptionGroup("several", [ConnectionTimeoutError()]), "no longer answers", 4),
    ],
)
def test_errors_in_words(error: BaseException, says: str, code: int) -> None:
    failure = explain(error)
    assert says in str(failure)
    assert failure.code == code


def test_conflicts_are_listed() -> None:
    failure = explain(ExportConflictError([f"/there/{number}" for number in range(2000)]))
    lines = str(failure).splitlines()
    assert failure.code == ExitCode.CONFLICT
    assert "--overwrite" in lines[-1]
    assert lines[1] == "  /there/0"
    assert lines[-2] == f"  and {2000 - MAX_LISTED:,} more"


def test_files_in_flight_have_lines_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from aioiroh.cli import terminal
    from aioiroh.testing import run

    seen = io.StringIO()
    monkeypatch.setattr(
        terminal,
        "Console",
        lambda **_: Console(file=seen, force_terminal=True, width=100, color_system=None),
    )

    async def show(_network: object) -> list[str]:
        display = terminal.TerminalDisplay()
        first = display.bar("first")
        second = display.bar("second")
        parts = [Part("album/a", 1024, 2048), Part("very/long/" * 9 + "n\x1b", 0, 5)]
        first.update(1, 10, parts=lambda: parts)
        second.update(1, 10)
        await asyncio.sleep(2 * terminal.SETTLED)
        parts[0] = Part("album/a", 2047, 2048)
        await asyncio.sleep(2 * terminal.FRAME)
        before = seen.getvalue()
        parts.pop()
        await asyncio.sleep(2 * terminal.FRAME)
        after = seen.getvalue()[len(before) :]
        first.close()
        second.close()
        display.close()
        return [before, after]

    before, after = run(show)
    picture = before[before.rindex("first") :]
    lines = [line.strip() for line in picture.splitlines()]
    assert "album/a" in lines[1] and "2.0 KiB of 2.0 KiB" in lines[1]
    assert re.search(r"[0-9.]+ (B|KiB)/s +0.0 s left", lines[1])
    assert "…" in lines[2] and "long/n" in lines[2] and "\\x1b" in lines[2]
    assert "second" in lines[3]
    assert "album/a" in after and "long" not in after[after.rindex("first") :]


def test_what_the_terminal_shows() -> None:
    from aioiroh.cli.terminal import FRAME, TerminalDisplay
    from aioiroh.testing import run

    async def show(_network: object) -> dict[str, Any]:
        display = TerminalDisplay()
        bar: Any = display.bar("[b]label", "progress")
        now = asyncio.get_running_loop().time()
        seen = {"nothing": bar.line.describe(now)}
        bar.update(0, None, detail="3 of 4 files")
        seen["detail"] = bar.line.describe(now + 0.1)
        bar.update(1 << 20, 11 << 20)
        seen["early"] = bar.line.describe(now + 0.2)
        seen["rate"] = bar.line.describe(now + 1)
        seen["stalled"] = bar.line.describe(now + 100)
        await asyncio.sleep(2 * FRAME)
        bar.close()
        bar.close()
        display.close()
        return seen

    # In virtual time: a busy machine must not look like a slow transfer.
    assert run(show) == {
        "nothing": {"amount": "", "rate": "", "left": ""},
        "detail": {"amount": "3 of 4 files", "rate": "", "left": ""},
        "early": {"amount": "1.0 MiB of 11.0 MiB", "rate": "", "left": ""},
        "rate": {"amount": "1.0 MiB of 11.0 MiB", "rate": "1.0 MiB/s", "left": "10 s left"},
        "stalled": {"amount": "1.0 MiB of 11.0 MiB", "rate": "stalled", "left": ""},
    }
