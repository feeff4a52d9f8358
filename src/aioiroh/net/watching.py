"""Hears from the system that something about its network has changed: netlink on Linux, else by looking."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable
from typing import Final

from aioiroh.net.interfaces import LocalAddress, interface_addresses

__all__ = ["watch_system"]

POLL_INTERVAL: Final = 10.0
"""Seconds between looks where the system tells nothing."""
MAX_MESSAGE: Final = 65_536
MAX_READS: Final = 16
"""Messages taken at once; what they say does not matter, only that there are some."""

# rtnetlink(7): interfaces, addresses and routes of both IP versions.
_LINK, _IPV4_ADDRESS, _IPV4_ROUTE, _IPV6_ADDRESS, _IPV6_ROUTE = 0x1, 0x10, 0x40, 0x100, 0x400
_GROUPS: Final = _LINK | _IPV4_ADDRESS | _IPV4_ROUTE | _IPV6_ADDRESS | _IPV6_ROUTE


def watch_system(on_change: Callable[[], None]) -> Callable[[], None]:
    """Call `on_change` in the running loop when the machine's network may have changed; gives what ends it."""
    loop = asyncio.get_running_loop()
    try:
        return _watch_netlink(loop, on_change)
    except (OSError, NotImplementedError, AttributeError):
        # No such sockets here, they are forbidden, or the loop watches no descriptors.
        return _Looking(loop, on_change).end


def _watch_netlink(
    loop: asyncio.AbstractEventLoop, on_change: Callable[[], None]
) -> Callable[[], None]:
    if sys.platform != "linux":
        raise NotImplementedError
    source = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)

    def hear() -> None:
        for _ in range(MAX_READS):
            try:
                source.recv(MAX_MESSAGE)
            except BlockingIOError:
                break
            except OSError:
                break  # more came than the system keeps (ENOBUFS): a change as well
        on_change()

    def end() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            loop.remove_reader(source)
        source.close()

    try:
        source.setblocking(False)
        source.bind((0, _GROUPS))
        loop.add_reader(source, hear)
    except BaseException:
        source.close()
        raise
    return end


class _Looking:
    """Looks at the addresses from time to time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_change: Callable[[], None]) -> None:
        self._loop = loop
        self._on_change = on_change
        self._seen = _addresses()
        self._timer = loop.call_later(POLL_INTERVAL, self._look)

    def _look(self) -> None:
        self._timer = self._loop.call_later(POLL_INTERVAL, self._look)
        before, self._seen = self._seen, _addresses()
        if self._seen != before:
            self._on_change()

    def end(self) -> None:
        self._timer.cancel()


def _addresses() -> tuple[LocalAddress, ...]:
    try:
        return interface_addresses()
    except OSError:
        return ()
