"""One background thread with an event loop, and blocking calls into it.

The thread starts at the first call and ends with the process. After a fork the child gets a thread of
its own; what the parent had made stays with the parent.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, TypeVar

__all__ = ["Portal", "drop", "portal", "run_in_thread", "timeout"]

T = TypeVar("T")

MAX_THREADS: Final = 1024
"""Handlers that run at once, each in a thread; further ones wait."""
CLOSE_TIME: Final = 5.0
"""Seconds that the end of the program waits for what runs to be cancelled."""
HANDING_OVER: Final = 0.1
"""Seconds that a result which came together with Ctrl-C has to reach the program."""


class _Local(threading.local):
    """What belongs to a thread that makes blocking calls."""

    deadline: float | None = None
    """Until when calls may take, in the loop's time."""
    handler: _Handler | None = None
    """The handler that runs in this thread."""


_local = _Local()


class Portal:
    """The thread, its loop, and the way in."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self.slots: asyncio.Semaphore
        # A daemon, because the interpreter waits for other threads before it runs `close`.
        self._thread = threading.Thread(target=self._run, name="aioiroh.sync", daemon=True)
        self._thread.start()
        self._ready.wait()

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.slots = asyncio.Semaphore(MAX_THREADS)
        self._ready.set()
        await self._stop.wait()

    @property
    def is_ours(self) -> bool:
        """False in a process that was forked off since."""
        return self._pid == os.getpid()

    def call(self, work: Callable[[], Coroutine[Any, Any, T]], *, bounded: bool = True) -> T:
        """Runs a coroutine on the loop, in the context of the caller, and waits for its end.

        Raises what it raises. An interruption (Ctrl-C) cancels it and waits until it has ended.
        `bounded`: whether `timeout` and the end of a handler apply.
        """
        if not self.is_ours:
            raise RuntimeError("this was made before the process forked; make it anew")
        if threading.get_ident() == self._thread.ident:
            return _at_once(work())
        handler = _local.handler if bounded else None
        if handler is not None:
            handler.check()
        result: T = _Call(self._loop, work, _local.deadline if bounded else None, handler).result()
        return result

    def later(self, work: Callable[[], object]) -> None:
        """Runs something on the loop soon, without waiting."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(work)

    def time(self) -> float:
        """The loop's clock, in seconds."""
        return self._loop.time()

    def close(self) -> None:
        """Cancels what runs and ends the thread."""
        self.later(self._stop.set)
        self._thread.join(CLOSE_TIME)


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that does not wait for anything, for callbacks on the loop's thread."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise RuntimeError(
        "a callback on the loop's thread cannot block; hand the work to another thread"
    )


class _Call:
    """One blocking call: a task on the loop, and a thread that waits for it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Callable[[], Coroutine[Any, Any, Any]],
        deadline: float | None,
        handler: _Handler | None,
    ) -> None:
        self._loop = loop
        self._work = work
        self._deadline = deadline
        self._handler = handler
        self._context = contextvars.copy_context()
        self._ended = threading.Event()
        self._task: asyncio.Task[Any] | None = None

    def _start(self) -> None:
        self._task = self._loop.create_task(self._main(), context=self._context)
        self._task.add_done_callback(lambda _: self._ended.set())
        if self._handler is not None:
            self._handler.began(self._task)

    async def _main(self) -> Any:
        if self._deadline is None:
            return await self._work()
        async with asyncio.timeout_at(self._deadline):
            return await self._work()

    def _cancel(self) -> None:
        if self._task is None:  # interrupted before it was begun
            self._ended.set()
        else:
            self._task.cancel()

    def result(self) -> Any:
        """Starts it and waits for its end."""
        try:
            self._loop.call_soon_threadsafe(self._start)
            self._ended.wait()
        except BaseException as interruption:
            if self._loop.is_closed():
                raise RuntimeError("the interpreter is ending; nothing can be started") from None
            self._loop.call_soon_threadsafe(self._cancel)
            self._ended.wait()  # another interruption ends the wait
            task = self._task
            succeeded = task is not None and not task.cancelled() and task.exception() is None
            if not succeeded or not isinstance(interruption, KeyboardInterrupt):
                raise
            # It was done already: its result must not get lost, and neither must the interruption.
            self._loop.call_soon_threadsafe(
                lambda: self._loop.call_later(HANDING_OVER, _interrupt_main_thread)
            )
        task, self._task = self._task, None
        assert task is not None
        try:
            return task.result()
        finally:
            # An exception refers to this frame, and the task to the exception.
            del task


def _interrupt_main_thread() -> None:
    # Only a signal to the thread itself ends what it waits in.
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


# --- time -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def timeout(seconds: float | None) -> Iterator[None]:
    """Blocking calls of this thread inside the block raise TimeoutError after so many seconds.

    What they were doing is cancelled then. Leaving an object's block is not bounded by it.
    """
    before = _local.deadline
    if seconds is not None:
        deadline = portal().time() + seconds
        _local.deadline = deadline if before is None else min(before, deadline)
    try:
        yield
    finally:
        _local.deadline = before


# --- threads for handlers -------------------------------------------------------------------------


class _Handler:
    """A blocking function that runs in a thread for somebody on the loop."""

    def __init__(self) -> None:
        self.cancelled = False
        self._task: asyncio.Task[Any] | None = None

    def check(self) -> None:
        if self.cancelled:
            raise asyncio.CancelledError("nobody waits for this handler any more")

    def began(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        if self.cancelled:
            task.cancel()

    def cancel(self) -> None:
        """The call that it waits in, and each further one, raises CancelledError."""
        self.cancelled = True
        if self._task is not None:
            self._task.cancel()


async def run_in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Runs a blocking function in a thread of its own; to be awaited on the portal's loop."""
    here = portal()
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()
    handler = _Handler()

    def settle(error: BaseException | None, value: Any) -> None:
        here.slots.release()
        if outcome.done():
            return
        if error is None:
            outcome.set_result(value)
        elif isinstance(error, asyncio.CancelledError):
            outcome.cancel()
        else:
            outcome.set_exception(error)

    def main() -> None:
        _local.handler = handler
        error: BaseException | None = None
        value = None
        try:
            value = function(*arguments)
        except StopIteration as stop:  # cannot be set on a future
            error = RuntimeError(f"the handler raised {stop!r}")
        except BaseException as failure:  # noqa: BLE001 - raised where it is awaited
            error = failure
        here.later(lambda: settle(error, value))

    await here.slots.acquire()
    # Daemons: a handler that waits for a peer must not keep the interpreter from ending.
    threading.Thread(target=main, name="aioiroh.sync handler", daemon=True).start()
    try:
        return await outcome
    except asyncio.CancelledError:
        handler.cancel()
        raise


# --- the one of this process ----------------------------------------------------------------------

_lock = threading.Lock()
_portal: Portal | None = None
_left_behind: list[object] = []
"""Portals of the process that this one was forked from, kept so that nothing of them is closed: their
descriptors refer to what the parent uses."""


def portal() -> Portal:
    """The portal of this process, started if need be."""
    global _portal
    with _lock:
        if _portal is None:
            _portal = Portal()
            atexit.register(_portal.close)
        return _portal


def drop(owner: Portal, held: list[Any]) -> None:
    """Empties a list where its items belong: on their loop's thread."""
    if owner.is_ours:
        owner.later(held.clear)
    else:
        _left_behind.append(held)


def _forked() -> None:
    global _lock, _portal
    _lock = threading.Lock()
    if _portal is not None:
        atexit.unregister(_portal.close)
        _left_behind.append(_portal)
        _portal = None
    _local.deadline = _local.handler = None


os.register_at_fork(after_in_child=_forked)
