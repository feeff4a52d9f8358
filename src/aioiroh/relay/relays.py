"""The relays of one endpoint: the home relay, and those where peers are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from aioiroh import _native, events
from aioiroh.address import RelayConfig, RelayMap, RelayUrl
from aioiroh.aio import Tasks, Watch
from aioiroh.errors import AddressParsingError
from aioiroh.relay.client import RelayClient
from aioiroh.relay.server_url import check_url
from aioiroh.relay.status import RelayStatus

if TYPE_CHECKING:
    from aioiroh.keys import EndpointId, SecretKey
    from aioiroh.metrics import SocketMetrics
    from aioiroh.net import Network, TcpDialler
    from aioiroh.quic import Driver

__all__ = ["Relays"]

logger = logging.getLogger("aioiroh.relay")

MAX_RELAYS: Final = 16
"""Relays in use at once; peers behind further ones cannot be reached there."""
LEAVE_TICK: Final = 0.01
IDLE_TIMEOUT: Final = 60.0
"""Seconds without a datagram to send after which a relay that is not home is left."""


class Relays:
    """Stays connected to the relay that is made home, and to others while something is sent there.

    A relay that `relay_map` does not name, because a peer told of it, is dialled without a token. `home` is set to
    how the home relay stands, None without one.
    """

    def __init__(
        self,
        relay_map: RelayMap,
        driver: Driver,
        network: Network,
        secret_key: SecretKey,
        tls: _native.RelayTls,
        metrics: SocketMetrics,
        home: Watch[RelayStatus | None],
        dialler: TcpDialler,
    ) -> None:
        self._map = RelayMap(relay_map)
        self._driver = driver
        self._network = network
        self._secret_key = secret_key
        self._tls = tls
        self._metrics = metrics
        self._seed = network.secret(32)
        self._clients: dict[RelayUrl, tuple[RelayClient, asyncio.Task[None]]] = {}
        self._tasks = Tasks("relays")
        self._watching: asyncio.Task[None] | None = None
        self._home: RelayUrl | None = None
        self._status = home
        self._dialler = dialler

    def start(self) -> None:
        """Raises AddressParsingError: one of the relays cannot be dialled."""
        for config in self._map:
            check_url(config.url)
        self._tasks.spawn(self._leave_idle(), name="idle relays")
        if len(self._map) == 1:
            # There is nothing to choose, so nothing to wait for.
            self.set_home(self._map.urls[0])

    # --- which relays

    @property
    def configured(self) -> Sequence[RelayConfig]:
        """Those that the endpoint may use, in the order of URLs."""
        return tuple(self._map)

    def set_home(self, url: RelayUrl | None) -> None:
        """The relay through which peers are to reach us. The one before is left when it is idle. Raises
        AddressParsingError.
        """
        if url == self._home:
            return
        client = None if url is None else self._client(url)
        before, self._home = self._home, url
        if before in self._clients:
            # Peers have to hear of it first.
            self._clients[before][0].last_sent = self._network.monotonic()
        self._metrics.relay_home_change += 1
        events.relay_home_changed(old_relay=before, new_relay=url)
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        if client is None:
            self._status.set(None)
        else:
            self._status.set(client.status.value)
            self._watching = self._tasks.spawn(self._watch_home(client), name="home relay")

    def insert(self, config: RelayConfig) -> RelayConfig | None:
        """Use this relay, too, or one with other settings; gives the entry that it replaces. Raises
        AddressParsingError.
        """
        check_url(config.url)
        previous = self._map.insert(config)
        if config.url in self._clients:
            self._clients[config.url][0].use(config)
        if self._home is None:
            self.set_home(config.url)
        return previous

    def remove(self, url: RelayUrl) -> RelayConfig | None:
        """The relay is not ours any more; gives its entry. If it was home, the first of the others is.

        It is left when it is idle: peers may be reached through it for as long as they are there.
        """
        previous = self._map.remove(url)
        if previous is not None and url == self._home:
            self.set_home(next(iter(self._map.urls), None))
        return previous

    # --- ways through them

    def way_to(self, url: RelayUrl, peer: EndpointId) -> tuple[int, tuple[str, int]] | str:
        """Slot and address by which the engine reaches a peer at a relay, or why it cannot."""
        if url not in self._clients and len(self._clients) >= MAX_RELAYS:
            return f"{MAX_RELAYS} relays are in use already"
        try:
            client = self._client(url)
        except AddressParsingError as error:
            return str(error)
        address = client.address(peer)
        return (client.slot, address) if address else "too many routes are in use"

    def url_at(self, ip: str) -> RelayUrl | None:
        """The relay behind which the peer at this mapped address is."""
        for url, (client, _) in self._clients.items():
            if client.knows(ip):
                return url
        return None

    def network_changed(self, ips: Collection[str]) -> None:
        """The machine has these addresses now: see which connections still live."""
        for client, _ in self._clients.values():
            client.network_changed(ips)

    async def aclose(self) -> None:
        """Leave all relays."""
        await self._tasks.aclose()
        for client, _ in self._clients.values():
            client.close()
        self._clients.clear()

    # --- coming and going

    def _client(self, url: RelayUrl) -> RelayClient:
        found = self._clients.get(url)
        if found is not None:
            return found[0]
        client = RelayClient(
            self._map.get(url) or RelayConfig(url),
            self._driver,
            self._network,
            self._secret_key,
            self._tls,
            self._metrics,
            self._dialler,
            # A relay that is left and found again has its peers at the same addresses: paths live on.
            blake2b(url.encode(), key=self._seed, digest_size=32).digest(),
        )
        self._clients[url] = client, self._tasks.spawn(client.run(), name=str(url))
        return client

    async def _watch_home(self, client: RelayClient) -> None:
        async for status in client.status:
            self._status.set(status)

    async def _leave_idle(self) -> None:
        while True:
            now = self._network.monotonic()
            idle = [
                (client.last_sent + IDLE_TIMEOUT, url)
                for url, (client, _) in self._clients.items()
                if url != self._home
            ]
            for _, url in idle:
                # While another one was left it may have become home, or of use again.
                if now >= self._clients[url][0].last_sent + IDLE_TIMEOUT and url != self._home:
                    await self._leave(url)
            later = [deadline - now for deadline, _ in idle if deadline > now]
            await asyncio.sleep(max(min(later, default=IDLE_TIMEOUT), LEAVE_TICK))

    async def _leave(self, url: RelayUrl) -> None:
        client, task = self._clients.pop(url)
        task.cancel()
        client.close()
        # Before anything else runs: the same relay may be needed again, with the same addresses.
        client.release()
        await asyncio.wait([task])
