"""Messages of the NAT Port Mapping Protocol, RFC 6886. Only what maps a UDP port."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from aioiroh.errors import DecodeError

__all__ = ["ASK_ADDRESS", "AddressReply", "MapReply", "map_port", "read"]

ADDRESS: Final = 0
MAP_UDP: Final = 1
REPLY: Final = 0x80
ASK_ADDRESS: Final = bytes([0, ADDRESS])
"""Asks for the external address (section 3.2)."""
RESULTS: Final = (
    "success",
    "unsupported version",
    "refused",
    "network failure",
    "out of resources",
    "unsupported opcode",
)
"""Section 3.5, by number."""

_MAP: Final = struct.Struct("!BBHHHI")
_HEAD: Final = struct.Struct("!BBHI")
_MAPPED: Final = struct.Struct("!HHI")


@dataclass(frozen=True, slots=True)
class AddressReply:
    """The external address; `result` 0 is success."""

    result: int
    ip: IPv4Address


@dataclass(frozen=True, slots=True)
class MapReply:
    """A mapping of our `port`; `lifetime` in seconds, `result` 0 is success."""

    result: int
    port: int
    external_port: int
    lifetime: int


def problem(result: int) -> str:
    """A result in words."""
    return RESULTS[result] if result < len(RESULTS) else f"error {result}"


def map_port(port: int, external_port: int, lifetime: int) -> bytes:
    """Asks for a mapping of a UDP port, or to end it (lifetime and external port 0), section 3.3."""
    return _MAP.pack(0, MAP_UDP, 0, port, external_port, lifetime)


def read(data: bytes) -> AddressReply | MapReply:
    """Raises DecodeError: it is no reply. What a failed one does not contain is 0."""
    if len(data) < _HEAD.size:
        raise DecodeError("no reply of NAT-PMP: too short")
    version, opcode, result, _ = _HEAD.unpack_from(data)
    if version != 0 or not opcode & REPLY:
        raise DecodeError("no reply of NAT-PMP")
    rest = data[_HEAD.size :]
    match opcode & ~REPLY:
        case 0 if result or len(rest) >= 4:
            return AddressReply(result, IPv4Address(rest[:4].ljust(4, b"\0")))
        case 1 if result or len(rest) >= _MAPPED.size:
            return MapReply(result, *_MAPPED.unpack_from(rest.ljust(_MAPPED.size, b"\0")))
        case _:
            raise DecodeError("no reply of NAT-PMP: another operation, or too short")
