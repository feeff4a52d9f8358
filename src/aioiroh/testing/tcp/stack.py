"""The TCP connections and listeners of one host."""

from __future__ import annotations

import asyncio
import errno
import os
from asyncio import BaseProtocol
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, TypeVar

from aioiroh.net.dialling import race
from aioiroh.testing.ports import FreePorts, takes
from aioiroh.testing.tcp.core import TcpCore
from aioiroh.testing.tcp.header import TcpHeader
from aioiroh.testing.tcp.transport import TcpTransport
from aioiroh.testing.wire import Packet

if TYPE_CHECKING:
    from aioiroh.testing.host import Host

__all__ = ["TcpStack", "VirtualListener"]

P = TypeVar("P", bound=BaseProtocol)
Address = tuple[str, int]

HEADERS_V4, HEADERS_V6 = 40, 60
BACKLOG = 1024
"""Connections of one listener that may be half open."""


class VirtualListener:
    """Takes the connections to one port of a host."""

    def __init__(
        self, stack: TcpStack, address: Address, factory: Callable[[], BaseProtocol]
    ) -> None:
        self.address = address
        self.factory = factory
        self.half_open = 0
        self._stack = stack

    def takes(self, destination: Address) -> bool:
        """Whether connections to that address are its; `::` takes IPv4, too."""
        any_address = self.address == ("::", destination[1])
        return any_address or takes(self.address, destination)

    def close(self) -> None:
        """Take no more connections."""
        self._stack.unlisten(self)

    async def wait_closed(self) -> None:
        """Until the port is free, which it is after `close`."""


class TcpStack:
    """Makes connections, takes them, and gives packets to the one they belong to."""

    def __init__(self, host: Host) -> None:
        self.loop = host.network.loop
        self._host = host
        self._random = host.network.chance(f"TCP of {host.name}")
        self._connections: dict[tuple[Address, Address], TcpTransport] = {}
        self._listeners: list[VirtualListener] = []
        self._ports = FreePorts()

    # --- for the host

    async def connect(self, protocol_factory: Callable[[], P], name: str, port: int) -> P:
        """To a host of the network by its name, or to an IP address. Raises OSError."""
        ips = self._host.network.resolve(name)
        transport = await race(name, ips, partial(self._dial, port))
        protocol = protocol_factory()
        transport.start(protocol)
        return protocol

    async def listen(
        self, protocol_factory: Callable[[], BaseProtocol], ip: str, port: int
    ) -> VirtualListener:
        """Take connections. Raises OSError: it is no address of this host, or taken."""
        ip = str(ip_address(ip))
        self._host.check_own(ip)
        taken = [listener.address for listener in self._listeners]
        listener = VirtualListener(self, self._ports.choose((ip, port), taken), protocol_factory)
        self._listeners.append(listener)
        return listener

    def unlisten(self, listener: VirtualListener) -> None:
        """That listener takes no more."""
        if listener in self._listeners:
            self._listeners.remove(listener)

    def crash(self) -> None:
        """Close all listeners, and reset all connections."""
        self._listeners.clear()
        for transport in tuple(self._connections.values()):
            transport.abort()

    def arrived(self, packet: Packet) -> bool:
        """Take in a packet; False: nobody is there for it, and the sender has been told."""
        assert packet.tcp is not None
        header = packet.tcp
        transport = self._connections.get((packet.destination, packet.source))
        record = self._host.network.wire.record
        if transport is not None:
            record(packet, "received")
            transport.arrived(header, packet.data)
            return True
        if header.syn and header.acknowledged is None:
            for listener in self._listeners:
                ip, port = listener.address
                everywhere = ip == "::" and port == packet.destination[1]
                if everywhere or takes(listener.address, packet.destination):
                    record(packet, "received")
                    if listener.half_open < BACKLOG:
                        self._take(listener, packet)
                    return True
        if not header.reset and not header.unreachable:
            end = header.position + len(packet.data) + header.syn + header.fin
            refusal = TcpHeader(header.acknowledged or 0, end, reset=True)
            self._host.send(Packet(packet.destination, packet.source, b"", tcp=refusal))
        return False

    # --- for transports

    def send(self, transport: TcpTransport, header: TcpHeader, data: bytes) -> None:
        """Put a packet of a connection on its way."""
        self._host.send(Packet(transport.local, transport.peer, data, tcp=header))

    def forget(self, transport: TcpTransport) -> None:
        """That connection is over."""
        self._connections.pop((transport.local, transport.peer), None)

    # --- inside

    async def _dial(self, port: int, peer_ip: str) -> TcpTransport:
        peer = peer_ip, port
        ip = self._host.source_for(peer_ip)
        if ip is None:
            raise OSError(errno.ENETUNREACH, os.strerror(errno.ENETUNREACH))
        taken = [key[0] for key in self._connections]
        local = self._ports.choose((ip, 0), taken)
        opened: asyncio.Future[TcpTransport] = self.loop.create_future()
        transport = self._open(local, peer, None, opened.set_result)
        try:
            await asyncio.wait((opened, transport.failure), return_when=asyncio.FIRST_COMPLETED)
            if not opened.done():
                raise transport.failure.result()
        except BaseException:
            transport.abort()
            raise
        return transport

    def _take(self, listener: VirtualListener, packet: Packet) -> None:
        listener.half_open += 1

        def settled(_: asyncio.Future[OSError] | None) -> None:
            listener.half_open -= 1

        def connected(transport: TcpTransport) -> None:
            transport.failure.remove_done_callback(settled)
            settled(None)
            if listener in self._listeners:
                self.loop.call_soon(lambda: transport.start(listener.factory()))
            else:
                transport.abort()

        transport = self._open(packet.destination, packet.source, packet.tcp, connected)
        transport.failure.add_done_callback(settled)

    def _open(
        self,
        local: Address,
        peer: Address,
        syn: TcpHeader | None,
        on_connected: Callable[[TcpTransport], None],
    ) -> TcpTransport:
        size = self._host.mtu(local[0]) - (HEADERS_V6 if ":" in local[0] else HEADERS_V4)
        core = TcpCore(self.loop.time(), self._random.getrandbits(31), size, syn)
        transport = TcpTransport(self, core, local, peer, on_connected)
        self._connections[local, peer] = transport
        return transport
