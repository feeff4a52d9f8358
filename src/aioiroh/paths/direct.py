"""Under which IP addresses this machine can be reached, going by its interfaces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from aioiroh.address import IpAddr
from aioiroh.net import LocalAddress, UdpSlot

__all__ = ["OwnAddresses", "direct_addresses"]

_UNIQUE_LOCAL = IPv6Network("fc00::/7")


class OwnAddresses:
    """The addresses of an endpoint with these sockets."""

    def __init__(self, slots: Sequence[UdpSlot]) -> None:
        self._slots = slots
        self._versions = {ip_address(slot.host).version for slot in slots}
        self._own: frozenset[tuple[str, int]] = frozenset()

    def refresh(self, local: Sequence[LocalAddress]) -> tuple[IpAddr, ...]:
        """The machine has these addresses now; gives what peers should be told."""
        # Here also what nobody is told, such as loopback.
        own = [(slot.host, slot.port) for slot in self._slots]
        own += [(entry.ip, slot.port) for entry in local for slot in self._slots]
        self._own = frozenset(own)
        return direct_addresses(self._slots, local)

    def unusable(self, address: tuple[str, int]) -> str | None:
        """Why nothing can be sent to a peer at this IP address and port; None if it can."""
        if address in self._own:
            return "an address of this endpoint itself"
        version = 6 if ":" in address[0] else 4
        return None if version in self._versions else f"no IPv{version} socket is bound"


def direct_addresses(slots: Iterable[UdpSlot], local: Sequence[LocalAddress]) -> tuple[IpAddr, ...]:
    """What to tell peers: the address of each socket, interface addresses for a wildcard.

    For wildcards global and private addresses are taken; link-local IPv4 and unique-local IPv6 ones only
    without any of those; loopback ones only when the machine has no other address at all.
    """
    found: list[IpAddr] = []
    wildcard_ports: dict[int, list[int]] = {}
    for slot in slots:
        ip = ip_address(slot.host)
        if ip.is_unspecified:
            wildcard_ports.setdefault(ip.version, []).append(slot.port)
        else:
            found.append(IpAddr(ip, slot.port))
    interfaces = [(ip_address(entry.ip), entry.is_loopback) for entry in local]
    usable = [
        (ip, loopback)
        for ip, loopback in interfaces
        # Without its interface a link-local IPv6 address means nothing to a peer.
        if ip.version in wildcard_ports and not (ip.version == 6 and ip.is_link_local)
    ]
    chosen = (
        [ip for ip, loopback in usable if not loopback and not _is_last_resort(ip)]
        or [ip for ip, loopback in usable if not loopback]
        or [ip for ip, _ in usable if not found]
    )
    found += [IpAddr(ip, port) for ip in chosen for port in wildcard_ports[ip.version]]
    return tuple(dict.fromkeys(found))


def _is_last_resort(ip: IPv4Address | IPv6Address) -> bool:
    return ip.is_link_local if isinstance(ip, IPv4Address) else ip in _UNIQUE_LOCAL
