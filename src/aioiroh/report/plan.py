"""Rules: when a report is due, whom it asks, and how long (endpoint reference, sections 5.1 to 5.5)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv6Network, ip_address
from random import Random
from typing import Final

from aioiroh.address import RelayConfig, RelayUrl
from aioiroh.net import LocalAddress
from aioiroh.report.report import NetReport

__all__ = [
    "CAPTIVE_DELAY",
    "CAPTIVE_TIMEOUT",
    "FULL_INTERVAL",
    "HTTPS_DELAYS",
    "PROBE_TIMEOUT",
    "REPORT_TIMEOUT",
    "NetReportConfig",
    "Reason",
    "address_to_ask",
    "available_versions",
    "next_report_after",
    "should_be_full",
    "to_ask",
]

PERIOD: Final = (20.0, 26.0)
"""Seconds from one report to the next, by chance; just below the usual 30 s of a NAT's UDP mappings."""
FULL_INTERVAL: Final = 300.0
"""Seconds after which a report is a full one again."""
REPORT_TIMEOUT: Final = 5.0
PROBE_TIMEOUT: Final = 3.0
"""Seconds for one probe, the resolution of the relay's name included."""
HTTPS_DELAYS: Final = (0.2, 0.3, 0.4)
"""Seconds after the start of a report at which a relay is tried over HTTPS, until it has answered."""
CAPTIVE_DELAY: Final = 0.2
CAPTIVE_TIMEOUT: Final = 2.0
MAX_ASKED: Final = 5
"""Relays asked for our address in one report."""
MAX_HTTPS: Final = 16
"""Relays measured over HTTPS in one report."""

_GLOBAL = IPv6Network("2000::/3")
_UNIQUE_LOCAL = IPv6Network("fc00::/7")


@dataclass(frozen=True, slots=True)
class NetReportConfig:
    """What a net report may find out besides where relays see us; by default all of it, as upstream's.

    `https_probes`: how long relays take to answer over HTTPS. Without that no relay is found to be near where UDP does
    not work; the first one is home then. `captive_portal_check`: whether somebody answers HTTP in the relays' place.
    """

    https_probes: bool = True
    captive_portal_check: bool = True


class Reason(Enum):
    """Why a report is wanted."""

    PERIODIC = "periodic"
    ADDRESS_OBSERVED = "address observed"
    """A relay sees us at another address."""
    PORT_MAPPED = "port mapped"
    LINK_CHANGE_MINOR = "minor link change"
    LINK_CHANGE_MAJOR = "major link change"
    RELAYS_CHANGED = "relays changed"
    HOME_LOST = "home relay lost"
    """The connection to the home relay has ended, and there is no new one."""
    HOME_BACK = "home relay back"
    """The home relay is connected, so that UDP may work again, too."""

    @property
    def is_major(self) -> bool:
        """Whether what is known so far may be wrong: a full report begins at once."""
        return self in (Reason.LINK_CHANGE_MAJOR, Reason.RELAYS_CHANGED, Reason.HOME_LOST)


def should_be_full(now: float, last_full: float | None, last: NetReport | None) -> bool:
    """Whether a report that nothing major calls for asks all relays; `last_full`: when one did."""
    if last is None or last_full is None or now - last_full > FULL_INTERVAL:
        return True
    # Maybe somebody has passed the portal meanwhile.
    return last.captive_portal is True and not last.has_udp


def next_report_after(random: Random) -> float:
    """Seconds to wait."""
    return random.uniform(*PERIOD)


def to_ask(
    relays: Sequence[RelayConfig], home: RelayUrl | None, random: Random, limit: int
) -> Sequence[RelayConfig]:
    """At most `limit` of the relays: the home relay and, if there are too many, others by chance."""
    if len(relays) <= limit:
        return tuple(relays)
    first = [relay for relay in relays if relay.url == home][:limit]
    rest = [relay for relay in relays if relay.url != home]
    return (*first, *random.sample(rest, limit - len(first)))


def available_versions(local: Iterable[LocalAddress], bound: Iterable[int]) -> frozenset[int]:
    """The IP versions that a socket is bound for and the machine has more than local addresses of."""
    reaching = {
        ip.version
        for ip in (ip_address(entry.ip) for entry in local if not entry.is_loopback)
        if (not ip.is_link_local if ip.version == 4 else ip in _GLOBAL or ip in _UNIQUE_LOCAL)
    }
    return frozenset(reaching) & frozenset(bound)


def address_to_ask(addresses: Iterable[str], version: int, available: frozenset[int]) -> str | None:
    """The first of a relay's addresses that can be asked over this IP version.

    A relay on this very machine can be, even if the machine is on no network.
    """
    for text in addresses:
        ip = ip_address(text)
        if ip.version == version and (version in available or ip.is_loopback):
            return text
    return None
