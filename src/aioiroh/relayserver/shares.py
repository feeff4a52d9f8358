"""Places for clients, of which no single address can take all."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address
from typing import Final

__all__ = ["Shares"]

MAX_SHARE: Final = 16
"""One IPv4 address or IPv6 /64 has at most one in so many of the places."""


class Shares:
    """Counts how many of `places` each remote address holds."""

    def __init__(self, places: int) -> None:
        self._most = max(places // MAX_SHARE, 1)
        self._held: Counter[str] = Counter()

    def has_room(self, host: str) -> bool:
        """Whether there is a place for another one from this IP address."""
        return self._held[_share_of(host)] < self._most

    def take(self, host: str) -> str:
        """A place; gives what `give` wants back."""
        share = _share_of(host)
        self._held[share] += 1
        return share

    def give(self, share: str) -> None:
        """The place is free again."""
        self._held[share] -= 1
        if not self._held[share]:
            del self._held[share]


def _share_of(host: str) -> str:
    """What counts as one client: an IPv4 address, the network of an IPv6 address."""
    try:
        ip = ip_address(host)
    except ValueError:  # it is gone already
        return host
    if ip.version == 6 and ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return host if ip.version == 4 else ip.packed[:8].hex()
