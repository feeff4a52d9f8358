"""Interfaces, and the segments that join them."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from random import Random
from typing import Protocol

from aioiroh.testing.link import Link, Pipe
from aioiroh.testing.tcp.header import TcpHeader
from aioiroh.testing.wire import Packet, Wire

__all__ = ["Interface", "Node", "Segment"]


class Node(Protocol):
    """Something with interfaces: a host, or a box between segments."""

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
        self.addresses = tuple(str(ip_address(ip)) for ip in addresses)
        self._is_up = True
        self._up = Pipe(link, random)
        self._down = Pipe(link, random)
        segment.attach(self)

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
            wire.carry(self._up, packet, self.segment.forward)
        else:
            wire.record(packet, "interface down")

    def deliver(self, packet: Packet) -> None:
        """From the segment towards the node."""
        self.segment.wire.carry(self._down, packet, self._arrived)

    def _arrived(self, packet: Packet) -> None:
        if self.up:
            self.node.receive(packet, self)
        else:
            self.segment.wire.record(packet, "interface down")

    def __repr__(self) -> str:
        return f"<Interface {self.name} {' '.join(self.addresses)}{'' if self.up else ' down'}>"


class Segment:
    """Interfaces that reach each other by address: the internet, or a private network."""

    def __init__(self, name: str, wire: Wire) -> None:
        self.name = name
        self.wire = wire
        self._table: dict[str, Interface] = {}

    def attach(self, interface: Interface) -> None:
        """Make an interface reachable. Raises ValueError if one of its addresses is taken."""
        for ip in interface.addresses:
            if ip in self._table:
                raise ValueError(f"the address {ip} is taken on {self.name}")
        self._table.update(dict.fromkeys(interface.addresses, interface))

    def forward(self, packet: Packet) -> None:
        """To the interface with the destination's address."""
        interface = self._table.get(packet.destination[0])
        if interface is None:
            self.wire.record(packet, "unreachable")
            self._answer(packet)
        else:
            interface.deliver(packet)

    def _answer(self, packet: Packet) -> None:
        """Tell the sender of a TCP packet that there is no way, which ends a dial at once."""
        sender = self._table.get(packet.source[0])
        if sender is None or packet.tcp is None or packet.tcp.unreachable:
            return
        header = TcpHeader(0, unreachable=True)
        sender.deliver(Packet(packet.destination, packet.source, b"", tcp=header))

    def __repr__(self) -> str:
        return f"<Segment {self.name}>"
