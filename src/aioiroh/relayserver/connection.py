"""One TCP connection to a relay, from its first byte to its last."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, cast

from aioiroh.keys import EndpointId
from aioiroh.relayserver.admission import AccessRequest
from aioiroh.relayserver.http import SECURITY_HEADERS, Answer, Listener, answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from aioiroh.relayserver.certificate import Certificate
    from aioiroh.relayserver.forwarder import Forwarder

__all__ = ["ClientConnection"]

logger = logging.getLogger("aioiroh.relayserver")

MAX_BUFFERED: Final = 64 * 1024
"""Bytes that may wait for the system before what else there is stays in the forwarder."""
MAX_REQUESTS: Final = 100
"""HTTP requests that are answered on one connection."""


class ClientConnection(asyncio.BufferedProtocol):
    """Feeds the forwarder, writes what it gives, and answers what it asks.

    `on_began` is called when it has come; `on_proved` when the client has proved its key and waits to be let
    in; `on_ended`, with an error if there was one, at the end, and then `ended` is set.
    """

    def __init__(
        self,
        forwarder: Forwarder,
        listener: Listener,
        certificate: Certificate | None,
        *,
        on_began: Callable[[ClientConnection], None],
        on_proved: Callable[[ClientConnection, AccessRequest], None],
        on_ended: Callable[[ClientConnection, Exception | None], None],
    ) -> None:
        self._forwarder = forwarder
        self._listener = listener
        self._certificate = certificate
        self._on_began = on_began
        self._on_proved = on_proved
        self._on_ended = on_ended
        self._transport: asyncio.Transport | None = None
        self._writable = True
        self._requests = 0
        # No request is answered any more.
        self._answered = False
        self._upgrade: tuple[str, list[tuple[str, bytes]]] | None = None
        self._stuck: asyncio.TimerHandle | None = None
        self._resume: asyncio.TimerHandle | None = None
        self._closing: asyncio.TimerHandle | None = None
        self.number: int | None = None
        """In the forwarder; None before it has come there."""
        self.endpoint_id: EndpointId | None = None
        """Who it is, from the moment it was let in."""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # --- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(MAX_BUFFERED)
        self.number = self._forwarder.enter(self, self._certificate, self.remote[0])
        if self.number is None:
            self._transport.abort()
        else:
            self._on_began(self)

    def get_buffer(self, sizehint: int) -> Buffer:
        return self._forwarder.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(self._forwarder.memory[:nbytes])

    def data_received(self, data: Buffer) -> None:
        """For networks that hand over bytes."""
        if self.number is not None:
            self._forwarder.feed(self.number, data)

    def eof_received(self) -> None:
        """Clients say all they have to say before they close."""
        self.close()

    def pause_writing(self) -> None:
        self._writable = False
        wait = self._forwarder.limits.stuck_timeout
        self._stuck = asyncio.get_running_loop().call_later(wait, self.abort)

    def resume_writing(self) -> None:
        self._writable = True
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
        self.write()

    def connection_lost(self, error: Exception | None) -> None:
        for timer in (self._stuck, self._resume, self._closing):
            if timer is not None:
                timer.cancel()
        if self.number is not None:
            self._forwarder.leave(self.number)
            self._on_ended(self, error)
            self.number = None
        self.ended.set_result(None)

    # --- the forwarder's side

    def write(self) -> None:
        """Hand over what waits. While the system takes no more it stays where it is."""
        transport, number = self._transport, self.number
        if transport is None or number is None or transport.is_closing():
            return
        while self._writable and (data := self._forwarder.take(number)) is not None:
            transport.write(data)

    def happened(self, event: tuple[Any, ...]) -> None:
        """Something to be decided."""
        match event:
            case ("request", method, target, headers, has_body):
                self._asked(method, target, headers, has_body)
            case ("proved", version, key):
                self._proved(version, key)
            case ("limited", seconds):
                self._pause(seconds)
            case ("over", kind, text):
                logger.debug("connection %s ends: %s: %s", self.number, kind, text)
                self.close()

    @property
    def remote(self) -> tuple[str, int]:
        """Where it comes from."""
        name = self._transport.get_extra_info("peername") if self._transport else None
        return (str(name[0]), int(name[1])) if name else ("", 0)

    def close(self) -> None:
        """Write what waits, as far as the client takes it in time, and end it."""
        if self._transport is not None and not self._transport.is_closing():
            self.write()
            self._transport.close()
            wait = self._forwarder.limits.close_timeout
            self._closing = asyncio.get_running_loop().call_later(wait, self.abort)

    def abort(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()

    def _asked(
        self, method: str, target: str, headers: list[tuple[str, bytes]], has_body: bool
    ) -> None:
        if self._answered:
            return
        self._requests += 1
        # The first line of a name counts.
        named: dict[str, str] = {}
        for name, value in headers:
            named.setdefault(name.lower(), value.decode("latin-1"))
        found = answer(self._listener, method, target, named)
        if found is None:
            self._upgrade = target, headers
            found = self._try_upgrade(named.get("sec-websocket-version"))
            if found is None:
                return
        last = (
            has_body
            or self._requests >= MAX_REQUESTS
            or named.get("connection", "").lower() == "close"
        )
        self._respond(found, last)

    def _try_upgrade(self, version: str | None) -> Answer | None:
        assert self.number is not None
        refusal = self._forwarder.upgrade(self.number, list(SECURITY_HEADERS))
        if refusal is None:
            return None
        headers = list(SECURITY_HEADERS)
        if version not in (None, "13"):
            headers.insert(0, ("Sec-WebSocket-Version", "13"))
        return Answer(400, "Bad Request", refusal.encode(), headers)

    def _respond(self, found: Answer, last: bool) -> None:
        assert self.number is not None
        headers = list(found.headers)
        if last:
            self._answered = True
            headers.append(("Connection", "close"))
        self._forwarder.respond(self.number, found.status, found.reason, headers, found.body)
        if last:
            self.close()

    def _proved(self, version: int, key: bytes) -> None:
        assert self.number is not None and self._upgrade is not None
        (target, headers), self._upgrade = self._upgrade, None
        request = AccessRequest(EndpointId(key), self.number, version, target, headers, self.remote)
        self._on_proved(self, request)

    def _pause(self, seconds: float) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._resume is not None:
            self._resume.cancel()
        self._transport.pause_reading()
        loop = asyncio.get_running_loop()
        self._resume = loop.call_later(seconds, self._transport.resume_reading)
