"""Serving blobs: the protocol handler for `/iroh-bytes/4`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from collections.abc import Collection as AbstractCollection
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from aioiroh.aio import within
from aioiroh.errors import DecodeError, IncompleteReadError, ReadLimitError

from ..messages import (
    ErrorCode,
    GetManyRequest,
    GetRequest,
    ObserveRequest,
    RequestKind,
)
from ..transfer.patience import Patience
from ..transfer.send import Departure, Outcome, send
from .access import Admit, Authorize, IncomingRequest, Verdict, judge
from .events import (
    ClientConnected,
    ConnectionClosed,
    OnConnection,
    OnTransfer,
    RequestReceived,
    TransferAborted,
    TransferCompleted,
    TransferEvent,
    TransferProgress,
    TransferStarted,
    TransferStats,
)
from .limits import Limits, Places
from .observe import answer_observe
from .push import OnPush, take_push
from .rates import Rates, Throttle
from .requests import read_request

if TYPE_CHECKING:
    from aioiroh.keys import EndpointId
    from aioiroh.quic.connection import Connection
    from aioiroh.quic.streams import BiStream

    from ..store.interface import Store

__all__ = ["Provider"]

E = TypeVar("E")

logger = logging.getLogger("aioiroh.blobs")

READ_ONLY: Final = frozenset((RequestKind.GET, RequestKind.GET_MANY))


class _Guest(NamedTuple):
    """A connection that was let in: whose it is, and its number."""

    peer: EndpointId
    connection: int
    key: bytes
    """The peer's name in `Places`."""


class Provider:
    """Serves the blobs of `store` to every peer that connects; a handler for a router.

    `admit(peer)` decides about each connection, `authorize(request)` about each request of the kinds
    in `serve`; requests of other kinds are refused. By default everybody may connect and get; nobody
    may observe or push.

    `on_connection` hears who comes and goes, `on_transfer` what happens to each request. `on_push` is
    called when a push has arrived, before the store may forget it. `throttle(request)` names rate
    limits for a request, besides those in `limits`.
    """

    def __init__(
        self,
        store: Store,
        *,
        admit: Admit | None = None,
        authorize: Authorize | None = None,
        on_connection: OnConnection | None = None,
        on_transfer: OnTransfer | None = None,
        on_push: OnPush | None = None,
        throttle: Throttle | None = None,
        serve: AbstractCollection[RequestKind] = READ_ONLY,
        limits: Limits | None = None,
    ) -> None:
        self._store = store
        self._admit = admit
        self._authorize = authorize
        self._on_connection = on_connection
        self._on_transfer = on_transfer
        self._on_push = on_push
        self._served = frozenset(serve)
        self._limits = limits = limits or Limits()
        self._rates = Rates(limits, throttle)
        self._connections: set[Connection] = set()
        self._requests = Places(limits.requests, limits.requests_per_peer)
        self._observers = Places(limits.observers, limits.observers_per_peer)
        self._pushes = Places(limits.pushes, limits.pushes_per_peer)

    async def accept(self, connection: Connection) -> None:
        """Answers the requests on a connection until it ends."""
        if len(self._connections) >= self._limits.connections:
            connection.close(ErrorCode.LIMIT, Verdict.LATER.reason)
            return
        self._connections.add(connection)
        try:
            if await self._let_in(connection):
                guest = _Guest(
                    connection.remote_id, connection.stable_id, bytes(connection.remote_id)
                )
                await connection.serve(
                    partial(self._answer, guest), limit=self._limits.requests_per_connection
                )
                self._tell(self._on_connection, ConnectionClosed(guest.peer, guest.connection))
        finally:
            self._connections.discard(connection)

    async def shutdown(self) -> None:
        """Closes the connections; what is being sent breaks off."""
        for connection in tuple(self._connections):
            connection.close(ErrorCode.NONE, b"")

    async def _let_in(self, connection: Connection) -> bool:
        peer = connection.remote_id
        try:
            verdict = await judge(self._admit, peer)
        except Exception:
            logger.exception("admit failed; the connection of %s is refused", peer)
            connection.close(ErrorCode.INTERNAL, b"internal")
            return False
        if verdict is not Verdict.ALLOW:
            connection.close(verdict.value, verdict.reason)
            return False
        self._tell(self._on_connection, ClientConnected(peer, connection.stable_id))
        return True

    # --- one request ------------------------------------------------------------------------------

    async def _answer(self, guest: _Guest, stream: BiStream) -> None:
        if self._requests.take(guest.key):
            try:
                await self._answer_counted(guest, stream)
            finally:
                self._requests.leave(guest.key)
        else:
            stream.send.reset(ErrorCode.LIMIT)

    async def _answer_counted(self, guest: _Guest, stream: BiStream) -> None:
        now = asyncio.get_running_loop().time
        begun = now()
        try:
            request, request_bytes = await within(
                self._limits.request_time, read_request(stream.recv)
            )
        except (DecodeError, IncompleteReadError, ReadLimitError, TimeoutError) as error:
            # As upstream: leaving the stream ends it without a byte and stops the peer.
            logger.debug("%r: no request: %s", stream, error)
            return
        source = IncomingRequest(guest.peer, guest.connection, stream.id, request)
        if request.kind not in self._served:
            stream.send.reset(ErrorCode.PERMISSION)
            return
        if self._authorize is not None:
            try:
                verdict = await judge(self._authorize, source)
            except Exception:
                logger.exception("authorize failed; the request of %s is refused", guest.peer)
                stream.send.reset(ErrorCode.INTERNAL)
                return
            if verdict is not Verdict.ALLOW:
                stream.send.reset(verdict.value)
                return
        if self._on_transfer is not None:
            self._tell(self._on_transfer, RequestReceived(source))
        outcome = Outcome()
        ready = now()
        try:
            if isinstance(request, GetRequest | GetManyRequest):
                await send(
                    stream.send,
                    request,
                    self._store,
                    outcome,
                    patience=Patience(
                        self._limits.stall_time, self._limits.minimum_rate, now=ready
                    ),
                    on_departure=(
                        None if self._on_transfer is None else partial(self._departed, source)
                    ),
                    pace=self._rates.pace(source, ready),
                )
            else:
                await self._carry_out(guest, stream, source, outcome)
        except asyncio.CancelledError:
            outcome.reason = "the connection ended"
            raise
        except BaseException as error:
            outcome.reason = f"{type(error).__name__}: {error}"
            raise
        finally:
            if outcome.reason is not None:
                logger.debug("request of %s: %s", guest.peer.short(), outcome.reason)
            if self._on_transfer is not None:
                self._tell(self._on_transfer, self._end(source, outcome, request_bytes, begun))

    async def _carry_out(
        self, guest: _Guest, stream: BiStream, source: IncomingRequest, outcome: Outcome
    ) -> None:
        """What takes a place of its own kind, too."""
        if isinstance(source.request, ObserveRequest):
            places, work = self._observers, self._observe
        else:
            places, work = self._pushes, self._take
        if not places.take(guest.key):
            stream.send.reset(ErrorCode.LIMIT)
            outcome.reason = "the peer has too many of the kind"
            return
        try:
            await work(stream, source, outcome)
        finally:
            places.leave(guest.key)

    async def _observe(self, stream: BiStream, source: IncomingRequest, outcome: Outcome) -> None:
        assert isinstance(source.request, ObserveRequest)
        hash, time = source.request.hash, self._limits.observe_time
        try:
            await answer_observe(stream.send, self._store, hash, time)
        except TimeoutError:
            stream.send.reset(ErrorCode.LIMIT)
            outcome.reason = "the peer has observed long enough"

    async def _take(self, stream: BiStream, source: IncomingRequest, outcome: Outcome) -> None:
        await take_push(
            stream,
            source,
            self._store,
            self._limits,
            outcome,
            on_push=self._on_push,
            tell=lambda event: self._tell(self._on_transfer, event),
        )

    # --- telling ----------------------------------------------------------------------------------

    def _departed(self, source: IncomingRequest, departure: Departure) -> None:
        item = departure.item
        if departure.is_done or departure.end_offset:
            end = departure.size if departure.is_done else departure.end_offset
            event: TransferEvent = TransferProgress(source, item.index, item.hash, end)
        else:
            event = TransferStarted(source, item.index, item.hash, departure.size)
        self._tell(self._on_transfer, event)

    @staticmethod
    def _end(
        source: IncomingRequest, outcome: Outcome, request_bytes: int, begun: float
    ) -> TransferEvent:
        stats = TransferStats(
            outcome.payload_bytes,
            outcome.blobs,
            max(0, outcome.bytes - outcome.payload_bytes),
            request_bytes,
            asyncio.get_running_loop().time() - begun,
        )
        if outcome.reason is None:
            return TransferCompleted(source, stats)
        return TransferAborted(source, stats, outcome.reason, outcome.lacking)

    @staticmethod
    def _tell(hook: Callable[[E], object] | None, event: E) -> None:
        if hook is None:
            return
        try:
            hook(event)
        except Exception:
            logger.exception("a hook failed; the provider goes on")
