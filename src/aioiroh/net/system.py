"""The real network of this machine."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, TypeVar

from aioiroh.net.interfaces import LocalAddress, interface_addresses
from aioiroh.net.port import SlotHost, UdpOptions, UdpSlot

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

    async def connect_tcp(self, protocol_factory: Callable[[], P], host: str, port: int) -> P:
        _, protocol = await asyncio.get_running_loop().create_connection(
            protocol_factory, host, port, happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY
        )
        return protocol

    def local_addresses(self) -> Sequence[LocalAddress]:
        return interface_addresses()
