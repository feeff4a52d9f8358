"""Addresses of this machine's network interfaces, from `getifaddrs` of the C library."""

from __future__ import annotations

import ipaddress
import socket
import sys
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ctypes

__all__ = ["LocalAddress", "interface_addresses"]

_IFF_UP = 0x1
_IFF_LOOPBACK = 0x8


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """One address of one interface that is up.

    `prefix` is the length of the network prefix in bits; `scope` the interface index of a
    link-local IPv6 address, else 0.
    """

    interface: str
    ip: str
    prefix: int
    is_loopback: bool
    scope: int = 0

    @property
    def is_link_local(self) -> bool:
        """Usable only together with its interface (fe80::/10, 169.254/16)."""
        return ipaddress.ip_address(self.ip).is_link_local


def interface_addresses() -> tuple[LocalAddress, ...]:
    """All IPv4 and IPv6 addresses of interfaces that are up. Raises OSError."""
    if sys.platform == "win32":
        return _by_host_name()
    import ctypes

    library, entry_type = _library()
    head = ctypes.c_void_p()
    if library.getifaddrs(ctypes.byref(head)) != 0:
        raise OSError(ctypes.get_errno(), "the system does not list its network interfaces")
    try:
        found: list[LocalAddress] = []
        position = head.value
        while position:
            entry: Any = entry_type.from_address(position)
            address = _address(entry) if entry.flags & _IFF_UP else None
            if address is not None:
                found.append(address)
            position = entry.next
        return tuple(found)
    finally:
        library.freeifaddrs(head)


@cache
def _library() -> tuple[ctypes.CDLL, type[ctypes.Structure]]:
    # Loaded at the first use: ctypes costs some milliseconds that an import should not.
    import ctypes

    class Entry(ctypes.Structure):
        _fields_ = (
            ("next", ctypes.c_void_p),
            ("name", ctypes.c_char_p),
            ("flags", ctypes.c_uint),
            ("address", ctypes.c_void_p),
            ("netmask", ctypes.c_void_p),
        )

    return ctypes.CDLL(None, use_errno=True), Entry


def _address(entry: Any) -> LocalAddress | None:
    own = _sockaddr(entry.address)
    mask = _sockaddr(entry.netmask)
    if own is None:
        return None
    raw, scope = own
    prefix = len(raw) * 8 if mask is None else int.from_bytes(mask[0], "big").bit_count()
    ip = ipaddress.ip_address(raw)
    return LocalAddress(
        interface=entry.name.decode(errors="surrogateescape"),
        ip=str(ip),
        prefix=prefix,
        is_loopback=bool(entry.flags & _IFF_LOOPBACK),
        scope=scope if ip.is_link_local else 0,
    )


def _sockaddr(position: int | None) -> tuple[bytes, int] | None:
    """Address and scope of a `struct sockaddr` of family inet or inet6."""
    import ctypes

    if not position:
        return None
    head = ctypes.string_at(position, 2)
    # BSD has a length byte before a family byte, Linux a family of two bytes.
    family = int.from_bytes(head, sys.byteorder) if sys.platform == "linux" else head[1]
    if family == socket.AF_INET:
        return ctypes.string_at(position + 4, 4), 0
    if family == socket.AF_INET6:
        scope = int.from_bytes(ctypes.string_at(position + 24, 4), sys.byteorder)
        return ctypes.string_at(position + 8, 16), scope
    return None


def _by_host_name() -> tuple[LocalAddress, ...]:
    found = []
    for family, _, _, _, address in socket.getaddrinfo(socket.gethostname(), None):
        ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
        if family in (socket.AF_INET, socket.AF_INET6):
            found.append(LocalAddress("", str(ip), ip.max_prefixlen, ip.is_loopback))
    return tuple(dict.fromkeys(found))
