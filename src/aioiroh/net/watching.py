"""Hears from the system that something about its network has changed: by netlink on Linux, else by the clock."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Callable
from typing import Final

__all__ = ["watch_system"]

LOOK_INTERVAL: Final = 15.0
"""Seconds after which a look is due although the system has told nothing: after a sleep it may tell nothing."""
POLL_INTERVAL: Final = 10.0
"""The same where the system never tells anything."""
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
        forget = _watch_netlink(loop, on_change)
    except (OSError, NotImplementedError):
        # No such sockets here, they are forbidden, or the loop watches no descriptors.
        return _Ticking(loop, POLL_INTERVAL, on_change).end
    ticking = _Ticking(loop, LOOK_INTERVAL, on_change)

    def end() -> None:
        ticking.end()
        forget()

    return end


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


class _Ticking:
    """Calls again and again."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, interval: float, on_tick: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._interval = interval
        self._on_tick = on_tick
        self._timer = loop.call_later(interval, self._tick)

    def _tick(self) -> None:
        self._timer = self._loop.call_later(self._interval, self._tick)
        self._on_tick()

    def end(self) -> None:
        self._timer.cancel()
