"""What a command shows: on a terminal, without one, or as JSON lines.

Standard output carries results only; everything meant for people goes to standard error.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, Self

__all__ = ["Bar", "Display", "JsonDisplay", "Part", "PlainDisplay", "choose_display", "visible"]

JSON_INTERVAL: Final = 0.5
"""Seconds between two progress events of one bar."""


MAX_PARTS: Final = 4
"""Parts of one bar that are shown."""


class Part(NamedTuple):
    """A file that is on its way: its name, bytes done, size in bytes."""

    name: str
    done: int
    size: int


Parts = Callable[[], Sequence[Part]]


class Bar:
    """Something that makes progress; this one is not shown. A context manager."""

    def update(
        self,
        done: int,
        total: int | None = None,
        *,
        detail: str = "",
        parts: Parts | None = None,
        **facts: object,
    ) -> None:
        """`done` of `total` bytes (None: unknown). `detail` is for people, `facts` for programs.

        `parts` is called when the files on their way are shown.
        """

    def close(self) -> None:
        """It makes no more progress and is taken away."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class Display:
    """Base of the three. Use it from one thread."""

    is_interactive = False
    """Whether a person watches."""
    on_lost: Callable[[], object] | None = None
    """Called when standard output takes no more results."""
    lost: OSError | None = None
    """Why it does not."""

    def note(self, text: str) -> None:
        """Lines for people."""

    def result(self, text: str) -> None:
        """A line on standard output, as it is."""
        self._write_result(text)

    def event(self, name: str, /, **facts: object) -> None:
        """Something that happened, for programs."""

    def bar(self, label: str, event: str | None = None, /, **facts: object) -> Bar:
        """A bar for people; for programs, events of the given name, if there is one."""
        return Bar()

    def copy(self, text: str) -> bool:
        """Puts `text` into the clipboard of whoever watches; False if nobody does."""
        return False

    def failed(self, message: str, code: int) -> None:
        """The command ends with an error."""
        _write(sys.stderr, visible(f"error: {message}"))

    def restore_terminal(self) -> None:
        """The process ends at once; leaves the terminal as it was."""

    def close(self) -> None:
        """Nothing moves any more."""

    def _write_result(self, text: str) -> None:
        if self.lost is not None:
            return
        try:
            _write(sys.stdout, text)
        except OSError as error:
            self.lost = error
            # Python writes what it has buffered when it ends; there it must not fail again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if self.on_lost is not None:
                self.on_lost()


class PlainDisplay(Display):
    """No terminal: lines for people, and no bars."""

    def note(self, text: str) -> None:
        _write(sys.stderr, visible(text))


class JsonDisplay(Display):
    """One JSON object a line on standard output; on standard error only what went wrong."""

    def result(self, text: str) -> None:
        """Events say it all."""

    def event(self, name: str, /, **facts: object) -> None:
        line = json.dumps({"event": name, **facts}, ensure_ascii=False)
        # A file name that is not UTF-8 stays valid JSON that way.
        self._write_result(line.encode("utf-8", "backslashreplace").decode())

    def bar(self, label: str, event: str | None = None, /, **facts: object) -> Bar:
        return Bar() if event is None else _JsonBar(self, event, facts)

    def failed(self, message: str, code: int) -> None:
        self.event("error", message=message, code=int(code))
        super().failed(message, code)


class _JsonBar(Bar):
    def __init__(self, display: JsonDisplay, event: str, facts: dict[str, Any]) -> None:
        self._display = display
        self._event = event
        self._facts = facts
        self._pending: dict[str, Any] | None = None
        self._parts: Parts | None = None
        self._next = 0.0

    def update(
        self,
        done: int,
        total: int | None = None,
        *,
        detail: str = "",
        parts: Parts | None = None,
        **facts: object,
    ) -> None:
        self._pending = {"bytes": done, "total_bytes": total, **facts}
        self._parts = parts
        now = asyncio.get_running_loop().time()
        if now >= self._next:
            self._next = now + JSON_INTERVAL
            self._emit()

    def close(self) -> None:
        self._emit()

    def _emit(self) -> None:
        if self._pending is not None:
            if self._parts is not None:
                self._pending["in_flight"] = [
                    {"name": part.name, "bytes": part.done, "total_bytes": part.size}
                    for part in self._parts()[:MAX_PARTS]
                ]
            self._display.event(self._event, **self._facts, **self._pending)
            self._pending = None


def choose_display(*, as_json: bool, with_log: bool = False) -> Display:
    """The display that fits the options and where standard error goes."""
    if as_json:
        return JsonDisplay()
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    # The lines of a log and bars would write over each other.
    if is_terminal and not with_log and os.environ.get("TERM") != "dumb":
        from .terminal import TerminalDisplay

        return TerminalDisplay()
    return PlainDisplay()


def visible(text: str) -> str:
    """`text` without what would steer a terminal or turn it around: that is escaped."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, text))


_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _visible(char: str) -> str:
    if char == "\n":
        return char
    if char in _DIRECTIONS or unicodedata.category(char) in {"Cc", "Cs", "Zl", "Zp"}:
        return char.encode("unicode_escape").decode()
    return char


def _write(stream: Any, text: str) -> None:
    if stream is None:  # closed before the process began
        return
    stream.flush()
    # Names may have what the terminal's encoding lacks, or bytes that are no text at all.
    stream.buffer.write(text.encode("utf-8", "surrogateescape") + b"\n")
    stream.flush()
