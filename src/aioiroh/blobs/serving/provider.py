"""Serving blobs: the protocol handler for `/iroh-bytes/4`."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import Counter
from collections.abc import Collection as AbstractCollection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aioiroh.errors import DecodeError, IncompleteReadError, ReadLimitError

from ..messages import (
    ErrorCode,
    GetManyRequest,
    GetRequest,
    ObserveRequest,
    PushRequest,
    RequestKind,
)
from ..transfer.send import Departure, Outcome, send
from .access import (
    Authorize,
    IncomingRequest,
    OnTransfer,
    TransferAborted,
    TransferCompleted,
    TransferEvent,
    TransferProgress,
    TransferStarted,
    TransferStats,
    Verdict,
)
from .observe import answer_observe
from .requests import read_request

if TYPE_CHECKING:
    from aioiroh.keys import EndpointId
    from aioiroh.quic.connection import Connection
    from aioiroh.quic.streams import BiStream

    from ..store.interface import Store

__all__ = ["Limits", "Provider"]

logger = logging.getLogger("aioiroh.blobs")

READ_ONLY: Final = frozenset((RequestKind.GET, RequestKind.GET_MANY))


@dataclass(frozen=True, slots=True)
class Limits:
    """What a provider spends on its peers. Times in seconds.

    `requests_per_connection` are answered at once, further ones wait; over `requests` in all,
    `requests_per_peer` of one peer, and `connections`, peers are told to come later (code 2). A request must arrive within
    `request_time`. A peer that takes no data for `stall_time` is given up.
    """

    connections: int = 4096
    requests_per_connection: int = 100
    requests_per_peer: int = 256
    requests: int = 1024
    request_time: float = 10.0
    stall_time: float = 60.0


class Provider:
    """Serves the blobs of `store` to every peer that connects; a handler for a router.

    `authorize(request)` decides about each request of the kinds in `serve`; requests of other kinds
    are refused. By default everybody may get, nobody may observe; pushes are never
    taken. `on_transfer` hears what happens to the blobs that are sent.
    """

    def __init__(
        self,
        store: Store,
        *,
        authorize: Authorize | None = None,
        on_transfer: OnTransfer | None = None,
        serve: AbstractCollection[RequestKind] = READ_ONLY,
        limits: Limits | None = None,
    ) -> None:
        if RequestKind.PUSH in serve:
            raise ValueError("a provider takes no pushes; leave RequestKind.PUSH out of `serve`")
        self._store = store
        self._authorize = authorize
        self._on_transfer = on_transfer
        self._served = frozenset(serve)
        self._limits = limits or Limits()
        self._connections: set[Connection] = set()
        self._requests: Counter[EndpointId] = Counter()

    async def accept(self, connection: Connection) -> None:
        """Answers the requests on a connection until it ends."""
        if len(self._connections) >= self._limits.connections:
            connection.close(ErrorCode.LIMIT, b"limit")
            return
        self._connections.add(connection)
        try:
            await connection.serve(self._answer, limit=self._limits.requests_per_connection)
        finally:
            self._connections.discard(connection)

    async def shutdown(self) -> None:
        """Closes the connections; what is being sent breaks off."""
        for connection in tuple(self._connections):
            connection.close(ErrorCode.NONE, b"")

    # --- one request ------------------------------------------------------------------------------

    async def _answer(self, stream: BiStream) -> None:
        # A share for each, so that one peer with many connections cannot keep out all others.
        peer = stream.connection.remote_id
        if (
            self._requests.total() >= self._limits.requests
            or self._requests[peer] >= self._limits.requests_per_peer
        ):
            stream.send.reset(ErrorCode.LIMIT)
            return
        self._requests[peer] += 1
        try:
            await self._answer_counted(stream)
        finally:
            self._requests[peer] -= 1
            if not self._requests[peer]:
                del self._requests[peer]

    async def _answer_counted(self, stream: BiStream) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        try:
            async with asyncio.timeout(self._limits.request_time):
                request, request_bytes = await read_request(stream.recv)
        except (DecodeError, IncompleteReadError, ReadLimitError, TimeoutError) as error:
            # As upstream: leaving the stream ends it without a byte and stops the peer.
            logger.debug("%r: no request: %s", stream, error)
            return
        connection = stream.connection
        source = IncomingRequest(connection.remote_id, connection.stable_id, stream.id, request)
        try:
            verdict = await self._judge(source)
        except Exception:
            logger.exception("authorize failed; the request of %s is refused", connection.remote_id)
            stream.send.reset(ErrorCode.INTERNAL)
            return
        if verdict is not Verdict.ALLOW:
            stream.send.reset(verdict.value)
            return
        match request:
            case GetRequest() | GetManyRequest():
                outcome = Outcome()
                try:
                    outcome = await send(
                        stream.send,
                        request,
                        self._store,
                        stall_time=self._limits.stall_time,
                        on_departure=lambda departure: self._departed(source, departure),
                    )
                except BaseException as error:
                    outcome.reason = f"{type(error).__name__}: {error}"
                    raise
                finally:
                    self._ended(source, outcome, request_bytes, loop.time() - begun)
            case ObserveRequest():
                await answer_observe(stream.send, self._store, request.hash)
            case PushRequest():
                raise AssertionError("pushes are never let through")

    async def _judge(self, source: IncomingRequest) -> Verdict:
        if source.kind not in self._served:
            return Verdict.DENY
        if self._authorize is None:
            return Verdict.ALLOW
        verdict = self._authorize(source)
        if inspect.isawaitable(verdict):
            verdict = await verdict
        if isinstance(verdict, Verdict):
            return verdict
        return Verdict.ALLOW if verdict else Verdict.DENY

    # --- telling ----------------------------------------------------------------------------------

    def _departed(self, source: IncomingRequest, departure: Departure) -> None:
        item = departure.item
        if departure.is_done or departure.end_offset:
            end = departure.size if departure.is_done else departure.end_offset
            self._tell(TransferProgress(source, item.index, item.hash, end))
        else:
            self._tell(TransferStarted(source, item.index, item.hash, departure.size))

    def _ended(
        self, source: IncomingRequest, outcome: Outcome, request_bytes: int, duration: float
    ) -> None:
        stats = TransferStats(outcome.payload_bytes, outcome.blobs, request_bytes, duration)
        if outcome.reason is None:
            self._tell(TransferCompleted(source, stats))
        else:
            logger.debug("request of %s: %s", source.remote_id.short(), outcome.reason)
            self._tell(TransferAborted(source, stats, outcome.reason))

    def _tell(self, event: TransferEvent) -> None:
        if self._on_transfer is None:
            return
        try:
            self._on_transfer(event)
        except Exception:
            logger.exception("on_transfer failed; the transfer goes on")
