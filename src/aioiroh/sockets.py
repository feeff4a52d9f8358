"""The UDP sockets of an endpoint, and the addresses that it has through them."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from aioiroh.address import IpAddr
from aioiroh.errors import BindError
from aioiroh.net import Network, NetworkState, UdpOptions, UdpSlot
from aioiroh.paths import OwnAddresses
from aioiroh.presets import BindAddress, Interface, bind_address
from aioiroh.quic import Driver

__all__ = ["Sockets"]

logger = logging.getLogger("aioiroh.endpoint")

DEFAULT_BIND: Final = (("0.0.0.0", 0), ("::", 0))
"""Where an endpoint is bound by default; the second only if the machine has IPv6."""
BIND_RETRY: Final = 1.0
"""Seconds after an address of an interface could not be bound: a new one over IPv6 is first tried out by the system."""
MAX_RETRIES: Final = 10
MAX_SLOTS: Final = 64
"""Sockets that follow the addresses of interfaces, at most."""


class Sockets:
    """Opened once with `open`; from then on they follow the network of the machine."""

    def __init__(self, driver: Driver, network: Network) -> None:
        self._driver = driver
        self._network = network
        self._interfaces: tuple[Interface, ...] = ()
        # Which socket is there because of which interface.
        self._followed: dict[tuple[Interface, str], UdpSlot] = {}
        self._fixed: tuple[UdpSlot, ...] = ()
        self._own = OwnAddresses(())
        self._retry: asyncio.TimerHandle | None = None
        self._retries = 0
        self.slots: tuple[UdpSlot, ...] = ()
        self.fixed_port: int | None = None
        """The port that was asked for over IPv4."""

    def open(self, binds: Sequence[BindAddress] | None) -> None:
        """None: the default ones. Raises BindError."""
        wanted = DEFAULT_BIND if binds is None else binds
        slots: list[UdpSlot] = []
        for bind in wanted:
            if isinstance(bind, Interface):
                self._interfaces += (bind,)
                continue
            address = bind_address(bind)
            try:
                slots.append(self._bind(address))
            except OSError as error:
                if binds is None and slots:
                    continue
                text = os.strerror(error.errno) if error.errno else str(error)
                where = IpAddr.from_pair(address).text
                raise BindError(error.errno or 0, f"cannot bind {where}: {text}") from error
            if address[1] and ":" not in address[0] and self.fixed_port is None:
                self.fixed_port = address[1]
        self._fixed = tuple(slots)
        self._follow(NetworkState.of(self._network))

    def _bind(self, address: tuple[str, int]) -> UdpSlot:
        return self._network.bind_udp(self._driver, address, UdpOptions())

    def network_changed(self, state: NetworkState, *, major: bool) -> None:
        """The machine has other addresses."""
        if major:
            self._fixed = tuple(
                slot for each in self._fixed if (slot := self._rebound(each, state))
            )
            for key, each in tuple(self._followed.items()):
                slot = self._rebound(each, state)
                if slot is None:
                    del self._followed[key]
                else:
                    self._followed[key] = slot
        self._retries = 0
        self._follow(state)

    def _rebound(self, slot: UdpSlot, state: NetworkState) -> UdpSlot | None:
        # What is bound to an address that is gone could not be bound again.
        if ip_address(slot.host).is_unspecified or slot.host in state.ips:
            try:
                return self._network.rebind_udp(self._driver, slot)
            except OSError as error:
                logger.warning("the socket at %s is lost: %s", slot.host, error)
                return None
        return slot

    # --- sockets at the addresses of interfaces

    def _follow(self, state: NetworkState) -> None:
        there = {
            (interface, address.ip)
            for interface in self._interfaces
            for address in state.addresses
            # Without its interface a link-local IPv6 address means nothing to a peer.
            if address.interface == interface.name
            and not (":" in address.ip and address.is_link_local)
        }
        for key in self._followed.keys() - there:
            self._driver.remove_slot(self._followed.pop(key).index)
        failed = False
        # In a fixed order: simulations must repeat.
        for interface, ip in sorted(there - self._followed.keys(), key=repr):
            if len(self._followed) < MAX_SLOTS:
                try:
                    self._followed[interface, ip] = self._bind((ip, interface.port))
                except OSError as error:
                    logger.debug("cannot bind %s of %s: %s", ip, interface.name, error)
                    failed = True
        self._set_slots((*self._fixed, *self._followed.values()), state)
        if failed and self._retries < MAX_RETRIES and self._retry is None:
            self._retries += 1
            self._retry = self._driver.loop.call_later(BIND_RETRY, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        if not self._driver.closing:
            self._follow(NetworkState.of(self._network))

    def _set_slots(self, slots: tuple[UdpSlot, ...], state: NetworkState) -> None:
        if slots != self.slots:
            self.slots = slots
            self._own = OwnAddresses(slots)
        prefixes = {address.ip: address.prefix for address in state.addresses}
        for slot in slots:
            if not ip_address(slot.host).is_unspecified:
                outward = slot.host in state.outward
                self._driver.set_reach(slot.index, prefixes.get(slot.host), outward=outward)

    # --- what follows

    def addresses(self) -> tuple[IpAddr, ...]:
        """What peers should be told of where the sockets are now."""
        return self._own.refresh(self._network.local_addresses())

    def unusable(self, address: tuple[str, int]) -> str | None:
        """Why nothing can be sent to a peer at this IP address and port; None if it can."""
        return self._own.unusable(address)

    def close(self) -> None:
        """Follow nothing any more. The engine closes the sockets."""
        if self._retry is not None:
            self._retry.cancel()
