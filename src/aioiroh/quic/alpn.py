"""Names of application protocols (RFC 7301)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from aioiroh.errors import InvalidAlpnError

__all__ = ["MAX_ALPN_SIZE", "Alpns", "checked_alpns"]

Alpns: TypeAlias = bytes | Sequence[bytes]
"""One protocol or several, the preferred one first; each 1 to 255 bytes."""

MAX_ALPN_SIZE = 255


def checked_alpns(alpns: Alpns) -> tuple[bytes, ...]:
    """The protocols, of which there is at least one. Raises InvalidAlpnError."""
    checked = (bytes(alpns),) if isinstance(alpns, (bytes, bytearray)) else tuple(alpns)
    if not checked:
        raise InvalidAlpnError("no protocol was named; give at least one ALPN")
    for alpn in checked:
        if not isinstance(alpn, bytes) or not 1 <= len(alpn) <= MAX_ALPN_SIZE:
            raise InvalidAlpnError(f"an ALPN is 1 to {MAX_ALPN_SIZE} bytes, not {alpn!r}")
    return checked
