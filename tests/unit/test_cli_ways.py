"""Ways and times in words."""

from __future__ import annotations

from typing import Any

import pytest

from aioiroh.cli.reach.ways import milliseconds, way_of
from aioiroh.quic import PathInfo


def path(id: int, relay: str | None = None, status: Any = "available") -> PathInfo:
    remote = ("fd00::1", 7) if relay else ("10.0.0.1", id)
    return PathInfo(id, remote, None, status, None, relay, None, 0.01, {})


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        ([path(0)], "directly, at 10.0.0.1:0"),
        ([path(0, "https://r/?token=secret")], "through the relay https://r/"),
        ([path(0, "https://r/", "backup"), path(1)], "directly, at 10.0.0.1:1"),
        ([path(0, "https://r/"), path(1, status="backup")], "through the relay https://r/"),
        ([path(0, "https://r/"), path(1)], "directly, at 10.0.0.1:1"),
        ([path(2, status="backup"), path(1, status="backup")], "directly, at 10.0.0.1:1"),
    ],
)
def test_the_way_that_data_take(paths: list[PathInfo], words: str) -> None:
    assert str(way_of(paths)) == words


def test_no_way() -> None:
    assert way_of([]) is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0002144, "0.21 ms"), (0.0123, "12.3 ms"), (0.8124, "812 ms"), (12.5, "12500 ms")],
)
def test_milliseconds(seconds: float, text: str) -> None:
    assert milliseconds(seconds) == text
