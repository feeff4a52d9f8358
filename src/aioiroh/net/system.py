"""The real network of this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from random import Random

from aioiroh.net.interfaces import LocalAddress, interface_addresses
from aioiroh.net.port import SlotHost, UdpOptions, UdpSlot

__all__ = ["SystemNetwork"]


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

    def local_addresses(self) -> Sequence[LocalAddress]:
        return interface_addresses()
