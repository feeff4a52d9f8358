"""Interfaces, and the segments that join them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from random import Random
from typing import Protocol

from aioiroh.testing.link import Link, Pipe
from aioiroh.testing.tcp.header import TcpHeader
from aioiroh.testing.wire import Packet, Wire

__all__ = ["Interface", "Node", "Segment"]


class Node(Protocol):
    """Something with interfaces: a host, or a router between segments."""

    def receive(self, packet: Packet, interface: Interface) -> None:
        """A packet arrived at one of the node's interfaces."""

    def changed(self) -> None:
        """One of its interfaces went up or down, or has other addresses."""


class Interface:
    """One attachment of a node to a segment, with a link each way.

    `up` may be cleared and set while traffic runs: while it is down nothing leaves and nothing arrives.
    `uplink` (from the node) and `downlink` (to it) may be replaced at any time; what is under way
    arrives as it would have.
    """

    def __init__(
        self,
        name: str,
        node: Node,
        segment: Segment,
        addresses: Sequence[str],
        *,
        link: Link,
        random: Random,
    ) -> None:
        self.name = name
        self.node = node
        self.segment = segment
        self._addresses: tuple[str, ...] = ()
        self._is_up = True
        self._up = Pipe(link, random)
        self._down = Pipe(link, random)
        self._take(addresses)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Its IP addresses. Others may be set at any time: what is under way to one that is gone gets lost.

        Setting raises ValueError if one of them is taken.
        """
        return self._addresses

    @addresses.setter
    def addresses(self, addresses: Sequence[str]) -> None:
        self._take(addresses)
        self.node.changed()

    def _take(self, addresses: Sequence[str]) -> None:
        wanted = tuple(str(ip_address(ip)) for ip in addresses)
        self.segment.attach(self, wanted)
        self._addresses = wanted

    def detach(self) -> None:
        """Leave the segment for good."""
        self._is_up = False
        self.segment.attach(self, ())

    def renumber(self) -> None:
        """Give it other addresses of its segment, of the IP versions that it has."""
        versions = {6 if ":" in ip else 4 for ip in self.addresses}
        self.addresses = self.segment.free_addresses(ipv4=4 in versions, ipv6=6 in versions)

    @property
    def up(self) -> bool:
        """Whether it carries anything."""
        return self._is_up

    @up.setter
    def up(self, value: bool) -> None:
        if value != self._is_up:
            self._is_up = value
            self.node.changed()

    @property
    def uplink(self) -> Link:
        """The link that carries what the node sends."""
        return self._up.link

    @uplink.setter
    def uplink(self, link: Link) -> None:
        self._up.link = link

    @property
    def downlink(self) -> Link:
        """The link that carries what the node receives."""
        return self._down.link

    @downlink.setter
    def downlink(self, link: Link) -> None:
        self._down.link = link

    def address(self, version: int) -> str | None:
        """The first address of an IP version, 4 or 6."""
        return next((ip for ip in self.addresses if (":" in ip) == (version == 6)), None)

    def send(self, packet: Packet) -> None:
        """From the node towards the segment."""
        wire = self.segment.wire
        if self.up:
            wire.carry(self._up, packet, self._sent)
        else:
            wire.record(packet, "interface down")

    def deliver(self, packet: Packet) -> None:
        """From the segment towards the node."""
        self.segment.wire.carry(self._down, packet, self._arrived)

    def _sent(self, packet: Packet) -> None:
        self.segment.forward(packet, self)

    def _arrived(self, packet: Packet) -> None:
        if self.up:
            self.node.receive(packet, self)
        else:
            self.segment.wire.record(packet, "interface down")

    def __repr__(self) -> str:
        return f"<Interface {self.name} {' '.join(self.addresses)}{'' if self.up else ' down'}>"


class Segment:
    """Interfaces that reach each other by address: the internet, or a private network.

    What goes to no address here goes to the `gateway`, if there is one.
    """

    def __init__(
        self,
        name: str,
        wire: Wire,
        next_addresses: Callable[[], Sequence[str]],
        networks: Sequence[str] = (),
    ) -> None:
        """`next_addresses` gives one address of each IP version there is, others each time. `networks` are
        those that they are of.
        """
        self.name = name
        self.networks = tuple(map(ip_network, networks))
        self.wire = wire
        self.gateway: Interface | None = None
        self._next_addresses = next_addresses
        self._table: dict[str, Interface] = {}
        self._routes: list[tuple[IPv4Network | IPv6Network, Interface]] = []

    def free_addresses(self, *, ipv4: bool = True, ipv6: bool = True) -> tuple[str, ...]:
        """Addresses of this segment that nobody has had yet."""
        while True:
            found = self._next_addresses()
            if not any(ip in self._table for ip in found):
                return tuple(ip for ip in found if (ipv6 if ":" in ip else ipv4))

    def attach(self, interface: Interface, addresses: Sequence[str]) -> None:
        """Make an interface reachable at these addresses, and no more at those it had.

        Raises ValueError if one of them is taken.
        """
        for ip in addresses:
            if self._table.get(ip, interface) is not interface:
                raise ValueError(f"the address {ip} is taken on {self.name}")
        for ip in interface.addresses:
            self._table.pop(ip, None)
        self._table.update(dict.fromkeys(addresses, interface))

    def is_near(self, ip: str) -> bool:
        """Whether it is an address of one of its networks."""
        return any(ip_address(ip) in network for network in self.networks)

    @property
    def leads_elsewhere(self) -> bool:
        """Whether it is the internet, or has a gateway."""
        return self.gateway is not None or not self.networks

    def add_route(self, network: str, interface: Interface) -> None:
        """Addresses of that network are behind that interface."""
        self._routes.append((ip_network(network), interface))

    def forward(self, packet: Packet, sender: Interface) -> None:
        """To the interface with the destination's address, or through which it is reached."""
        ip = packet.destination[0]
        interface = self._table.get(ip) or self._route(ip) or self.gateway
        if interface is None or interface is sender:
            self.wire.record(packet, "unreachable")
            self._answer(packet, sender)
        else:
            interface.deliver(packet)

    def _route(self, ip: str) -> Interface | None:
        if self._routes:
            address = ip_address(ip)
            for network, interface in self._routes:
                if address in network:
                    return interface
        return None

    def _answer(self, packet: Packet, sender: Interface) -> None:
        """Tell the sender of a TCP packet that there is no way, which ends a dial at once."""
        if packet.tcp is not None and not packet.tcp.unreachable:
            header = TcpHeader(0, unreachable=True)
            sender.deliver(Packet(packet.destination, packet.source, b"", tcp=header))

    def __repr__(self) -> str:
        return f"<Segment {self.name}>"
