"""Application error codes (RFC 9000 section 20.2)."""

from __future__ import annotations

__all__ = ["MAX_CODE", "checked_code"]

MAX_CODE = 2**62 - 1
"""Error codes are QUIC integers (RFC 9000 section 16)."""


def checked_code(code: int) -> int:
    """The code. ValueError: it does not fit on the wire."""
    if not 0 <= code <= MAX_CODE:
        raise ValueError("the code must be from 0 to 2**62 - 1")
    return code
