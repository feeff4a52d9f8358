"""Tells once for each change of this machine's network what has become of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Final, Self
from weakref import finalize

from aioiroh.aio import weakly
from aioiroh.net.interfaces import LocalAddress
from aioiroh.net.port import Network

__all__ = ["NetworkMonitor", "NetworkState"]

SETTLE_TIME: Final = 0.25
"""Seconds between the first sign of a change and a look: changes come in groups."""
SLEPT: Final = 5.0
"""Seconds by which the wall clock must have run ahead of the monotonic one to mean that the machine slept."""


@dataclass(frozen=True, slots=True)
class NetworkState:
    """The network of a machine at one moment: its addresses, and those that lead to the internet."""

    addresses: tuple[LocalAddress, ...]
    outward: tuple[str, ...]

    @classmethod
    def of(cls, network: Network) -> Self:
        """As it is now; empty if the system does not tell."""
        try:
            return cls(tuple(network.local_addresses()), tuple(network.outward_addresses()))
        except OSError:
            return cls((), ())

    @property
    def ips(self) -> tuple[str, ...]:
        """All addresses, loopback included."""
        return tuple(address.ip for address in self.addresses)

    @property
    def is_connected(self) -> bool:
        """Whether there is anything but the machine itself."""
        return any(not address.is_loopback for address in self.addresses)

    def is_like(self, before: NetworkState) -> bool:
        """Whether only the machine's part of an address has changed, if anything: same interfaces, same networks,
        same ways out; and what left by an address still can.
        """
        return (
            self._networks() == before._networks()
            and self._ways() == before._ways()
            and set(before.outward).issubset(self.ips)
        )

    def _networks(self) -> frozenset[tuple[str, object]]:
        return frozenset(
            (address.interface, ip_interface(f"{address.ip}/{address.prefix}").network)
            for address in self.addresses
            if not address.is_link_local
        )

    def _ways(self) -> frozenset[tuple[str, int]]:
        return frozenset(
            (address.interface, 6 if ":" in address.ip else 4)
            for address in self.addresses
            if address.ip in self.outward
        )


class NetworkMonitor:
    """Watches a network from its making on until `close`; belongs to the loop that runs then.

    `on_change(major)`: `state` is another one. `major`: more than the machine's part of an address has changed, or
    the machine has slept.
    """

    def __init__(self, network: Network, on_change: Callable[[bool], None]) -> None:
        self._network = network
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.state = NetworkState.of(network)
        """As seen last."""
        self._ahead = self._clocks()
        # Nothing here may keep an endpoint alive that nobody holds any more.
        end = network.watch(weakly(self.look_soon))
        self._end = finalize(self, _end, self._loop, end)
        self._end.atexit = False

    def look_soon(self) -> None:
        """Something may have changed."""
        if self._timer is None and self._end.alive:
            self._timer = self._loop.call_later(SETTLE_TIME, weakly(self._look))

    def close(self) -> None:
        """No calls any more."""
        self._end()
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        self._timer = None
        before, self.state = self.state, NetworkState.of(self._network)
        clocks_before, self._ahead = self._ahead, self._clocks()
        slept = self._ahead - clocks_before > SLEPT
        if slept or self.state != before:
            self._on_change(slept or not self.state.is_like(before))

    def _clocks(self) -> float:
        return self._network.wall_clock() - self._network.monotonic()


def _end(loop: asyncio.AbstractEventLoop, end: Callable[[], None]) -> None:
    if loop.is_closed() or asyncio._get_running_loop() is loop:
        end()
    else:
        # Maybe a destructor in another thread: only the loop may let go of descriptors.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(end)
