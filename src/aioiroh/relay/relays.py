"""The relays of one endpoint: the home relay, and those where peers are."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from aioiroh import _native, events
from aioiroh.address import RelayConfig, RelayMap, RelayUrl
from aioiroh.aio import Tasks, Watch
from aioiroh.errors import AddressParsingError
from aioiroh.relay.client import RelayClient
from aioiroh.relay.status import RelayStatus

if TYPE_CHECKING:
    from aioiroh.keys import EndpointId, SecretKey
    from aioiroh.metrics import SocketMetrics
    from aioiroh.net import Network
    from aioiroh.quic import Driver

__all__ = ["Relays"]

logger = logging.getLogger("aioiroh.relay")

MAX_RELAYS: Final = 16
"""Relays in use at once; peers behind further ones cannot be reached there."""
IDLE_TIMEOUT: Final = 60.0
"""Seconds without a datagram to send after which a relay that is not home is left."""


class Relays:
    """Connects to the home relay at once, to others when something is to be sent there.

    The first relay of the map, in the order of URLs, is home. A relay that the map does not name is
    dialled without a token.
    """

    def __init__(
        self,
        relay_map: RelayMap,
        driver: Driver,
        network: Network,
        secret_key: SecretKey,
        tls: _native.RelayTls,
        metrics: SocketMetrics,
    ) -> None:
        self._map = relay_map
        self._driver = driver
        self._network = network
        self._secret_key = secret_key
        self._tls = tls
        self._metrics = metrics
        self._clients: dict[RelayUrl, tuple[RelayClient, asyncio.Task[None]]] = {}
        self._tasks = Tasks("relays")
        self.home: Watch[RelayStatus | None] = Watch(None)
        """How the home relay stands; None without one."""

    def start(self) -> None:
        """Connect to the home relay. Raises AddressParsingError: it cannot be dialled."""
        for config in self._map:
            client = self._open(config)
            self._metrics.relay_home_change += 1
            events.relay_home_changed(old_relay=None, new_relay=config.url)
            self._tasks.spawn(self._watch_home(client), name="home relay")
            self._tasks.spawn(self._leave_idle(config.url), name="idle relays")
            return

    def way_to(self, url: RelayUrl, peer: EndpointId) -> tuple[int, tuple[str, int]] | str:
        """Slot and address by which the engine reaches a peer at a relay, or why it cannot."""
        found = self._clients.get(url)
        if found is None:
            if len(self._clients) >= MAX_RELAYS:
                return f"{MAX_RELAYS} relays are in use already"
            try:
                client = self._open(self._map.get(url) or RelayConfig(url))
            except AddressParsingError as error:
                return str(error)
        else:
            client = found[0]
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
        self.home.close()

    def _open(self, config: RelayConfig) -> RelayClient:
        client = RelayClient(
            config, self._driver, self._network, self._secret_key, self._tls, self._metrics
        )
        task = self._tasks.spawn(client.run(), name=str(config.url))
        self._clients[config.url] = client, task
        return client

    async def _watch_home(self, client: RelayClient) -> None:
        async for status in client.status:
            self.home.set(status)

    async def _leave_idle(self, home: RelayUrl) -> None:
        while True:
            await asyncio.sleep(IDLE_TIMEOUT / 4)
            now = self._network.monotonic()
            for url, (client, task) in tuple(self._clients.items()):
                if url != home and now - client.last_sent >= IDLE_TIMEOUT:
                    del self._clients[url]
                    task.cancel()
                    await asyncio.wait([task])
                    client.close()
                    self._driver.remove_slot(client.slot)
