"""Counters and gauges, in groups, under upstream's names. Reading them needs no server.

A group is a dataclass of plain numbers, so counting is `metrics.socket.send_ipv4 += size`. Rooms above
add groups of their own with `Metrics.add_group`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = [
    "GuessingMetrics",
    "Metrics",
    "NetReportMetrics",
    "PortmapMetrics",
    "SocketMetrics",
    "counter",
    "gauge",
]

G = TypeVar("G")


def counter(help: str) -> Any:
    """A field of a group that only grows, from 0."""
    return dataclasses.field(default=0, metadata={"kind": "counter", "help": help})


def gauge(help: str) -> Any:
    """A field of a group that goes up and down, from 0."""
    return dataclasses.field(default=0, metadata={"kind": "gauge", "help": help})


@dataclasses.dataclass(slots=True)
class SocketMetrics:
    """What upstream counts as `socket`, without the ticks of its internal actors."""

    send_ipv4: int = counter("Bytes sent over IPv4")
    send_ipv6: int = counter("Bytes sent over IPv6")
    send_relay: int = counter("Bytes sent over relays")
    recv_data_ipv4: int = counter("Bytes received over IPv4")
    recv_data_ipv6: int = counter("Bytes received over IPv6")
    recv_data_relay: int = counter("Bytes received over relays")
    recv_data_custom: int = counter("Bytes received over custom transports")
    recv_datagrams: int = counter("QUIC datagrams received")
    recv_gro_datagrams: int = counter("Batches of datagrams that the kernel had joined")
    relay_home_change: int = counter("Changes of the home relay, the first choice included")
    relay_conns_success: int = counter("Relay connections made")
    relay_conns_failed: int = counter("Relay connections that failed to be made")
    relay_conns_closed: int = counter("Relay connections closed")
    relay_conns_ratelimited: int = counter("Relay connections limited by the relay, each once")
    holepunch_attempts: int = counter("Hole-punching rounds begun, by the client side only")
    paths_direct: int = counter("Direct paths to peers")
    paths_relay: int = counter("Paths to peers through relays")
    paths_custom: int = counter("Paths to peers over custom transports")
    num_conns_direct: int = counter("Connections that were direct at some time")
    num_conns_opened: int = counter("Connections whose handshake completed")
    num_conns_closed: int = counter("Connections closed after their handshake had completed")
    transport_ip_paths_added: int = counter("IP paths opened")
    transport_ip_paths_removed: int = counter("IP paths closed")
    transport_relay_paths_added: int = counter("Relay paths opened")
    transport_relay_paths_removed: int = counter("Relay paths closed")
    transport_custom_paths_added: int = counter("Custom paths opened")
    transport_custom_paths_removed: int = counter("Custom paths closed")


@dataclasses.dataclass(slots=True)
class NetReportMetrics:
    """What upstream counts as `net_report`."""

    reports: int = counter("Reports begun")
    reports_full: int = counter("Full reports begun")
    portmap_attempts: int = counter("Attempts to have a port mapped")
    portmap_external_address_updated: int = counter("External addresses got by mapping a port")


@dataclasses.dataclass(slots=True)
class PortmapMetrics:
    """What upstream counts as `portmap`, without what it counts for each protocol."""

    probes_started: int = counter("Times the router was asked which protocols it has")
    mapping_attempts: int = counter("Mappings asked for, renewals included")
    mapping_failures: int = counter("Mappings that were not granted")
    external_address_updated: int = counter("Changes of the mapped external address")


@dataclasses.dataclass(slots=True)
class GuessingMetrics:
    """What upstream does not do: guessing the ports of NATs."""

    spreads: int = counter("Times that many sockets were opened for one peer")
    sweeps: int = counter("Times that many ports of one peer were tried")
    probes: int = counter("Datagrams sent that are not QUIC, to open filters of NATs")
    paths: int = counter("Direct paths over one of these sockets")


class Metrics:
    """All groups of one endpoint."""

    def __init__(self) -> None:
        self.socket = SocketMetrics()
        self.net_report = NetReportMetrics()
        self.portmap = PortmapMetrics()
        self.guessing = GuessingMetrics()
        self._groups: dict[str, Any] = {
            "socket": self.socket,
            "net_report": self.net_report,
            "portmap": self.portmap,
            "guessing": self.guessing,
        }
        self._sources: list[Callable[[], object]] = []

    def add_group(self, name: str, group: G) -> G:
        """Register a dataclass of `counter` and `gauge` fields; returns it. ValueError: name taken."""
        if name in self._groups:
            raise ValueError(f"there is a group {name!r} already")
        self._groups[name] = group
        return group

    def add_source(self, refresh: Callable[[], object]) -> None:
        """Call `refresh` before every reading, to copy in what is counted elsewhere."""
        self._sources.append(refresh)

    def snapshot(self) -> dict[str, dict[str, float]]:
        """Values now: group name to metric name to number."""
        for refresh in self._sources:
            refresh()
        return {
            name: {field.name: getattr(group, field.name) for field in dataclasses.fields(group)}
            for name, group in self._groups.items()
        }

    def openmetrics(self) -> str:
        """OpenMetrics 1.0 text, which Prometheus reads: `socket_send_ipv4_total 5` and so on."""
        values = self.snapshot()
        lines: list[str] = []
        for group_name, group in self._groups.items():
            for field in dataclasses.fields(group):
                name, kind = f"{group_name}_{field.name}", field.metadata["kind"]
                suffix = "_total" if kind == "counter" else ""
                lines += (
                    f"# HELP {name} {field.metadata['help']}.",
                    f"# TYPE {name} {kind}",
                    f"{name}{suffix} {values[group_name][field.name]}",
                )
        return "\n".join([*lines, "# EOF", ""])
