"""Values: what one report says (endpoint reference, section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from aioiroh.address import IpAddr, RelayUrl

__all__ = ["NetReport", "ObservedAddress", "RelayLatencies"]


@dataclass(frozen=True, slots=True)
class ObservedAddress:
    """The relay saw datagrams of the UDP socket in this slot of the engine come from `address`."""

    relay: RelayUrl
    slot: int
    address: IpAddr


@dataclass(frozen=True, slots=True)
class RelayLatencies:
    """Seconds of a round trip to each relay, by the way in which they were measured."""

    ipv4: Mapping[RelayUrl, float] = field(default_factory=dict)
    ipv6: Mapping[RelayUrl, float] = field(default_factory=dict)
    https: Mapping[RelayUrl, float] = field(default_factory=dict)

    def get(self, url: RelayUrl) -> float | None:
        """The lowest of all ways."""
        found = [way[url] for way in (self.ipv4, self.ipv6, self.https) if url in way]
        return min(found, default=None)

    @property
    def relays(self) -> frozenset[RelayUrl]:
        """Those with a measurement."""
        return frozenset((*self.ipv4, *self.ipv6, *self.https))

    def merged(self, other: RelayLatencies) -> RelayLatencies:
        """The lowest values of both."""
        return RelayLatencies(
            _lowest(self.ipv4, other.ipv4),
            _lowest(self.ipv6, other.ipv6),
            _lowest(self.https, other.https),
        )


def _lowest(
    one: Mapping[RelayUrl, float], other: Mapping[RelayUrl, float]
) -> Mapping[RelayUrl, float]:
    return {
        url: min(way[url] for way in (one, other) if url in way) for url in sorted({*one, *other})
    }


@dataclass(frozen=True, slots=True)
class NetReport:
    """What was found out. None is: not known."""

    udp_v4: bool = False
    """A relay answered over UDP and IPv4."""
    udp_v6: bool = False
    """A relay answered over UDP and IPv6."""
    mapping_varies_by_dest_ipv4: bool | None = None
    """Whether relays see different IPv4 addresses or ports of one socket: a NAT that maps by destination."""
    mapping_varies_by_dest_ipv6: bool | None = None
    preferred_relay: RelayUrl | None = None
    """The relay that is nearest, and so home."""
    relay_latency: RelayLatencies = field(default_factory=RelayLatencies)
    global_v4: IpAddr | None = None
    """Where relays see us."""
    global_v6: IpAddr | None = None
    captive_portal: bool | None = None
    """Whether something between here and the relays answers HTTP in their place."""
    observed: tuple[ObservedAddress, ...] = ()
    """What each relay saw; upstream's report has only `global_v4` and `global_v6` of it."""

    @property
    def has_udp(self) -> bool:
        """Whether UDP works at all."""
        return self.udp_v4 or self.udp_v6

    @property
    def mapping_varies_by_dest(self) -> bool | None:
        """Of both families together."""
        known = (self.mapping_varies_by_dest_ipv4, self.mapping_varies_by_dest_ipv6)
        if True in known:
            return True
        return False if False in known else None
