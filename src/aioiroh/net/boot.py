"""Which start of the system this is: what was written under another one went through the disk."""

from __future__ import annotations

import sys
from functools import cache

__all__ = ["boot_id"]


@cache
def boot_id() -> bytes:
    """A value that changes with every start of the system; empty if the system has none."""
    platform: str = sys.platform
    if platform == "darwin":
        return _by_sysctl(b"kern.bootsessionuuid")
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return file.read(64).strip()
    except OSError:
        return b""


def _by_sysctl(name: bytes) -> bytes:
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    value = ctypes.create_string_buffer(64)
    size = ctypes.c_size_t(len(value))
    if library.sysctlbyname(name, value, ctypes.byref(size), None, 0) != 0:
        return b""
    return value.value
