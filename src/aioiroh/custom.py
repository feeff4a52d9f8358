"""Custom transports: datagrams of an endpoint that travel in a way of the application's own (reference, section 6.7)."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from aioiroh.address import CustomAddr
from aioiroh.quic.mapped import HOST_SIZE, MAPPED_PORT, Mapped, mapped_ip

if TYPE_CHECKING:
    from aioiroh.metrics import SocketMetrics
    from aioiroh.quic import Driver

__all__ = ["Carrier", "CustomPort", "CustomTransport"]

logger = logging.getLogger("aioiroh.custom")

MAX_PEERS: Final = 16_384
"""Addresses of one transport that the engine knows; those that were used longest ago are forgotten."""
MAX_LOCAL: Final = 32
"""Addresses of ours on one transport."""
MAX_DATAGRAM: Final = 65_527
BATCHES: Final = 64


class CustomTransport(ABC):
    """Carries datagrams between endpoints. `Endpoint.bind(custom_transports=[…])` starts it.

    Datagrams may be lost, repeated and reordered, but must arrive unchanged; 1200 bytes must fit. What is delivered is
    protected by QUIC like everything else.
    """

    id: int
    """Its number in addresses, `CustomAddr.id`; registered ones are in upstream's TRANSPORTS.md."""

    @abstractmethod
    async def start(self, port: CustomPort) -> None:
        """Begin to receive: hand what arrives to `port`, and tell it where this end is reached."""

    @abstractmethod
    def send(self, address: CustomAddr, datagram: bytes) -> None:
        """Send to that address, or drop it. Must neither wait nor raise."""

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of everything. The endpoint is closed."""


class CustomPort:
    """What a transport gets from its endpoint; belongs to the endpoint's loop."""

    def __init__(
        self,
        receive: Callable[[CustomAddr, bytes], None],
        set_local: Callable[[tuple[CustomAddr, ...]], None],
    ) -> None:
        self._receive = receive
        self._set_local = set_local

    def received(self, source: CustomAddr, datagram: bytes) -> None:
        """A datagram has arrived. Anybody may have sent it."""
        self._receive(source, datagram)

    def set_local_addrs(self, addresses: Iterable[CustomAddr]) -> None:
        """Peers reach this end at these addresses from now on."""
        self._set_local(tuple(addresses)[:MAX_LOCAL])


class Carrier:
    """One transport of one endpoint: its slot in the engine, and the addresses of peers as the engine knows them."""

    def __init__(
        self,
        transport: CustomTransport,
        driver: Driver,
        seed: bytes,
        metrics: SocketMetrics,
        on_moved: Callable[[], None],
    ) -> None:
        """`seed`: 32 secret bytes, from which the mapped addresses come; nobody must be able to guess them."""
        self._transport = transport
        self._driver = driver
        self._seed = seed
        self._metrics = metrics
        self._on_moved = on_moved
        self._by_ip: OrderedDict[str, CustomAddr] = OrderedDict()
        nowhere = mapped_ip(Mapped.CUSTOM, bytes(HOST_SIZE))
        self._slot = driver.add_virtual(nowhere, MAPPED_PORT, self._output)
        self.local: tuple[CustomAddr, ...] = ()
        """Where this end is reached."""

    @property
    def id(self) -> int:
        """The transport's number."""
        return self._transport.id

    async def start(self) -> None:
        """Raises what the transport's own start raises."""
        await self._transport.start(CustomPort(self._receive, self._moved))

    async def aclose(self) -> None:
        """The engine has ended."""
        try:
            await self._transport.aclose()
        except Exception:
            logger.exception("custom transport %x did not close well", self.id)

    # --- addresses

    def way_to(self, address: CustomAddr) -> tuple[int, tuple[str, int]] | str:
        """Slot and address by which the engine reaches a peer, or why it cannot."""
        ip = self._ip_of(address)
        return "too many routes are in use" if ip is None else (self._slot, (ip, MAPPED_PORT))

    def address_at(self, ip: str) -> CustomAddr | None:
        """What a mapped address stands for."""
        return self._by_ip.get(ip)

    def _ip_of(self, address: CustomAddr) -> str | None:
        host = blake2b(bytes(address), key=self._seed, digest_size=HOST_SIZE).digest()
        ip = mapped_ip(Mapped.CUSTOM, host)
        if ip in self._by_ip:
            self._by_ip.move_to_end(ip)
            return ip
        if len(self._by_ip) >= MAX_PEERS:
            oldest, _ = self._by_ip.popitem(last=False)
            self._driver.engine.drop_route(oldest)
        try:
            self._driver.engine.set_route(ip, [(self._slot, None)])
        except ValueError:
            return None
        self._by_ip[ip] = address
        return ip

    def _moved(self, addresses: tuple[CustomAddr, ...]) -> None:
        for address in addresses:
            if address.id != self.id:
                raise ValueError(f"{address} is no address of transport {self.id:x}")
        self.local = addresses
        self._on_moved()

    # --- datagrams

    def _receive(self, source: CustomAddr, datagram: bytes) -> None:
        if self._driver.closing or not datagram or len(datagram) > MAX_DATAGRAM:
            return
        ip = self._ip_of(source)
        if ip is not None:
            self._metrics.recv_data_custom += len(datagram)
            self._driver.inject(self._slot, (ip, MAPPED_PORT), datagram)

    def _output(self, slot: int) -> None:
        while batches := self._driver.take_output(slot, BATCHES):
            for (ip, _), _, _, segment_size, data in batches:
                address = self._by_ip.get(ip)
                if address is None:
                    continue
                step = segment_size or len(data)
                for start in range(0, len(data), step):
                    self._send(address, data[start : start + step])

    def _send(self, address: CustomAddr, datagram: bytes) -> None:
        try:
            self._transport.send(address, datagram)
        except Exception:
            # The engine's events are being dispatched: a mistake here must not end it.
            logger.exception("custom transport %x did not take a datagram", self.id)
