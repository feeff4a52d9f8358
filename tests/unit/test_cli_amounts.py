"""Sizes, times and rates in words."""

from __future__ import annotations

import itertools

import pytest

from aioiroh.cli.amounts import counted, duration, rate, size
from aioiroh.cli.meter import WINDOW, Meter


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (1024**2, "1.0 MiB"),
        (3_650_722_201, "3.4 GiB"),
        (1024**6 * 5000, "5000.0 EiB"),
    ],
)
def test_size(count: int, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7 * 3600 + 61, "7 h 01 min"),
        (100 * 3600, "4 d 04 h"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_counted() -> None:
    assert counted(1, "file") == "1 file"
    assert counted(3000, "file") == "3,000 files"
    assert counted(0, "entry", "entries") == "0 entries"


def test_rate() -> None:
    assert rate(1024.0) == "1.0 KiB/s"


def test_a_steady_amount_has_a_steady_rate() -> None:
    meter = Meter(0.0)
    for tick in range(1, 200):
        meter.add(tick / 20, tick * 50)
    assert meter.rate(10.0, 10_000) == pytest.approx(1000)


def test_standing_still_lowers_the_rate_to_nothing() -> None:
    meter = Meter(0.0)
    meter.add(1.0, 1000)
    rates = [meter.rate(1.0 + tick / 10, 1000) for tick in range(int(WINDOW * 10) + 12)]
    assert rates[0] == pytest.approx(1000)
    assert all(late <= early for early, late in itertools.pairwise(rates))
    assert rates[-1] == 0


def test_what_was_there_at_the_beginning_does_not_count() -> None:
    meter = Meter(5.0, 1_000_000)
    assert meter.rate(5.0, 1_000_000) == 0
    assert meter.rate(6.0, 1_000_100) == pytest.approx(100)


def test_few_samples_are_kept() -> None:
    meter = Meter(0.0)
    for tick in range(100_000):
        meter.add(tick / 1000, tick)
    assert len(meter._samples) < 100
    assert meter.rate(100.0, 100_000) == pytest.approx(1000, rel=0.05)
