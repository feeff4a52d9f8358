"""How an endpoint dials: hooks, lookup and addresses around one `Dial`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from aioiroh import events
from aioiroh.address import Dialable, EndpointAddr
from aioiroh.errors import LocallyClosedError, SelfConnectError
from aioiroh.hooks import Hook, ask_after_handshake, ask_before_connect
from aioiroh.paths import Dial, Roster
from aioiroh.quic import Connection, Driver, TransportConfig
from aioiroh.quic.alpn import Alpns, checked_alpns

if TYPE_CHECKING:
    from aioiroh.aio import Tasks
    from aioiroh.keys import EndpointId
    from aioiroh.lookup import LookupRegistry
    from aioiroh.net import Network
    from aioiroh.paths import Steering
    from aioiroh.whereabouts import Whereabouts

__all__ = ["Dialling"]


class Dialling:
    """What `Endpoint.connect` does."""

    def __init__(
        self,
        own: EndpointId,
        driver: Driver,
        network: Network,
        hooks: Sequence[Hook],
        *,
        lookup: LookupRegistry,
        roster: Roster,
        steering: Steering,
        where: Whereabouts,
        tasks: Tasks,
    ) -> None:
        self._own = own
        self._driver = driver
        self._network = network
        self._hooks = tuple(hooks)
        self._lookup = lookup
        self._roster = roster
        self._remotes = roster.remotes
        self._steering = steering
        self._where = where
        self._tasks = tasks

    async def connect(
        self,
        target: Dialable,
        alpn: Alpns,
        transport: TransportConfig | None,
        timeout: float | None,
        early_data: bool,
    ) -> Connection:
        """As `Endpoint.connect`."""
        self._driver.check()
        addr = EndpointAddr.coerce(target)
        alpns = checked_alpns(alpn)
        if addr.id == self._own:
            raise SelfConnectError("this is the endpoint's own id; dial another one")
        dial = Dial(
            self._driver,
            addr.id,
            self._remotes,
            alpns,
            transport=transport,
            early_data=early_data,
            searching=len(self._lookup) > 0,
            unusable=self._where.unusable,
            way_to=lambda address: self._where.way_to(address, addr.id),
            secret=self._network.secret,
        )
        try:
            if timeout is None:
                # Not in a `timeout(None)`, which would keep a cancelled dial in a cycle of references.
                return await self._dial(dial, addr, alpns[0])
            async with asyncio.timeout(timeout) as limit:
                return await self._dial(dial, addr, alpns[0])
        except LocallyClosedError:
            self._driver.check()
            raise
        except TimeoutError:
            if timeout is not None and limit.expired():
                raise dial.timed_out(f"within {timeout:g} s") from None
            raise

    async def _dial(self, dial: Dial, addr: EndpointAddr, alpn: bytes) -> Connection:
        if self._hooks:
            await ask_before_connect(self._hooks, addr, alpn)
        if events.conn_connecting.enabled:
            events.conn_connecting(remote_id=addr.id, alpn=alpn)
        dial.offer(addr.addrs, "application")
        dial.offer(self._remotes.addresses(bytes(addr.id)))
        self._roster.dials.add(dial)
        search = None
        if len(self._lookup):
            search = self._tasks.spawn(dial.search(self._lookup.resolve(addr.id)), name="search")
        try:
            connection = await dial.run()
        finally:
            if search is not None:
                search.cancel()
        ways = self._where.relayed_ways(addr)
        if ways:
            self._steering.relays_of(connection.state, ways)
        if connection.is_early:
            self._tasks.spawn(self._finish_early(dial, connection), name="early data")
        elif self._hooks:
            await ask_after_handshake(self._hooks, connection)
        return connection

    async def _finish_early(self, dial: Dial, connection: Connection) -> None:
        try:
            await dial.finish(connection)
            await ask_after_handshake(self._hooks, connection)
        except ConnectionError:
            # Whoever uses the connection learns it there.
            return
