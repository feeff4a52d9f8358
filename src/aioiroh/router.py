"""Several protocols on one endpoint: each connection goes to the handler of its ALPN."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Literal, Protocol, Self, TypeAlias, cast

from aioiroh.aio import Closing, Tasks
from aioiroh.endpoint import Endpoint
from aioiroh.errors import (
    ConnectionLostError,
    EndpointFailedError,
    LocallyRejectedError,
)
from aioiroh.incoming import Incoming
from aioiroh.quic import Connection
from aioiroh.quic import Incoming as Knock

__all__ = ["HANDLER_FAILED", "Handler", "IncomingFilter", "ProtocolHandler", "Router"]

logger = logging.getLogger("aioiroh.router")

HANDLER_FAILED = 1
"""Application error code of a connection whose handler raised."""

MAX_HANDSHAKES = 1024
MAX_CONNECTIONS = 65_536
RETRY_ABOVE = 128
HANDSHAKE_TIMEOUT = 10.0
"""Seconds for a handshake: who begins many and ends none must not keep others out."""
SHUTDOWN_TIMEOUT = 5.0
"""Seconds for the `shutdown` of all handlers."""


class ProtocolHandler(Protocol):
    """A handler that is an object.

    It may also have `async def shutdown()`, called when the router closes, while its connections
    still live; and `async def on_accepting(incoming) -> Connection | None`, called when a peer asks for
    this protocol and nothing has been answered yet: it accepts in its own way (other transport
    settings, early data) or refuses and returns None.
    """

    async def accept(self, connection: Connection) -> object:
        """Serve one connection; see `Router` for what returning means."""


Handler: TypeAlias = ProtocolHandler | Callable[[Connection], Awaitable[object]]
"""Serves one connection: an object, or a coroutine function."""

IncomingFilter: TypeAlias = Callable[[Incoming], Literal["accept", "retry", "reject", "ignore"]]
"""Decides about a peer that knocks. `retry`: it must prove its address first (who has, is refused)."""


class Router(Closing):
    """Accepts the connections of an endpoint and hands each to the handler of its protocol.

    Works inside `async with`. Handlers run in a task per connection. When a handler returns, its
    connection is closed with code 0, as soon as the peer has what was sent; a handler that hands its
    connection on to somebody else returns the connection, and it stays open. A handler that raises
    is logged, and its connection is closed with code `HANDLER_FAILED`; the router goes on.

    While it runs the endpoint accepts the router's protocols and none else, and `Endpoint.accept`
    raises BusyError. Leaving the block tells the handlers (`shutdown`), cancels those that still run,
    closes their connections with code 0 and gives the endpoint back, open. Closing the endpoint ends
    the router.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        handlers: Mapping[bytes, Handler] | None = None,
        *,
        incoming_filter: IncomingFilter | None = None,
        max_handshakes: int = MAX_HANDSHAKES,
        retry_above: int = RETRY_ABOVE,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        """`handlers`: from ALPN to handler, the preferred protocol first.

        `max_handshakes`: handshakes at once; further peers wait. `retry_above`: with that many at
        once, new peers must prove their address first. `max_connections`: connections with a
        handler at once; further peers are refused.
        """
        if max_handshakes < 1:
            raise ValueError("max_handshakes must be 1 or more")
        self._endpoint = endpoint
        self._handlers: dict[bytes, _Served] = {
            alpn: _Served(handler) for alpn, handler in (handlers or {}).items()
        }
        self._filter = incoming_filter
        self._max_handshakes = max_handshakes
        self._retry_above = retry_above
        # Tasks that shake hands, and since when, the oldest first.
        self._handshakes: dict[asyncio.Task[None], float] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._tasks = Tasks("router", limit=max_connections)
        self._ended: asyncio.Future[None] | None = None
        self._release: Callable[[], None] | None = None
        self._previous_alpns: tuple[bytes, ...] = ()
        self._owns_endpoint = False
        self._closing: asyncio.Future[None] | None = None

    # --- what is served

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint whose connections are accepted."""
        return self._endpoint

    @property
    def alpns(self) -> tuple[bytes, ...]:
        """The protocols that are served, the preferred one first."""
        return tuple(self._handlers)

    def __len__(self) -> int:
        """How many connections are being accepted or served."""
        return len(self._tasks)

    def add(self, alpn: bytes, handler: Handler) -> None:
        """Serve another protocol, or put another handler in place for new connections.

        Raises InvalidAlpnError.
        """
        previous = self._handlers.get(alpn)
        self._handlers[alpn] = _Served(handler)
        try:
            self._publish()
        except BaseException:
            if previous is None:
                del self._handlers[alpn]
            else:
                self._handlers[alpn] = previous
            raise

    def remove(self, alpn: bytes) -> Handler:
        """Serve this protocol no more; handlers that run go on. KeyError: it is not served."""
        served = self._handlers.pop(alpn)
        self._publish()
        return served.handler

    def _publish(self) -> None:
        if self._release is not None:
            self._endpoint.set_alpns(self.alpns)

    # --- life

    def start(self, *, owns_endpoint: bool = False) -> None:
        """What entering the block does. `owns_endpoint`: closing closes the endpoint, too.

        Raises BusyError (somebody else accepts), InvalidAlpnError.
        """
        if self._ended is not None:
            raise RuntimeError("the router was started before; make another one")
        self._owns_endpoint = owns_endpoint
        self._release = self._endpoint._doorway.claim(self._take)
        self._previous_alpns = self._endpoint.alpns
        try:
            self._publish()
        except BaseException:
            self._release()
            self._release = None
            raise
        self._ended = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        if self._ended is None:
            self.start()
        return self

    async def serve_forever(self) -> None:
        """Return when the router or the endpoint is closed. EndpointFailedError: the engine failed."""
        if self._ended is None:
            raise RuntimeError("the router does not run; use it with `async with`")
        closed = asyncio.ensure_future(self._endpoint.closed())
        try:
            await asyncio.wait([self._ended, closed], return_when=asyncio.FIRST_COMPLETED)
            if closed.done():
                closed.result()
        finally:
            closed.cancel()

    async def aclose(self) -> None:
        """What leaving the block does; for a router that was not started, nothing."""
        if self._ended is None:
            return
        if self._closing is not None:
            await asyncio.shield(self._closing)
            return
        self._closing = asyncio.get_running_loop().create_future()
        # Last in, first out; each runs even if one before it was cancelled.
        async with AsyncExitStack() as stack:
            stack.callback(self._closing.set_result, None)
            if self._owns_endpoint:
                stack.push_async_callback(self._endpoint.close)
            stack.push_async_callback(self._tasks.aclose)
            stack.push_async_callback(self._tell_handlers)
            stack.callback(self._stop_accepting)
            stack.callback(self._ended.set_result, None)

    def _stop_accepting(self) -> None:
        assert self._release is not None
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._release()
        self._release = None
        if not self._endpoint.is_closed:
            self._endpoint.set_alpns(self._previous_alpns)

    async def _tell_handlers(self) -> None:
        # One object may serve several protocols.
        handlers = {
            id(served.handler): served.handler for served in self._handlers.values()
        }.values()
        calls = [getattr(handler, "shutdown", None) for handler in handlers]
        try:
            async with asyncio.timeout(SHUTDOWN_TIMEOUT):
                outcomes = await asyncio.gather(
                    *(call() for call in calls if call is not None), return_exceptions=True
                )
        except TimeoutError:
            logger.warning("the shutdown of a handler took more than %g s", SHUTDOWN_TIMEOUT)
            return
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                logger.error("the shutdown of a handler failed", exc_info=outcome)

    # --- connections

    def _take(self, knock: Knock) -> bool:
        """A peer knocks; false: it has to wait. Called by the engine's driver, so nothing may fail."""
        if len(self._handshakes) >= self._max_handshakes:
            return False
        try:
            if self._passes(knock):
                self._begin(knock)
        except ConnectionLostError as error:
            logger.debug("%r did not become a connection: %s", knock, error)
        except Exception:
            logger.exception("accepting %r failed", knock)
        return True

    def _passes(self, knock: Knock) -> bool:
        """Whether this peer may shake hands; else it has been answered."""
        if self._tasks.full:
            knock.refuse()
            return False
        if len(self._handshakes) >= self._retry_above and knock.may_retry and knock.retry():
            return False
        if self._filter is None:
            return True
        try:
            verdict = self._filter(self._endpoint._doorway.incoming_of(knock))
        except Exception:
            logger.exception("the filter of incoming connections failed; the peer is refused")
            verdict = "reject"
        match verdict:
            case "accept":
                return True
            case "retry":
                if not knock.may_retry or not knock.retry():
                    knock.refuse()
            case "ignore":
                knock.ignore()
            case _:
                knock.refuse()
        return False

    def _begin(self, knock: Knock) -> None:
        loop = asyncio.get_running_loop()
        served = self._expected(knock.alpns)
        if served is not None and served.on_accepting is not None:
            coroutine = self._serve_specially(served, self._endpoint._doorway.incoming_of(knock))
        else:
            # At once, not in the task: the answer is under way while that is made.
            coroutine = self._serve(knock.accept())
        task = self._tasks.spawn(coroutine, name="connection")
        if not task.done():
            self._handshakes[task] = loop.time()
        if self._sweeper is None:
            self._sweeper = loop.call_later(HANDSHAKE_TIMEOUT / 4, self._sweep)

    def _expected(self, offered: Sequence[bytes]) -> _Served | None:
        """The handler of the protocol that will be agreed on: the first of ours that is offered."""
        for alpn, served in self._handlers.items():
            if alpn in offered:
                return served
        return None

    def _sweep(self) -> None:
        """Give up handshakes that take too long."""
        loop = asyncio.get_running_loop()
        self._sweeper = None
        for task, since in self._handshakes.items():
            if loop.time() - since < HANDSHAKE_TIMEOUT:
                break
            task.cancel("the handshake takes too long")
        if self._handshakes:
            self._sweeper = loop.call_later(HANDSHAKE_TIMEOUT / 4, self._sweep)

    def _shaken(self) -> None:
        """The handshake of the current task is over: others may begin."""
        self._handshakes.pop(_current_task(), None)
        while self._release is not None and len(self._handshakes) < self._max_handshakes:
            knock = self._endpoint._doorway.next_waiting()
            if knock is None:
                return
            self._take(knock)

    async def _serve(self, connection: Connection) -> None:
        try:
            await self._endpoint._doorway.admit(connection)
        except (ConnectionLostError, LocallyRejectedError) as error:
            logger.debug("%r did not come about: %s", connection, error)
            return
        except EndpointFailedError:
            return
        except Exception:
            logger.exception("accepting %r failed", connection)
            return
        finally:
            self._shaken()
        served = self._handlers.get(connection.alpn)
        if served is not None:
            await self._handle(served.accept, connection)
        else:
            # It was removed a moment ago.
            connection.close()

    async def _serve_specially(self, served: _Served, incoming: Incoming) -> None:
        assert served.on_accepting is not None
        try:
            connection = await served.on_accepting(incoming)
        except (ConnectionLostError, LocallyRejectedError) as error:
            logger.debug("%r did not become a connection: %s", incoming, error)
            return
        except Exception:
            logger.exception("accepting %r failed", incoming)
            return
        finally:
            self._shaken()
            if not incoming.answered:
                incoming.refuse()
        if connection is not None:
            # A frame and its locals stay as long as an idle connection: keep few.
            del incoming
            await self._handle(served.accept, connection)

    async def _handle(self, accept: _Accept, connection: Connection) -> None:
        try:
            if await accept(connection) is connection:
                return
            await connection.settled()
        except Exception as error:
            if isinstance(error, ConnectionLostError) and connection.close_reason is not None:
                logger.debug("%r ended: %s", connection, error)
            else:
                logger.exception("the handler of %r failed; it is closed", connection)
                connection.close(HANDLER_FAILED, b"handler failed")
        except BaseException:
            connection.close()
            raise
        else:
            connection.close()


def _current_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None
    return task


_Accept: TypeAlias = Callable[[Connection], Awaitable[object]]


class _Served:
    """A handler, and what it can do."""

    __slots__ = ("accept", "handler", "on_accepting")

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.accept = cast(_Accept, getattr(handler, "accept", handler))
        self.on_accepting: Callable[[Incoming], Awaitable[Connection | None]] | None
        self.on_accepting = getattr(handler, "on_accepting", None)
