"""Addresses that stand for something else.

QUIC knows only socket addresses. What is none (all ways to a peer at once, a relay, a custom
transport) is shown to it as an IPv6 address below fd15:70a:510b::/48, and the engine's routes say what
that means. Such addresses never appear on the wire; their host part is random, so that nobody can
guess one and have us send somewhere.
"""

from __future__ import annotations

from enum import IntEnum
from ipaddress import IPv6Address

__all__ = ["MAPPED_PORT", "Mapped", "is_mapped", "mapped_ip"]

MAPPED_PORT = 12345
"""The port of every mapped address."""

HOST_SIZE = 8

_PREFIX = bytes.fromhex("fd15070a510b")


class Mapped(IntEnum):
    """What a mapped address stands for; the number is its subnet."""

    ANY_PATH = 0
    """Every way that is known to a peer."""
    RELAY = 1
    """A peer through a relay."""
    CUSTOM = 3
    """A peer on a custom transport."""


def mapped_ip(kind: Mapped, host: bytes) -> str:
    """The address with these 8 host bytes, which should be random. ValueError: other length."""
    if len(host) != HOST_SIZE:
        raise ValueError(f"the host part has {HOST_SIZE} bytes, not {len(host)}")
    return str(IPv6Address(_PREFIX + kind.to_bytes(2, "big") + host))


def is_mapped(ip: IPv6Address) -> bool:
    """Whether this is such an address; one that comes from the network must not be used."""
    return ip.packed.startswith(_PREFIX)
