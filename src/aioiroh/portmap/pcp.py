"""Messages of the Port Control Protocol, RFC 6887. Only what maps a UDP port."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from aioiroh.address import IpAddr
from aioiroh.errors import DecodeError

__all__ = ["NONCE_SIZE", "UNSUPPORTED_VERSION", "Granted", "Reply", "announce", "map_port", "read"]

VERSION: Final = 2
ANNOUNCE: Final = 0
MAP: Final = 1
REPLY: Final = 0x80
UDP: Final = 17
NONCE_SIZE: Final = 12
MAX_SIZE: Final = 1100
UNSUPPORTED_VERSION: Final = 1
RESULTS: Final = (
    "success",
    "unsupported version",
    "not authorized",
    "malformed request",
    "unsupported opcode",
    "unsupported option",
    "malformed option",
    "network failure",
    "no resources",
    "unsupported protocol",
    "user exceeded quota",
    "cannot provide the external port",
    "address mismatch",
    "excessive remote peers",
)
"""Section 7.4, by number."""

_REQUEST: Final = struct.Struct("!BBHI16s")
_REPLY: Final = struct.Struct("!BBBBII12x")
_MAP: Final = struct.Struct("!12sB3xHH16s")
_ANY: Final = "0.0.0.0"


@dataclass(frozen=True, slots=True)
class Granted:
    """What a reply to `map_port` says of the mapping."""

    nonce: bytes
    protocol: int
    port: int
    external: IpAddr


@dataclass(frozen=True, slots=True)
class Reply:
    """`lifetime` in seconds; `granted` only in a reply to `map_port`, and `result` 0 is success."""

    opcode: int
    result: int
    lifetime: int
    granted: Granted | None

    @property
    def problem(self) -> str:
        """The result in words."""
        return RESULTS[self.result] if self.result < len(RESULTS) else f"error {self.result}"


def announce(client: str) -> bytes:
    """Asks whether there is a server (section 14.1); `client` is the IPv4 address that the request comes from."""
    return _REQUEST.pack(VERSION, ANNOUNCE, 0, 0, _packed(client))


def map_port(client: str, nonce: bytes, port: int, lifetime: int, wanted: IpAddr | None) -> bytes:
    """Asks for a mapping of a UDP port, or to end it (lifetime 0), section 11.1.

    The nonce names the mapping from then on. `wanted` is the external address that would be best.
    """
    ip, external_port = (_ANY, 0) if wanted is None else (str(wanted.ip), wanted.port)
    head = _REQUEST.pack(VERSION, MAP, 0, lifetime, _packed(client))
    return head + _MAP.pack(nonce, UDP, port, external_port, _packed(ip))


def read(data: bytes) -> Reply:
    """Raises DecodeError: it is no reply."""
    if not _REPLY.size <= len(data) <= MAX_SIZE:
        # A server that has only NAT-PMP answers in its own, shorter form (appendix A).
        if len(data) >= 4 and data[0] == 0 and data[1] & REPLY:
            return Reply(data[1] & ~REPLY, UNSUPPORTED_VERSION, 0, None)
        raise DecodeError("no reply of PCP: wrong length")
    version, opcode, _, result, lifetime, _ = _REPLY.unpack_from(data)
    if not opcode & REPLY:
        raise DecodeError("no reply of PCP, but a request")
    opcode &= ~REPLY
    if version != VERSION:
        return Reply(opcode, UNSUPPORTED_VERSION, 0, None)
    granted = None
    if opcode == MAP and result == 0:
        if len(data) < _REPLY.size + _MAP.size:
            raise DecodeError("no reply of PCP: it says nothing of the mapping")
        nonce, protocol, port, external_port, ip = _MAP.unpack_from(data, _REPLY.size)
        address = IPv6Address(ip)
        external = IpAddr(address.ipv4_mapped or address, external_port)
        granted = Granted(nonce, protocol, port, external)
    return Reply(opcode, result, lifetime, granted)


def _packed(ip: str) -> bytes:
    """Section 5: an IPv4 address in the form of IPv6."""
    return bytes(10) + b"\xff\xff" + IPv4Address(ip).packed
