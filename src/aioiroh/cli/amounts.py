"""Sizes, times and counts in words."""

from __future__ import annotations

__all__ = ["counted", "duration", "rate", "size"]

UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size(count: float) -> str:
    """Bytes in binary units with one decimal: `0 B`, `1023 B`, `1.0 KiB`, `3.4 GiB`."""
    if count < 1024:
        return f"{count:.0f} B"
    value = count
    for unit in UNITS:
        value /= 1024
        # 1023.95 would be shown as 1024.0.
        if value < 1023.95 or unit == UNITS[-1]:
            break
    return f"{value:.1f} {unit}"


def rate(per_second: float) -> str:
    """Bytes in a second: `3.4 MiB/s`."""
    return f"{size(per_second)}/s"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 05 s`, `2 h 07 min`, `3 d 04 h`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole // 60 % 60:02d} min"
    return f"{whole // 86400} d {whole // 3600 % 24:02d} h"


def counted(number: int, one: str, many: str | None = None) -> str:
    """`1 file`, `3,000 files`."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
