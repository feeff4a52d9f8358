"""What guessing may cost, and from what it concludes who has to do what.

Where a NAT gives a socket another port for each destination, nobody can name the port at which it lets a
certain peer in; so ordinary hole punching fails if the peer's NAT is particular, too, about whom it lets
in. Then the side with such a NAT *spreads*: it sends to the peer's address from many sockets, so that
many ports of its NAT let the peer in. And it *announces* that, by naming several ports of one address. The
other side *sweeps*: it sends to many ports of that address. Among 64,512 ports 256 are hit by one of
1,000 probes with a probability of 98 %, by one of 2,200 with 99.98 %.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from aioiroh.net import UdpSlot
from aioiroh.paths.selection import Address
from aioiroh.report import NetReport

__all__ = [
    "ANNOUNCED",
    "ATTEMPTS",
    "ENOUGH",
    "KEEP",
    "LISTEN",
    "NAMES",
    "NAME_STEP",
    "PATIENCE",
    "PORTS",
    "RESTS",
    "SOCKETS",
    "STEP",
    "STEP_PORTS",
    "STEP_SOCKETS",
    "SWEEP",
    "SWEEPS",
    "TARGETS",
    "TRY",
    "Mapping",
    "Sight",
    "announced_ip",
    "targets",
]

PATIENCE: Final = 2.0
"""Seconds that ordinary hole punching has: by then eight of its nine probes have been sent."""
SOCKETS: Final = 256
"""Sockets that are opened for one peer, and for one peer at a time; and that are kept for all peers together."""
ENOUGH: Final = 64
"""Sockets with which it is worth while if the system gives no more: a sweep hits one with a probability of 86 %."""
STEP: Final = 0.02
"""Seconds between steps."""
STEP_SOCKETS: Final = 16
"""Sockets that are opened in one step: less than a millisecond of work."""
STEP_PORTS: Final = 10
"""Probes in one step: 500 in a second, or 180 kbit/s."""
SWEEP: Final = 2_200
"""Probes of one sweep."""
PORTS: Final = range(1024, 65_536)
"""The ports that NATs give away."""
TARGETS: Final = 2
"""Addresses of the peer that are spread to: a port mapping's and that of its NAT, say."""
ANNOUNCED: Final = 14
"""Ports that are named at once. Two times as many, and four other addresses, are those that a peer keeps."""
TOLD_APART: Final = 8
"""Ports of one address by which the peer knows an announcement: sockets, the five relays of a report and
port mappings make fewer.
"""
LISTEN: Final = 5.0
"""Seconds from the announcement on in which a sweep of the peer must get through."""
NAME_STEP: Final = 0.05
"""Seconds after which other ports are named to a peer that seems not to sweep: its ordinary hole punching tries
all that it is told. As few as two of its probes go to each, as a new round ends the one before.
"""
NAMES: Final = 150
"""So many times: 2,100 ports in 7.5 s. If one round in six is overtaken by the next, one port is hit with a
probability of 99.9 %.
"""
TRY: Final = 4.0
"""Seconds that a path has to come about once a probe got through."""
PAUSE: Final = 1.5
"""Seconds that a sweep pauses when the peer names the port where a probe got through."""
KEEP: Final = 10.0
"""Seconds that a socket is kept without a path over it."""
RESTS: Final = (60.0, 300.0, 1800.0)
"""Seconds without another attempt after the first, the second, and all later failures."""
ATTEMPTS: Final = 3
"""Spreads of one endpoint in a row; then one in `RESTS[0]`."""
SWEEPS: Final = 3
"""Sweeps of one endpoint in a row; then one in `RESTS[1]`. A peer must not have us sweep whom it likes."""

_LOCAL: Final = tuple(
    IPv4Network(network)
    for network in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
    )
)


@dataclass(frozen=True, slots=True)
class Mapping:
    """What NATs make of our IPv4 socket, as far as relays have told.

    `seen`: addresses at which they see it. `port`: its own. `varies`: whether what they see depends on
    the destination, None if that is not known.
    """

    seen: tuple[Address, ...] = ()
    port: int = 0
    varies: bool | None = None

    @property
    def ip(self) -> str | None:
        return self.seen[-1][0] if self.seen else None

    @property
    def is_scattered(self) -> bool:
        """Whether the peer cannot know our ports. NATs that give all destinations the same one mostly
        leave it as it is, so that a single relay has to do.
        """
        if self.varies is None:
            return any(port != self.port for _, port in self.seen)
        return self.varies and bool(self.seen)

    @classmethod
    def of(cls, report: NetReport, slots: Iterable[UdpSlot]) -> Mapping:
        """As the report says of the first IPv4 socket of these."""
        slot = next((slot for slot in slots if ":" not in slot.host), None)
        if slot is None:
            return cls()
        seen = [
            each.address.pair
            for each in report.observed
            if each.slot == slot.index and ":" not in each.address.pair[0]
        ]
        if not seen and report.global_v4 is not None:
            seen.append(report.global_v4.pair)
        return cls(tuple(dict.fromkeys(seen)), slot.port, report.mapping_varies_by_dest_ipv4)


@dataclass(frozen=True, slots=True)
class Sight:
    """What is the case between us and a peer: the addresses that it has named, the latest at the end, and
    the remote ends of direct paths that work.
    """

    theirs: tuple[Address, ...] = ()
    direct: frozenset[Address] = frozenset()


def _ports(theirs: Iterable[Address]) -> dict[str, set[int]]:
    ports: dict[str, set[int]] = {}
    for ip, port in theirs:
        if ":" not in ip:
            ports.setdefault(ip, set()).add(port)
    return ports


def _is_local(ip: str) -> bool:
    address = IPv4Address(ip)
    return any(address in network for network in _LOCAL)


def _may_be_hit(ip: str, own: str | None) -> bool:
    """Whether a peer may have us send many datagrams there. Nobody may point us at our own local network, unless we
    are known by such an address ourselves; in a lab all addresses may be such. And never at many at once.
    """
    address = IPv4Address(ip)
    if address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    return not _is_local(ip) or (own is not None and _is_local(own))


def targets(sight: Sight, mapping: Mapping) -> tuple[Address, ...]:
    """The addresses to spread to. None if the peer spreads itself: then there is nothing to be hit."""
    own = mapping.ip
    if own is None or announced_ip(sight.theirs, own) is not None:
        return ()
    found = [
        (ip, port)
        for ip, port in sight.theirs
        # Peers name addresses behind their NAT, too.
        if ":" not in ip and ip != own and _may_be_hit(ip, own)
    ]
    return tuple(found[-TARGETS:])


def announced_ip(theirs: Iterable[Address], own: str | None) -> str | None:
    """The address of which the peer names so many ports that it must be spreading, unless it is `own`."""
    for ip, ports in _ports(theirs).items():
        if ip != own and len(ports) >= TOLD_APART and _may_be_hit(ip, own):
            return ip
    return None
