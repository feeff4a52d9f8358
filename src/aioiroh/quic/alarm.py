"""How an event loop is told when an engine has something to do."""

from __future__ import annotations

import asyncio
import select
from typing import Protocol
from weakref import ref

from aioiroh import _native

__all__ = ["Alarm", "DescriptorAlarm", "PortableAlarm", "open_alarm"]


class Ready(Protocol):
    def on_ready(self) -> None: ...


class Alarm(Protocol):
    """Calls `on_ready` of its driver; keeps it alive only while `held`."""

    held: Ready | None
    keeps_time: bool
    """Whether the engine sets the time itself, so that `rearm` has nothing to do."""

    def rearm(self) -> None:
        """After each step and flush, and after sockets came or went."""

    def stop(self) -> None:
        """Before the engine's descriptors are closed; on the loop's thread."""


class DescriptorAlarm:
    """The engine's sockets and its timer behind one pollable descriptor (Linux, macOS).

    `busy_poll`: seconds to wait awake after each turn. A core that sleeps wakes late, and with cold
    caches. What comes in that time is left to the loop, which finds it at once.
    """

    __slots__ = ("_busy_poll", "_fd", "_loop", "_poll", "_reference", "_stopped", "held")

    keeps_time = True

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        engine: _native.Engine,
        driver: Ready,
        busy_poll: float,
    ) -> None:
        self.held: Ready | None = None
        self._reference = ref(driver)
        self._loop = loop
        self._fd = engine.fileno()
        self._busy_poll = busy_poll
        self._stopped = False
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        loop.add_reader(self._fd, self._ring)

    def _ring(self) -> None:
        driver = self.held or self._reference()
        if driver is not None:
            driver.on_ready()
        if self._busy_poll and not self._stopped:
            until = self._loop.time() + self._busy_poll
            while not self._poll.poll(0) and self._loop.time() < until:
                pass

    def rearm(self) -> None:
        pass

    def stop(self) -> None:
        self._stopped = True
        self._loop.remove_reader(self._fd)


class PortableAlarm:
    """Watches every socket and one timer of the loop.

    For systems without such a descriptor, and for engines that live in virtual time: there the loop's
    clock is the engine's, and no slot has a socket.
    """

    keeps_time = False

    __slots__ = ("_due", "_engine", "_loop", "_reference", "_sockets", "_timer", "_virtual", "held")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        engine: _native.Engine,
        driver: Ready,
        *,
        virtual: bool,
    ) -> None:
        self._virtual = virtual
        self.held: Ready | None = None
        self._reference = ref(driver)
        self._loop = loop
        self._engine = engine
        self._sockets: dict[int, bool] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self.rearm()

    def _ring(self) -> None:
        driver = self.held or self._reference()
        if driver is not None:
            driver.on_ready()

    def _expired(self) -> None:
        self._timer = None
        self._ring()

    def rearm(self) -> None:
        if not self._virtual:
            self._watch(dict(self._engine.sockets()))
        delay = self._engine.deadline()
        if delay is None:
            self._cancel()
            return
        due = self._loop.time() + max(delay, 0.0)
        # An earlier timer may fire and find nothing due: cheaper than moving it each time.
        if self._timer is None or due < self._due:
            self._cancel()
            self._due = due
            self._timer = self._loop.call_at(due, self._expired)

    def _watch(self, wanted: dict[int, bool]) -> None:
        if wanted == self._sockets:
            return
        for fd in self._sockets.keys() - wanted.keys():
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)
        for fd, want_write in wanted.items():
            if fd not in self._sockets:
                self._loop.add_reader(fd, self._ring)
            if want_write:
                self._loop.add_writer(fd, self._ring)
            elif self._sockets.get(fd):
                self._loop.remove_writer(fd)
        self._sockets = wanted

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def stop(self) -> None:
        self._cancel()
        self._watch({})


def open_alarm(
    loop: asyncio.AbstractEventLoop,
    engine: _native.Engine,
    driver: Ready,
    *,
    virtual: bool,
    busy_poll: float,
) -> Alarm:
    """The best alarm there is. `virtual`: the engine's clock is the loop's, not the machine's."""
    if virtual:
        return PortableAlarm(loop, engine, driver, virtual=True)
    try:
        return DescriptorAlarm(loop, engine, driver, busy_poll)
    except (OSError, NotImplementedError):
        # No such descriptor on this system, or a loop that cannot watch one.
        return PortableAlarm(loop, engine, driver, virtual=False)
