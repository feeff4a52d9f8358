"""A machine on a virtual network, seen through the port that endpoints use."""

from __future__ import annotations

import errno
from asyncio import BaseProtocol, DatagramProtocol
from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING, TypeVar

from aioiroh.net import LocalAddress, SlotHost, TcpListener, UdpOptions, UdpSlot
from aioiroh.testing.link import Link, Pipe
from aioiroh.testing.ports import is_wildcard
from aioiroh.testing.segment import Interface, Segment
from aioiroh.testing.tcp.stack import TcpStack
from aioiroh.testing.udp import UdpPorts
from aioiroh.testing.wire import Packet

if TYPE_CHECKING:
    from aioiroh.testing.network import VirtualNetwork

__all__ = ["Host"]

P = TypeVar("P", bound=BaseProtocol)
D = TypeVar("D", bound=DatagramProtocol)

START_OF_TIME = 1_767_225_600.0
"""The wall clock when the loop's clock shows 0: 2026-01-01 00:00:00 UTC."""
FAR_AWAY = ("192.0.2.1", "2001:db8::1")
LOOPBACK = ("127.0.0.1", "::1")
LOCAL_LINK = Link(latency=0.0005)
"""How a host is attached where it is not to the internet."""
LOOPBACK_LINK = Link(latency=0.00001, mtu=65_536, queue=65_536)


class Host:
    """A machine: pass it as `network=` when binding an endpoint.

    It implements `aioiroh.net.Network`. Clock, wall clock, secrets and chance repeat with the network's
    seed.
    """

    def __init__(self, network: VirtualNetwork, name: str) -> None:
        self.network = network
        self.name = name
        self.interfaces: dict[str, Interface] = {}
        self.router: str | None = None
        """The IPv4 address of the router that port mappings are asked of; by default nobody is asked."""
        self._random = network.chance(f"host {name}")
        self._secrets = network.chance(f"secrets of {name}")
        self._loopback = Pipe(LOOPBACK_LINK, self._random)
        self.clock_ahead = 0.0
        """Seconds by which the wall clock is wrong; it jumps when this is set."""
        self._watchers: dict[object, Callable[[], None]] = {}
        self._udp = UdpPorts(self)
        self._tcp = TcpStack(self)

    # --- for people

    def add_interface(
        self,
        name: str,
        *,
        addresses: Sequence[str] | None = None,
        ipv4: bool = True,
        ipv6: bool = True,
        link: Link | None = None,
        segment: Segment | None = None,
    ) -> Interface:
        """Attach the host once more. The arguments are those of `VirtualNetwork.host`."""
        if name in self.interfaces:
            raise ValueError(f"{self.name} has an interface {name} already")
        network = self.network
        if segment is None:
            segment = network.internet
        if link is None:
            link = network.link if segment is network.internet else LOCAL_LINK
        if addresses is None:
            addresses = segment.free_addresses(ipv4=ipv4, ipv6=ipv6)
        interface = Interface(
            name,
            self,
            segment,
            addresses,
            link=link,
            random=network.chance(f"interface {name} of {self.name}"),
        )
        self.interfaces[name] = interface
        self.changed()
        return interface

    def remove_interface(self, name: str) -> None:
        """Take an interface away, with its addresses."""
        interface = self.interfaces.pop(name)
        interface.detach()
        self.changed()

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses of all interfaces, loopback excepted."""
        return tuple(ip for face in self.interfaces.values() for ip in face.addresses)

    @property
    def bound_udp(self) -> tuple[tuple[str, int], ...]:
        """IP addresses and ports of all UDP sockets that are open."""
        return tuple(self._udp.taken)

    @property
    def up(self) -> bool:
        """Whether any interface is up; setting it takes all interfaces up or down."""
        return any(interface.up for interface in self.interfaces.values())

    @up.setter
    def up(self, value: bool) -> None:
        for interface in self.interfaces.values():
            interface.up = value

    def crash(self) -> None:
        """What a process that is killed leaves behind: its TCP connections are reset, and nobody listens."""
        self._tcp.crash()

    def changed(self) -> None:
        """Tell those who watch the host's network that interfaces or addresses have changed."""
        for on_change in tuple(self._watchers.values()):
            on_change()

    def set_link(self, link: Link) -> None:
        """Replace the links of all interfaces, in both directions."""
        for interface in self.interfaces.values():
            interface.uplink = interface.downlink = link

    # --- the port

    @property
    def random(self) -> Random:
        return self._random

    @property
    def engine_clock(self) -> Callable[[], float] | None:
        return self.network.loop.time

    def monotonic(self) -> float:
        return self.network.loop.time()

    def wall_clock(self) -> float:
        return START_OF_TIME + self.network.loop.time() + self.clock_ahead

    def secret(self, size: int) -> bytes:
        return self._secrets.randbytes(size)

    def local_addresses(self) -> Sequence[LocalAddress]:
        found = [
            LocalAddress("lo", "127.0.0.1", 8, is_loopback=True),
            LocalAddress("lo", "::1", 128, is_loopback=True),
        ]
        for interface in self.interfaces.values():
            if interface.up:
                for ip in interface.addresses:
                    prefix = 64 if ":" in ip else 24
                    found.append(LocalAddress(interface.name, ip, prefix, is_loopback=False))
        return tuple(found)

    def outward_addresses(self) -> Sequence[str]:
        return tuple(filter(None, map(self.source_for, FAR_AWAY)))

    def gateway(self) -> str | None:
        return self.router

    def watch(self, on_change: Callable[[], None]) -> Callable[[], None]:
        key = object()
        self._watchers[key] = on_change

        def end() -> None:
            self._watchers.pop(key, None)

        return end

    def bind_udp(self, host: SlotHost, address: tuple[str, int], options: UdpOptions) -> UdpSlot:
        return self._udp.bind(host, *address)

    def rebind_udp(self, host: SlotHost, slot: UdpSlot) -> UdpSlot:
        return slot

    async def open_udp(self, protocol_factory: Callable[[], D], host: str, port: int) -> D:
        return self._udp.open(protocol_factory, host, port)

    async def resolve(self, host: str) -> Sequence[str]:
        return self.network.resolve(host)

    async def connect_tcp(self, protocol_factory: Callable[[], P], host: str, port: int) -> P:
        return await self._tcp.connect(protocol_factory, host, port)

    async def listen_tcp(
        self, protocol_factory: Callable[[], BaseProtocol], host: str, port: int
    ) -> TcpListener:
        return await self._tcp.listen(protocol_factory, host, port)

    # --- packets

    def check_own(self, ip: str) -> None:
        """Raises OSError: it is no address of this host."""
        if not is_wildcard(ip) and not self._is_own(ip):
            raise OSError(errno.EADDRNOTAVAIL, f"{self.name} has no address {ip}")

    def source_for(self, destination: str) -> str | None:
        """From which of its addresses the host sends there: its own, or that of the interface on whose
        segment it is, or that of the first that leads elsewhere. None: there is no way.
        """
        if self._is_own(destination):
            return destination
        version = 6 if ":" in destination else 4
        ways = [face for face in self.interfaces.values() if face.up and face.address(version)]
        near = (face for face in ways if face.segment.is_near(destination))
        far = (face for face in ways if face.segment.leads_elsewhere)
        chosen = next(near, None) or next(far, None)
        return None if chosen is None else chosen.address(version)

    def mtu(self, ip: str) -> int:
        """Bytes of the largest packet from one of its addresses."""
        interface = self._interface(ip)
        return LOOPBACK_LINK.mtu if interface is None else interface.uplink.mtu

    def send(self, packet: Packet) -> None:
        """Put a packet on its way, by the interface that has its source address."""
        wire = self.network.wire
        wire.record(packet, "sent")
        if self._is_own(packet.destination[0]):
            wire.carry(self._loopback, packet, self._arrived)
            return
        interface = self._interface(packet.source[0])
        if interface is None:
            wire.record(packet, "unreachable")
        else:
            interface.send(packet)

    def receive(self, packet: Packet, interface: Interface) -> None:
        self._arrived(packet)

    def _arrived(self, packet: Packet) -> None:
        ports = self._udp if packet.tcp is None else self._tcp
        if not ports.arrived(packet):
            self.network.wire.record(packet, "port closed")

    def _is_own(self, ip: str) -> bool:
        return ip in LOOPBACK or ip in self.addresses

    def _interface(self, ip: str) -> Interface | None:
        for interface in self.interfaces.values():
            if ip in interface.addresses:
                return interface
        return None

    def __repr__(self) -> str:
        return f"<Host {self.name} {' '.join(self.addresses)}>"
