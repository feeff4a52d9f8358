"""A server's log on standard error: lines for people, or a JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
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


def write_log(level: str, *, as_json: bool) -> None:
    """From now on everything of this level and above is written."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if as_json else _TextFormatter())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(_NUMBERS[level])
    # What other libraries say in detail is of no use here.
    logging.getLogger("asyncio").setLevel(max(_NUMBERS[level], logging.WARNING))


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
