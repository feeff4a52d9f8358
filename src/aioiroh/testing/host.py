"""A machine on a virtual network, seen through the port that endpoints use."""

from __future__ import annotations

import errno
import os
from asyncio import BaseProtocol
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from random import Random
from typing import TYPE_CHECKING, TypeVar
from weakref import ref

from aioiroh.net import LocalAddress, SlotHost, UdpOptions, UdpSlot
from aioiroh.testing.link import Link, Pipe
from aioiroh.testing.segment import Interface, Segment
from aioiroh.testing.wire import Packet

if TYPE_CHECKING:
    from aioiroh.testing.network import VirtualNetwork

__all__ = ["Host"]

P = TypeVar("P", bound=BaseProtocol)

START_OF_TIME = 1_767_225_600.0
"""The wall clock when the loop's clock shows 0: 2026-01-01 00:00:00 UTC."""
FIRST_EPHEMERAL_PORT = 49_152
LOOPBACK = ("127.0.0.1", "::1")
WILDCARDS = ("0.0.0.0", "::")
LOOPBACK_LINK = Link(latency=0.00001, mtu=65_536, queue=65_536)
OUTPUT_BATCHES = 64


@dataclass(slots=True, eq=False)
class _Socket:
    """A UDP port of the host, and the engine's slot behind it."""

    # An endpoint that nobody holds any more goes away, as it would on the real network.
    owner: ref[SlotHost]
    ip: str
    port: int
    slot: int = -1

    @property
    def is_wildcard(self) -> bool:
        return self.ip in WILDCARDS

    def takes_all_of(self, ip: str) -> bool:
        """Whether it is bound to all addresses of this one's IP version."""
        return self.is_wildcard and (":" in self.ip) == (":" in ip)


class Host:
    """A machine: pass it as `network=` when binding an endpoint.

    It implements `aioiroh.net.Network`. Clock, wall clock, secrets and chance repeat with the network's
    seed.
    """

    def __init__(self, network: VirtualNetwork, name: str) -> None:
        self.network = network
        self.name = name
        self.interfaces: dict[str, Interface] = {}
        self._sockets: dict[int, list[_Socket]] = {}
        self._random = network.chance(f"host {name}")
        self._secrets = network.chance(f"secrets of {name}")
        self._loopback = Pipe(LOOPBACK_LINK, self._random)
        self._next_port = FIRST_EPHEMERAL_PORT
        self._watchers: dict[object, Callable[[], None]] = {}

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
        interface = Interface(
            name,
            self,
            network.internet if segment is None else segment,
            network.free_addresses(ipv4=ipv4, ipv6=ipv6) if addresses is None else addresses,
            link=network.link if link is None else link,
            random=network.chance(f"interface {name} of {self.name}"),
        )
        self.interfaces[name] = interface
        return interface

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses of all interfaces, loopback excepted."""
        return tuple(ip for face in self.interfaces.values() for ip in face.addresses)

    @property
    def up(self) -> bool:
        """Whether any interface is up; setting it takes all interfaces up or down."""
        return any(interface.up for interface in self.interfaces.values())

    @up.setter
    def up(self, value: bool) -> None:
        for interface in self.interfaces.values():
            interface.up = value

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
        return START_OF_TIME + self.network.loop.time()

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
        routes = (self._route(None, ipv6) for ipv6 in (False, True))
        return tuple(source for source, interface in routes if interface is not None)

    def watch(self, on_change: Callable[[], None]) -> Callable[[], None]:
        key = object()
        self._watchers[key] = on_change

        def end() -> None:
            self._watchers.pop(key, None)

        return end

    async def connect_tcp(self, protocol_factory: Callable[[], P], host: str, port: int) -> P:
        raise OSError(errno.ENETUNREACH, "virtual networks carry datagrams only")

    def bind_udp(self, host: SlotHost, address: tuple[str, int], options: UdpOptions) -> UdpSlot:
        ip = str(ip_address(address[0]))
        socket = _Socket(ref(host), ip, address[1])
        if not socket.is_wildcard and ip not in (*LOOPBACK, *self.addresses):
            raise OSError(errno.EADDRNOTAVAIL, f"{self.name} has no address {ip}")
        if not socket.port:
            socket.port = self._free_port(ip)
        elif self._conflict(ip, socket.port):
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        socket.slot = host.add_virtual(
            ip, socket.port, lambda _: self._output(socket), lambda _: self._close(socket)
        )
        others = (other for other in self._sockets.get(socket.port, ()) if other.owner())
        self._sockets[socket.port] = [*others, socket]
        return UdpSlot(index=socket.slot, host=ip, port=socket.port)

    def rebind_udp(self, host: SlotHost, slot: UdpSlot) -> UdpSlot:
        return slot

    def _close(self, socket: _Socket) -> None:
        sockets = self._sockets[socket.port]
        sockets.remove(socket)
        if not sockets:
            del self._sockets[socket.port]

    def _conflict(self, ip: str, port: int) -> bool:
        return any(
            (":" in other.ip) == (":" in ip)
            and (ip in WILDCARDS or other.is_wildcard or other.ip == ip)
            and other.owner() is not None
            for other in self._sockets.get(port, ())
        )

    def _free_port(self, ip: str) -> int:
        for _ in range(FIRST_EPHEMERAL_PORT, 65_536):
            port = self._next_port
            self._next_port = port + 1 if port < 65_535 else FIRST_EPHEMERAL_PORT
            if not self._conflict(ip, port):
                return port
        raise OSError(errno.EADDRINUSE, "all ports are in use")

    # --- datagrams

    def _output(self, socket: _Socket) -> None:
        owner = socket.owner()
        while owner and (batches := owner.take_output(socket.slot, OUTPUT_BATCHES)):
            for destination, source_ip, ecn, segment_size, data in batches:
                step = segment_size or len(data) or 1
                for start in range(0, len(data), step):
                    self._send(socket, source_ip, destination, data[start : start + step], ecn)

    def _send(
        self,
        socket: _Socket,
        source_ip: str | None,
        destination: tuple[str, int],
        data: bytes,
        ecn: int,
    ) -> None:
        wire = self.network.wire
        wanted = source_ip if socket.is_wildcard else socket.ip
        local = destination[0] in LOOPBACK or destination[0] in self.addresses
        if local:
            source, interface = wanted or destination[0], None
        else:
            source, interface = self._route(wanted, ":" in destination[0])
        packet = Packet((source, socket.port), destination, data, ecn)
        wire.record(packet, "sent")
        if local:
            wire.carry(self._loopback, packet, self._arrived)
        elif interface is None:
            wire.record(packet, "unreachable")
        else:
            interface.send(packet)

    def _route(self, source: str | None, ipv6: bool) -> tuple[str, Interface | None]:
        """Source address and interface: the one with the wanted address, else the first that is up."""
        version = 6 if ipv6 else 4
        for interface in self.interfaces.values():
            if source is None:
                ip = interface.address(version) if interface.up else None
                if ip is not None:
                    return ip, interface
            elif source in interface.addresses:
                return source, interface
        return source or ("::" if ipv6 else "0.0.0.0"), None

    def receive(self, packet: Packet, interface: Interface) -> None:
        self._arrived(packet)

    def _arrived(self, packet: Packet) -> None:
        ip, port = packet.destination
        for socket in self._sockets.get(port, ()):
            owner = socket.owner()
            if owner and (socket.ip == ip or socket.takes_all_of(ip)):
                self.network.wire.record(packet, "received")
                owner.inject(
                    socket.slot, packet.source, packet.data, destination=ip, ecn=packet.ecn
                )
                return
        self.network.wire.record(packet, "port closed")

    def __repr__(self) -> str:
        return f"<Host {self.name} {' '.join(self.addresses)}>"
