"""The router of the local network, from Linux's routing table."""

from __future__ import annotations

import sys
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

__all__ = ["default_gateway", "gateway_in"]

ROUTES: Final = Path("/proc/thread-self/net/route")
_UP_AND_GATEWAY: Final = 0x3
_BYTE_ORDER: Final = sys.byteorder


def default_gateway() -> str | None:
    """The IPv4 address of the router on the default route; None: there is none, or the system does not tell it."""
    try:
        table = ROUTES.read_text()
    except OSError:
        return None
    return gateway_in(table)


def gateway_in(table: str) -> str | None:
    """The same from the text of `/proc/net/route`: the default route with the lowest metric."""
    best: tuple[int, str] | None = None
    for line in table.splitlines()[1:]:
        fields = line.split()
        try:
            _, destination, gateway, flags, _, _, metric, mask = fields[:8]
            route = int(flags, 16), int(metric), int(destination, 16), int(mask, 16)
            # As the processor holds it: the kernel prints the four bytes as one number.
            address = str(IPv4Address(int(gateway, 16).to_bytes(4, _BYTE_ORDER)))
        except (ValueError, OverflowError):
            continue
        flag_bits, cost, network, bits = route
        if network == bits == 0 and flag_bits & _UP_AND_GATEWAY == _UP_AND_GATEWAY:
            best = min(best or (cost, address), (cost, address))
    return None if best is None else best[1]
