"""A server's log on standard error: lines for people, or a JSON object a line."""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
from contextlib import suppress
from datetime import UTC, datetime
from textwrap import indent
from typing import Final

from ..display import visible

__all__ = ["write_log"]

_NUMBERS: Final = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "off": logging.CRITICAL + 1,
}


MAX_WAITING: Final = 10_000
"""Lines that wait to be written; more are lost."""
LAST_WORDS: Final = 1.0
"""Seconds for the last lines of a process that ends."""


def write_log(level: str, *, as_json: bool) -> None:
    """From now on everything of this level and above is written."""
    handler = _Writer(sys.stderr.fileno()) if sys.stderr is not None else logging.NullHandler()
    handler.setFormatter(_JsonFormatter() if as_json else _TextFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(_NUMBERS[level])
    # What other libraries say in detail is of no use here.
    logging.getLogger("asyncio").setLevel(max(_NUMBERS[level], logging.WARNING))


class _Writer(logging.Handler):
    """Writes in a thread of its own: a pipe that nobody empties must not hold up what is logged about."""

    def __init__(self, file: int) -> None:
        super().__init__()
        self._file = file
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_WAITING)
        self._lost = 0
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        if self._lost:
            words = f"{self._lost} lines were lost, since nobody has read the log"
            facts = {"name": record.name, "levelno": logging.WARNING, "levelname": "WARNING"}
            if self._put(logging.makeLogRecord({**facts, "msg": words})):
                self._lost = 0
        if self._lost or not self._put(record):
            self._lost += 1

    def close(self) -> None:
        """The process ends."""
        if self._thread.is_alive():
            with suppress(queue.Full):
                self._lines.put(None, timeout=LAST_WORDS)
                self._thread.join(LAST_WORDS)
        super().close()

    def _put(self, record: logging.LogRecord) -> bool:
        try:
            self._lines.put_nowait(self.format(record))
        except queue.Full:
            return False
        return True

    def _write(self) -> None:
        # Not through `sys.stderr`, whose lock the end of the process would wait for. Nobody may read any more.
        with suppress(OSError):
            while (line := self._lines.get()) is not None:
                data = memoryview(line.encode("utf-8", "backslashreplace") + b"\n")
                while data:
                    data = data[os.write(self._file, data) :]


def _time(record: logging.LogRecord) -> str:
    text = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields = getattr(record, "fields", {})
    return dict(fields) if isinstance(fields, dict) else {}


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = "".join(f" {name}={value}" for name, value in _fields(record).items())
        # One line, whoever had a say in it: none is to look like another one's.
        text = f"{record.getMessage()}{facts}".replace("\n", "\\n")
        text = f"{_time(record)} {record.levelname:<7} {text}"
        if record.exc_info:
            text += "\n" + indent(self.formatException(record.exc_info), "    ")
        return visible(text)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "target": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            facts["exception"] = self.formatException(record.exc_info)
        return json.dumps(facts, default=str)
