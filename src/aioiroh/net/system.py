"""The real network of this machine."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from random import Random
from typing import Final, TypeVar

from aioiroh.net.dialling import race
from aioiroh.net.gateway import default_gateway
from aioiroh.net.interfaces import LocalAddress, interface_addresses
from aioiroh.net.port import SlotHost, TcpListener, UdpOptions, UdpSlot
from aioiroh.net.watching import watch_system

__all__ = ["SystemNetwork"]

P = TypeVar("P", bound=asyncio.BaseProtocol)
D = TypeVar("D", bound=asyncio.DatagramProtocol)

BACKLOG: Final = 1024
"""Connections that the system may hold for a listener which has not come to them yet."""


class SystemNetwork:
    """Clock, chance and sockets of the operating system."""

    def __init__(self) -> None:
        self._random = Random()

    @property
    def random(self) -> Random:
        return self._random

    @property
    def engine_clock(self) -> Callable[[], float] | None:
        return None

    def monotonic(self) -> float:
        return time.monotonic()

    def wall_clock(self) -> float:
        return time.time()

    def secret(self, size: int) -> bytes:
        return os.urandom(size)

    def bind_udp(self, host: SlotHost, address: tuple[str, int], options: UdpOptions) -> UdpSlot:
        return host.add_udp(*address, options)

    async def open_udp(self, protocol_factory: Callable[[], D], host: str, port: int) -> D:
        # Bound here, as uvloop does not tell the cause when it cannot.
        bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            bound.setblocking(False)
            bound.bind((host, port))
            loop = asyncio.get_running_loop()
            _, protocol = await loop.create_datagram_endpoint(protocol_factory, sock=bound)
        except BaseException:
            bound.close()
            raise
        return protocol

    async def resolve(self, host: str) -> Sequence[str]:
        try:
            return (str(ip_address(host)),)
        except ValueError:
            pass  # a name, which takes a thread of the system's resolver
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_DGRAM)
        return tuple(dict.fromkeys(str(address[0]) for *_, address in found))

    def rebind_udp(self, host: SlotHost, slot: UdpSlot) -> UdpSlot:
        # Linux looks for the way of each datagram anew. Elsewhere, on phones above all, a socket may stay on a
        # network that is gone.
        platform: str = sys.platform
        if platform == "linux":
            return slot
        address, port = host.rebind(slot.index)
        return replace(slot, host=address, port=port)

    async def connect_tcp(self, protocol_factory: Callable[[], P], host: str, port: int) -> P:
        loop = asyncio.get_running_loop()
        connected: list[socket.socket] = []
        try:
            # Not create_connection's own way to do it, which uvloop does not have.
            ips = await self.resolve(host)
            winner = await race(host, ips, partial(_connect, loop, port, connected))
            _, protocol = await loop.create_connection(protocol_factory, sock=winner)
        except BaseException:
            # Nobody got to know of these. Others close themselves, once the loop watches them no more:
            # it would take the next socket of that number for watched already.
            for one in connected:
                one.close()
            raise
        return protocol

    async def listen_tcp(
        self, protocol_factory: Callable[[], asyncio.BaseProtocol], host: str, port: int
    ) -> TcpListener:
        loop = asyncio.get_running_loop()
        if host == "::":
            server = await loop.create_server(
                protocol_factory, sock=_listen_everywhere(port), backlog=BACKLOG
            )
        else:
            server = await loop.create_server(protocol_factory, host, port, backlog=BACKLOG)
        return _Listener(server)

    def local_addresses(self) -> Sequence[LocalAddress]:
        return interface_addresses()

    def outward_addresses(self) -> Sequence[str]:
        return tuple(filter(None, (_source_towards(*place) for place in _FAR_AWAY)))

    def gateway(self) -> str | None:
        return default_gateway()

    def watch(self, on_change: Callable[[], None]) -> Callable[[], None]:
        return watch_system(on_change)


_FAR_AWAY: Final = (
    (socket.AF_INET, ("192.0.2.1", 9)),
    (socket.AF_INET6, ("2001:db8::1", 9)),
)
"""Addresses of documentation: nobody has them, so the way there is the default route."""


def _source_towards(family: socket.AddressFamily, address: tuple[str, int]) -> str | None:
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)  # asks the routing table, and sends nothing
            return str(probe.getsockname()[0])
    except OSError:
        return None


async def _connect(
    loop: asyncio.AbstractEventLoop, port: int, connected: list[socket.socket], ip: str
) -> socket.socket:
    connecting = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET)
    try:
        connecting.setblocking(False)
        await loop.sock_connect(connecting, (ip, port))
    except BaseException:
        connecting.close()
        raise
    connected.append(connecting)
    return connecting


def _listen_everywhere(port: int) -> socket.socket:
    try:
        return socket.create_server(
            ("::", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True
        )
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
    return socket.create_server(("0.0.0.0", port), backlog=BACKLOG)


class _Listener:
    """A server of asyncio with one socket."""

    def __init__(self, server: asyncio.Server) -> None:
        self._server = server
        ip, port = server.sockets[0].getsockname()[:2]
        self._address: tuple[str, int] = (ip, port)

    @property
    def address(self) -> tuple[str, int]:
        return self._address

    def close(self) -> None:
        self._server.close()

    async def wait_closed(self) -> None:
        # asyncio's own also waits for connections, from Python 3.12 on. The sockets are closed already,
        # or (uvloop) in the next turn.
        await asyncio.sleep(0)
