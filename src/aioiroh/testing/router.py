"""A router between a private network and the one outside, with NAT and firewall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from aioiroh.testing.link import PERFECT, Link
from aioiroh.testing.nat import Firewall, Nat, NatTable, Protocol
from aioiroh.testing.segment import Interface, Segment
from aioiroh.testing.wire import Packet

if TYPE_CHECKING:
    from aioiroh.testing.network import VirtualNetwork

__all__ = ["Router"]


class Router:
    """Joins the segment `inside`, where it is the gateway, with another one, at the interface `outside`.

    IPv4 addresses are translated by the rules of `nat`. IPv6 addresses, and without `nat` those of IPv4,
    stay as they are, and with `firewall` only answers come in. Both rules hold for TCP as well.
    """

    def __init__(
        self,
        network: VirtualNetwork,
        name: str,
        *,
        nat: Nat | None,
        firewall: bool,
        behind: Router | None,
        inside: Segment,
        outside: Segment,
        addresses: Sequence[str],
        link: Link,
    ) -> None:
        self.name = name
        self.inside = inside
        self.carries_udp = True
        """Whether UDP passes; a strict firewall lets only TCP out."""
        self._network = network
        random = network.chance(f"router {name}")
        self.outside = Interface("outside", self, outside, addresses, link=link, random=random)
        self._gateway = Interface(
            "inside", self, inside, inside.free_addresses(), link=PERFECT, random=random
        )
        inside.gateway = self._gateway
        self._nat = None if nat is None else NatTable(nat, random)
        self._firewall = Firewall() if firewall else None
        self._behind = behind
        self._addresses = self.outside.addresses
        for prefix in inside.networks:
            self._announce(str(prefix))

    def _announce(self, prefix: str) -> None:
        """Addresses inside that are not translated are reached through here from everywhere."""
        if self._nat is None or ":" in prefix:
            self.outside.segment.add_route(prefix, self.outside)
            if self._behind is not None:
                self._behind._announce(prefix)

    @property
    def up(self) -> bool:
        """Whether anything passes. Hosts inside do not see that it does not."""
        return self.outside.up

    @up.setter
    def up(self, value: bool) -> None:
        self.outside.up = value

    @property
    def nat(self) -> Nat | None:
        """The rules, which may be replaced; mappings that there are stay until `flush`."""
        return None if self._nat is None else self._nat.nat

    @nat.setter
    def nat(self, nat: Nat) -> None:
        if self._nat is None:
            raise ValueError(f"{self.name} does not translate addresses")
        self._nat.nat = nat

    def flush(self) -> None:
        """Forget all mappings and permissions, as one does that starts anew."""
        if self._nat is not None:
            self._nat.flush()
        if self._firewall is not None:
            self._firewall.flush()

    def forward_port(self, protocol: Protocol, port: int, inner: tuple[str, int]) -> None:
        """Let everybody reach an address inside by a port outside. Raises ValueError without NAT."""
        if self._nat is None:
            raise ValueError(f"{self.name} does not translate addresses")
        self._nat.forward(protocol, port, inner)

    # --- a node of the network

    def changed(self) -> None:
        """With another outer address the mappings of the old one are worth nothing."""
        if self.outside.addresses != self._addresses:
            self._addresses = self.outside.addresses
            self.flush()

    def receive(self, packet: Packet, interface: Interface) -> None:
        """Pass a packet on, or drop it."""
        if packet.tcp is None and not self.carries_udp:
            self._drop(packet)
        elif interface is self._gateway:
            self._leaves(packet)
        else:
            self._enters(packet)

    def _leaves(self, packet: Packet) -> None:
        now, protocol = self._network.loop.time(), _protocol(packet)
        if packet.destination[0] in self._gateway.addresses:
            self._network.wire.record(packet, "port closed")
            return
        if self._nat is None or ":" in packet.source[0]:
            if self._firewall is not None:
                self._firewall.outbound(now, protocol, packet.source, packet.destination)
            self.outside.send(packet)
            return
        outer_ip = self.outside.address(4)
        port = self._nat.outbound(now, protocol, packet.source, packet.destination)
        if outer_ip is None or port is None:
            self._drop(packet)
            return
        translated = replace(packet, source=(outer_ip, port))
        if packet.destination[0] != outer_ip:
            self.outside.send(translated)
        elif self._nat.nat.hairpin:
            self._enters(translated)
        else:
            self._drop(packet)

    def _enters(self, packet: Packet) -> None:
        now, protocol = self._network.loop.time(), _protocol(packet)
        if self._nat is not None and ":" not in packet.destination[0]:
            inner = self._nat.inbound(now, protocol, packet.destination[1], packet.source)
            if inner is None:
                self._drop(packet)
            else:
                self._gateway.send(replace(packet, destination=inner))
        elif packet.destination[0] in self.outside.addresses or (
            self._firewall is not None
            and not self._firewall.inbound(now, protocol, packet.destination, packet.source)
        ):
            self._drop(packet)
        else:
            self._gateway.send(packet)

    def _drop(self, packet: Packet) -> None:
        self._network.wire.record(packet, "filtered")

    def __repr__(self) -> str:
        return f"<Router {self.name} {' '.join(self.outside.addresses)}>"


def _protocol(packet: Packet) -> Protocol:
    return "udp" if packet.tcp is None else "tcp"
