"""The relay server: listens, lets clients in, ends."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from aioiroh.address import RelayUrl
from aioiroh.aio import Closing, Pending, Tasks
from aioiroh.net import SystemNetwork
from aioiroh.relayserver.admission import Access, AccessRequest, Allow, Deny, everyone
from aioiroh.relayserver.certificate import Certificate
from aioiroh.relayserver.connection import ClientConnection
from aioiroh.relayserver.forwarder import Forwarder
from aioiroh.relayserver.http import Listener
from aioiroh.relayserver.limits import AcceptLimit, Limits, RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    from aioiroh.keys import EndpointId
    from aioiroh.net import Network, TcpListener

__all__ = ["RelayServer"]

logger = logging.getLogger("aioiroh.relayserver")

NOT_AUTHORIZED: Final = "not authorized"
LEAVING: Final = 200
"""Clients of a relay that restarts that are sent away in a second, unless its time is too short for that."""
TRY_FOR: Final = 5.0
"""Seconds for which they should try to come back; the protocol wants few."""


class RelayServer(Closing):
    """A relay. Made by `bind`; an async context manager that closes it."""

    def __init__(
        self,
        network: Network,
        *,
        certificate: Certificate | None,
        access: Access,
        limits: Limits,
        on_disconnect: Callable[[EndpointId, int], None] | None,
    ) -> None:
        """Use `bind`."""
        self._network = network
        self._certificate = certificate
        self.access: Access = access
        """Who is let in; may be replaced at any time."""
        self._limits = limits
        self._on_disconnect = on_disconnect
        self._forwarder = Forwarder(network, limits)
        self._listeners: dict[Listener, TcpListener] = {}
        # In the order in which they came: what a relay does repeats in simulations.
        self._connections: dict[ClientConnection, None] = {}
        self._admitted: dict[int, ClientConnection] = {}
        self._admissions: dict[ClientConnection, asyncio.Task[None]] = {}
        self._tasks = Tasks("relay server", limit=limits.pending)
        self._counters = {
            "http_connections": 0,
            "http_connections_closed": 0,
            "http_connections_errored": 0,
            "access_denied": 0,
        }
        self._ended = asyncio.Event()

    @classmethod
    def bind(
        cls,
        *,
        http: tuple[str, int] | None = ("127.0.0.1", 0),
        https: tuple[str, int] | None = None,
        certificate: Certificate | None = None,
        access: Access | None = None,
        limits: Limits | None = None,
        on_disconnect: Callable[[EndpointId, int], None] | None = None,
        network: Network | None = None,
    ) -> Pending[Self]:
        """Listen on these addresses (port 0: any), and let in whom `access` allows (None: everybody).

        With `https` and `certificate`, clients connect there, and `http` answers the check for captive portals only.
        `on_disconnect(endpoint_id, connection_id)` is called once for each client that was let in. Raises
        OSError: an address cannot be had; ValueError: the options do not fit together.
        """
        if (https is None) != (certificate is None):
            raise ValueError("`https` and `certificate` go together")
        if http is None and https is None:
            raise ValueError("give `http` or `https`: without an address nobody can connect")
        make = partial(
            cls,
            network or SystemNetwork(),
            certificate=certificate,
            access=access or everyone,
            limits=limits or Limits(),
            on_disconnect=on_disconnect,
        )
        return Pending(cls._bind(make, http, https))

    @classmethod
    async def _bind(
        cls,
        make: Callable[[], Self],
        http: tuple[str, int] | None,
        https: tuple[str, int] | None,
    ) -> Self:
        server = make()
        try:
            if https is not None:
                await server._listen(Listener.MAIN_TLS, https)
            if http is not None:
                await server._listen(Listener.CAPTIVE if https else Listener.MAIN, http)
        except BaseException:
            await server.aclose()
            raise
        return server

    async def _listen(self, listener: Listener, address: tuple[str, int]) -> None:
        self._listeners[listener] = await self._network.listen_tcp(
            lambda: self._connection(listener), *address
        )

    # --- what is known of it

    @property
    def http_address(self) -> tuple[str, int] | None:
        """Where it listens without TLS."""
        return self._address(Listener.MAIN) or self._address(Listener.CAPTIVE)

    @property
    def https_address(self) -> tuple[str, int] | None:
        """Where it listens with TLS."""
        return self._address(Listener.MAIN_TLS)

    @property
    def url(self) -> RelayUrl:
        """How clients on this machine reach it."""
        address = self.https_address or self.http_address
        assert address is not None
        host, port = address
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        scheme = "https" if self.https_address else "http"
        return RelayUrl(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}/")

    @property
    def clients(self) -> int:
        """Clients that were let in and are connected."""
        return len(self._admitted)

    @property
    def endpoint_ids(self) -> set[EndpointId]:
        """Who they are; one may have several connections."""
        found = (connection.endpoint_id for connection in self._admitted.values())
        return {endpoint_id for endpoint_id in found if endpoint_id is not None}

    @property
    def counters(self) -> dict[str, int]:
        """What was counted so far, under upstream's names (relay protocol, section 4.10) and some of our own."""
        return {**self._forwarder.counters, **self._counters}

    # --- what can be changed while it runs

    def set_certificate(self, certificate: Certificate) -> None:
        """Another certificate, for connections that come from now on. ValueError: it has no TLS."""
        if self._certificate is None:
            raise ValueError("this relay was bound without TLS; bind one with `https`")
        self._certificate = certificate

    def set_rate(self, rate: RateLimit | None) -> None:
        """What each client may send, from now on."""
        self._forwarder.set_rate(rate)

    def set_accept(self, limit: AcceptLimit | None) -> None:
        """How many TCP connections are taken, from now on."""
        self._forwarder.set_accept(limit)

    def disconnect(self, endpoint_id: EndpointId, connection_id: int | None = None) -> bool:
        """End the connections of a client, or one of them; whether there was any."""
        numbers = [
            number
            for number in self._forwarder.connections_of(bytes(endpoint_id))
            if connection_id in (None, number)
        ]
        for number in numbers:
            self._admitted[number].abort()
        return bool(numbers)

    # --- its end

    async def closed(self) -> None:
        """Wait until somebody has closed it."""
        await self._ended.wait()

    async def drain(self, timeout: float) -> None:
        """Take nobody in any more, and send the clients away one after the other, within `timeout` seconds.

        Each is told at once when it may come back, and its connection is closed then: so they do not all dial the next
        relay in the same moment. What they send until then is forwarded. Ends as soon as all have left. The relay is
        then closed.
        """
        self._stop_listening()
        loop = asyncio.get_running_loop()
        begun, clients = loop.time(), tuple(self._admitted.items())
        apart = min(1 / LEAVING, timeout / max(len(clients), 1))
        for turn, (number, _) in enumerate(clients, 1):
            self._forwarder.announce_restart(number, turn * apart, TRY_FOR)
        await self._tasks.aclose()
        for connection in [each for each in self._connections if each.number not in self._admitted]:
            connection.close()
        for turn, (_, connection) in enumerate(clients, 1):
            # Who has gone by itself is not waited for.
            left = max(begun + turn * apart - loop.time(), 0.0)
            await asyncio.wait((connection.ended,), timeout=left)
            connection.close()
        await self.aclose()

    async def aclose(self) -> None:
        """End all connections, after what waits for them was written as far as the system takes it. Cancelled: at once."""
        self._stop_listening()
        try:
            await self._tasks.aclose()
            connections = tuple(self._connections)
            for connection in connections:
                connection.close()
            if connections:
                await asyncio.wait([connection.ended for connection in connections])
        finally:
            for connection in tuple(self._connections):
                connection.abort()
            self._forwarder.close()
            self._ended.set()

    def _stop_listening(self) -> None:
        for listener in self._listeners.values():
            listener.close()

    def _address(self, listener: Listener) -> tuple[str, int] | None:
        found = self._listeners.get(listener)
        return found.address if found else None

    # --- connections

    def _connection(self, listener: Listener) -> ClientConnection:
        return ClientConnection(
            self._forwarder,
            listener,
            self._certificate if listener is Listener.MAIN_TLS else None,
            on_began=self._began,
            on_proved=self._proved,
            on_ended=self._connection_ended,
        )

    def _began(self, connection: ClientConnection) -> None:
        self._connections[connection] = None
        self._counters["http_connections"] += 1
        if self._tasks.closed:
            # The system had taken it before the end.
            connection.abort()

    def _proved(self, connection: ClientConnection, request: AccessRequest) -> None:
        if self._tasks.closed or self._tasks.full:
            connection.abort()
            return
        self._admissions[connection] = self._tasks.spawn(
            self._admit(connection, request), name=request.endpoint_id.short()
        )

    async def _admit(self, connection: ClientConnection, request: AccessRequest) -> None:
        verdict = await self._judge(request)
        if self._admissions.pop(connection, None) is None or connection.number is None:
            return
        if isinstance(verdict, Deny):
            self._counters["access_denied"] += 1
            self._forwarder.deny(connection.number, verdict.reason or NOT_AUTHORIZED)
            connection.close()
            return
        # It may have been ended meanwhile for what it sent.
        if self._forwarder.confirm(connection.number):
            self._admitted[request.connection_id] = connection
            connection.endpoint_id = request.endpoint_id

    async def _judge(self, request: AccessRequest) -> Allow | Deny:
        try:
            async with asyncio.timeout(self._limits.access_timeout):
                return await self.access(request)
        except TimeoutError:
            logger.warning("access of %s was not decided in time", request.endpoint_id.short())
        except Exception:
            logger.exception("access of %s could not be decided", request.endpoint_id.short())
        return Deny()

    def _connection_ended(self, connection: ClientConnection, error: Exception | None) -> None:
        self._connections.pop(connection, None)
        self._counters["http_connections_closed"] += 1
        if error is not None:
            self._counters["http_connections_errored"] += 1
        admission = self._admissions.pop(connection, None)
        if admission is not None:
            # Nobody waits for the answer, and it is not to take the place of one that counts.
            admission.cancel()
        number, endpoint_id = connection.number, connection.endpoint_id
        if number is not None and self._admitted.pop(number, None) is not None:
            assert endpoint_id is not None
            self._disconnected(endpoint_id, number)

    def _disconnected(self, endpoint_id: EndpointId, number: int) -> None:
        if self._on_disconnect is not None:
            try:
                self._on_disconnect(endpoint_id, number)
            except Exception:
                # The end of a connection must not hang on what others make of it.
                logger.exception("`on_disconnect` of %s has failed", endpoint_id.short())
