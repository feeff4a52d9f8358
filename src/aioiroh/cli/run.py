"""Running a command: signals, errors, exit codes."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, NoReturn

from .display import Display
from .failures import ExitCode, explain

__all__ = ["Interrupts", "run"]

SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class Interrupts:
    """The first signal asks the command to end, the second one ends the process at once."""

    def __init__(self, display: Display) -> None:
        self.received: int | None = None
        """The signal that came; None: none so far."""
        self.on_hangup: Callable[[], object] | None = None
        """What SIGHUP does in place of ending the command."""
        self._display = display
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None

    def attach(self) -> None:
        """From now on signals cancel the current task."""
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        for number in SIGNALS:
            # Who is told to ignore it (nohup) shall do so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == getattr(signal, "SIGHUP", None) and self.on_hangup is not None:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self.on_hangup)
            return
        if self.received is not None:
            self._display.restore_terminal()
            os._exit(128 + number)
        self.received = number
        self.cancel()

    def cancel(self) -> None:
        """Asks the command to end."""
        assert self._loop is not None and self._task is not None
        if self._loop.is_closed():
            os._exit(128 + (self.received or 0))
        self._loop.call_soon_threadsafe(self._task.cancel)


def run(
    command: Callable[[Display, Interrupts], Coroutine[Any, Any, int]],
    display: Display,
    *,
    verbose: int = 0,
) -> NoReturn:
    """Runs a command on an event loop of its own and exits the process with its exit code."""
    if verbose >= 2:
        logging.basicConfig(
            level=logging.DEBUG, stream=sys.stderr, format="%(levelname).1s %(name)s: %(message)s"
        )
    else:
        logging.getLogger("aioiroh").addHandler(logging.NullHandler())
    # What was loaded stays; and thousands of files make objects that reference counts free.
    gc.freeze()
    gc.set_threshold(50_000)
    interrupts = Interrupts(display)

    async def attached() -> int:
        interrupts.attach()
        display.on_lost = interrupts.cancel
        try:
            return await command(display, interrupts)
        finally:
            display.close()

    try:
        code = asyncio.run(attached())
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - a person reads it
        if verbose >= 2:
            traceback.print_exception(error)
        if interrupts.received is not None:
            code = 128 + interrupts.received
            display.event("interrupted", code=code)
        else:
            failure = explain(display.lost or error)
            code = failure.code
            display.failed(str(failure), code)
    if display.lost is not None:
        code = code or ExitCode.FAILED
    sys.exit(code)
