"""Values: what is measured, and what a report makes of it (endpoint reference, section 5)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from aioiroh.address import IpAddr, RelayUrl

__all__ = [
    "Measurement",
    "NetReport",
    "ObservedAddress",
    "Probe",
    "RelayLatencies",
    "latencies_of",
    "report_of",
]


class Probe(Enum):
    """How a relay is measured."""

    HTTPS = "https"
    QAD_IPV4 = "ipv4"
    QAD_IPV6 = "ipv6"


@dataclass(frozen=True, slots=True)
class Measurement:
    """A relay answered `probe` after `latency` seconds. Address discovery also has the address that the
    relay saw, and the slot of the UDP socket it was asked from.
    """

    probe: Probe
    relay: RelayUrl
    latency: float
    address: IpAddr | None = None
    slot: int | None = None


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


def latencies_of(measurements: Iterable[Measurement]) -> RelayLatencies:
    """The lowest value of each relay and way."""
    ways: dict[Probe, dict[RelayUrl, float]] = {probe: {} for probe in Probe}
    for one in measurements:
        way = ways[one.probe]
        way[one.relay] = min(one.latency, way.get(one.relay, one.latency))
    return RelayLatencies(ways[Probe.QAD_IPV4], ways[Probe.QAD_IPV6], ways[Probe.HTTPS])


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
    """What each relay saw, IPv4 first; upstream's report has only `global_v4` and `global_v6`."""

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


def report_of(
    measurements: Iterable[Measurement],
    captive_portal: bool | None = None,
    *,
    home: RelayUrl | None = None,
) -> NetReport:
    """What follows from these. What `home` sees comes first: where a NAT maps by destination, our address then does
    not change with the order of the answers.
    """
    known = sorted(measurements, key=lambda one: one.relay != home)
    v4 = _observed(known, Probe.QAD_IPV4, 4)
    v6 = _observed(known, Probe.QAD_IPV6, 6)
    return NetReport(
        udp_v4=bool(v4),
        udp_v6=bool(v6),
        mapping_varies_by_dest_ipv4=_varies(v4),
        mapping_varies_by_dest_ipv6=_varies(v6),
        preferred_relay=home,
        relay_latency=latencies_of(known),
        global_v4=v4[0].address if v4 else None,
        global_v6=v6[0].address if v6 else None,
        captive_portal=captive_portal,
        observed=(*v4, *v6),
    )


def _observed(
    known: Iterable[Measurement], probe: Probe, version: int
) -> tuple[ObservedAddress, ...]:
    """A relay that is asked over one IP version and tells an address of the other one tells nothing."""
    return tuple(
        ObservedAddress(one.relay, one.slot, one.address)
        for one in known
        if one.probe is probe
        and one.slot is not None
        and one.address is not None
        and one.address.ip.version == version
    )


def _varies(observed: Iterable[ObservedAddress]) -> bool | None:
    """Whether one socket was seen at several addresses; None: by one relay only."""
    first: dict[int, ObservedAddress] = {}
    answer: bool | None = None
    for one in observed:
        other = first.setdefault(one.slot, one)
        if one.relay != other.relay:
            answer = bool(answer) or one.address != other.address
    return answer
