"""Under which addresses peers may reach us, going by what relays see (endpoint reference, section 4.6)."""

from __future__ import annotations

from aioiroh.address import IpAddr
from aioiroh.report.report import NetReport

__all__ = ["outside_addresses"]


def outside_addresses(report: NetReport, fixed_port: int | None) -> tuple[IpAddr, ...]:
    """The addresses to offer to peers.

    `fixed_port`: the IPv4 port that the application has asked for. Where a NAT maps by destination, maybe
    somebody has told it to forward that port.
    """
    found = [report.global_v4, report.global_v6]
    if report.global_v4 is not None and fixed_port and report.mapping_varies_by_dest:
        found.append(IpAddr(report.global_v4.ip, fixed_port))
    # A relay on this machine sees what nobody else could use.
    return tuple(addr for addr in found if addr is not None and not addr.ip.is_loopback)
