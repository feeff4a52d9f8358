"""The real network of this machine."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random
from typing import Final, TypeVar

from aioiroh.net.interfaces import LocalAddress, interface_addresses
from aioiroh.net.port import SlotHost, UdpOptions, UdpSlot
from aioiroh.net.watching import watch_system

__all__ = ["SystemNetwork"]

P = TypeVar("P", bound=asyncio.BaseProtocol)

HAPPY_EYEBALLS_DELAY: Final = 0.25
"""Seconds that one address of a host has before the next one is tried as well (RFC 8305)."""


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

    def rebind_udp(self, host: SlotHost, slot: UdpSlot) -> UdpSlot:
        # Linux looks for the way of each datagram anew. Elsewhere, on phones above all, a socket may stay on a
        # network that is gone.
        platform: str = sys.platform
        if platform == "linux":
            return slot
        address, port = host.rebind(slot.index)
        return replace(slot, host=address, port=port)

    async def connect_tcp(self, protocol_factory: Callable[[], P], host: str, port: int) -> P:
        _, protocol = await asyncio.get_running_loop().create_connection(
            protocol_factory, host, port, happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY
        )
        return protocol

    def local_addresses(self) -> Sequence[LocalAddress]:
        return interface_addresses()

    def outward_addresses(self) -> Sequence[str]:
        return tuple(filter(None, (_source_towards(*place) for place in _FAR_AWAY)))

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
