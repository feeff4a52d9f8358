"""Where an endpoint is reached: its sockets, its relays, and the address that follows from both."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from pathlib import Path
from weakref import finalize

from aioiroh import _native, events
from aioiroh.address import (
    CustomAddr,
    EndpointAddr,
    IpAddr,
    RelayAddr,
    RelayConfig,
    RelayMap,
    RelayUrl,
    TransportAddr,
)
from aioiroh.aio import Tasks, Watch, weakly
from aioiroh.custom import Carrier, CustomTransport
from aioiroh.errors import EndpointClosedError
from aioiroh.keys import EndpointId, SecretKey
from aioiroh.lookup import EndpointData
from aioiroh.metrics import Metrics
from aioiroh.net import Network, NetworkState, Proxies, TcpDialler
from aioiroh.paths.guessing import Mapping
from aioiroh.portmap import PortMapper
from aioiroh.presets import EndpointOptions
from aioiroh.quic import Driver
from aioiroh.relay import Relays, RelayStatus
from aioiroh.report import NetReport, NetReportConfig, Outside, Reason, Reporter
from aioiroh.sockets import Sockets

__all__ = ["Whereabouts"]

MAX_EXTERNAL = 32
"""Addresses that an application adds."""
HOME_PATIENCE = 10.0
"""Seconds that the home relay may be unreachable before others are asked."""
LOOK_INTERVAL = 1.0
"""Seconds after which an endpoint that nobody holds looks whether anybody has a connection of it."""


class Whereabouts:
    """The sockets and relays of one endpoint.

    `on_change(data)` hears of every new address, and what is published of it.
    """

    def __init__(
        self,
        secret_key: SecretKey,
        driver: Driver,
        network: Network,
        metrics: Metrics,
        on_change: Callable[[EndpointData], None],
    ) -> None:
        self._secret_key = secret_key
        self._driver = driver
        self._network = network
        self._metrics = metrics
        self._on_change = on_change
        self.sockets = Sockets(driver, network)
        """The UDP sockets."""
        self._external: tuple[IpAddr, ...] = ()
        self._carriers: tuple[Carrier, ...] = ()
        self._outside = Outside()
        self._seen_at: tuple[IpAddr, ...] = ()
        self._relays: Relays | None = None
        self._reporter: Reporter | None = None
        self._relay_roots: bytes | None = None
        self._proxies: Proxies | None = None
        self._report_config = NetReportConfig()
        self._port_mapper: PortMapper | None = None
        self._tasks = Tasks("whereabouts")
        self._ending: asyncio.Task[None] | None = None
        self.on_relays: Callable[[], None] | None = None
        """Called when there are relays for the first time: from now on there is work in the background."""
        self.addr = Watch(EndpointAddr(secret_key.public))
        """Id and addresses, as known last."""
        self.home: Watch[RelayStatus | None] = Watch(None)
        """How the home relay stands; None while there is none."""
        self.report: Watch[NetReport | None] = Watch(None)
        """The latest net report; None without relays and before the first one."""
        self.mapping = Mapping()
        """What NATs make of the first IPv4 socket."""
        self.on_mapping: Callable[[], None] | None = None
        """Called when that has changed."""

    # --- getting there

    async def start_transports(self, transports: Sequence[CustomTransport]) -> None:
        """Raises ValueError: two have the same number; and what their own starts raise."""
        for transport in transports:
            if any(carrier.id == transport.id for carrier in self._carriers):
                raise ValueError(f"there are two custom transports {transport.id:x}")
            carrier = Carrier(
                transport,
                self._driver,
                self._network.secret(32),
                self._metrics.socket,
                self.refresh,
            )
            self._carriers += (carrier,)
            await carrier.start()

    def map_port(self) -> None:
        """Ask the router to forward the port of the first IPv4 socket that others can reach."""
        slot = next((slot for slot in self.sockets.slots if _is_mappable(slot.host)), None)
        if slot is not None:
            # The mapper may not keep an endpoint alive that nobody holds any more, and ends with it.
            counters = self._metrics.portmap, self._metrics.net_report
            mapper = PortMapper(self._network, slot.port, *counters, weakly(self.refresh))
            finalize(self, mapper.abandon).atexit = False
            mapper.start()
            self._port_mapper = mapper

    def use_relays(self, options: EndpointOptions) -> None:
        """Find a home relay, if there are any; the options also hold for relays that are inserted later. Raises
        AddressParsingError; OSError or ValueError for `relay_ca`.
        """
        ca = options.relay_ca
        if ca is not None:
            self._relay_roots = Path(ca).read_bytes()
            try:
                _native.RelayTls(roots=self._relay_roots)
            except ValueError as error:
                raise ValueError(f"{ca}: {error}") from None
        self._proxies = options.proxy
        self._report_config = options.net_report
        if options.relays:
            self._begin_relays(options.relays)

    def _begin_relays(self, relays: RelayMap) -> None:
        tls = _native.RelayTls(roots=self._relay_roots)
        dialler = TcpDialler(self._network, self._proxies, tls)
        self._relays = Relays(
            relays,
            self._driver,
            self._network,
            self._secret_key,
            tls,
            self._metrics.socket,
            self.home,
            dialler,
        )
        self._relays.start()
        self._reporter = Reporter(
            self._driver,
            dialler,
            tls,
            self._metrics.net_report,
            self.report,
            config=self._report_config,
            relays=lambda: () if self._relays is None else self._relays.configured,
            slots=lambda: self.sockets.slots,
            on_news=self._heard,
        )
        self._reporter.start()
        self._tasks.spawn(self._follow_home(), name="home relay")
        self._tasks.spawn(self._replace_home(), name="lost home relay")
        if self.on_relays is not None:
            self.on_relays()

    def insert_relay(self, config: RelayConfig) -> RelayConfig | None:
        """Use a relay; gives the entry that it replaces. Raises AddressParsingError."""
        if self._relays is None:
            self._begin_relays(RelayMap())
            assert self._relays is not None
        previous = self._relays.insert(config)
        self._report_on(Reason.RELAYS_CHANGED)
        return previous

    def remove_relay(self, url: RelayUrl) -> RelayConfig | None:
        """Use a relay no more; gives its entry."""
        previous = None if self._relays is None else self._relays.remove(url)
        self._report_on(Reason.RELAYS_CHANGED)
        return previous

    def _report_on(self, reason: Reason) -> None:
        if self._reporter is not None:
            self._reporter.refresh(reason)

    def _heard(self, report: NetReport) -> None:
        assert self._relays is not None
        if report.preferred_relay is not None:
            self._relays.set_home(report.preferred_relay)
        elif self.home.value is None and not report.relay_latency.relays:
            # No relay answers. One is tried all the same, so that it is home as soon as it is there.
            self._relays.set_home(next((relay.url for relay in self._relays.configured), None))
        self._outside.heard(
            self._network.monotonic(), report, {relay.url for relay in self._relays.configured}
        )
        self._seen_at = self._outside.addresses(
            report.preferred_relay,
            self.sockets.fixed_port,
            varies=report.mapping_varies_by_dest is True,
        )
        mapping = Mapping.of(report, self.sockets.slots)
        is_new, self.mapping = mapping != self.mapping, mapping
        self.refresh()
        if is_new and self.on_mapping is not None:
            self.on_mapping()

    async def _follow_home(self) -> None:
        was_connected = False
        async for status in self.home:
            self.refresh()
            is_connected = status is not None and status.is_connected
            report = self.report.value
            if is_connected and not was_connected and report is not None and not report.has_udp:
                self._report_on(Reason.HOME_BACK)
            was_connected = is_connected

    async def _replace_home(self) -> None:
        """Has other relays asked when the home relay stays unreachable."""
        while True:
            lost = await self.home.wait_for(lambda status: status and not status.is_connected)
            assert lost is not None
            url = lost.url

            def is_back(status: RelayStatus | None, url: RelayUrl = url) -> bool:
                return status is None or status.is_connected or status.url != url

            try:
                async with asyncio.timeout(HOME_PATIENCE):
                    await self.home.wait_for(is_back)
            except TimeoutError:
                self._report_on(Reason.HOME_LOST)
                await self.home.wait_for(is_back)

    async def online(self) -> None:
        """Wait until the home relay is connected; without relays there is nothing to wait for."""
        if self._relays is not None:
            await self.home.wait_for(lambda status: status and status.is_connected)

    def refresh(self) -> None:
        """Look where we are now."""
        local = self.sockets.addresses()
        mapped = None if self._port_mapper is None else self._port_mapper.external.value
        direct = tuple(
            dict.fromkeys((*self._external, *filter(None, [mapped]), *self._seen_at, *local))
        )
        custom = tuple(address for carrier in self._carriers for address in carrier.local)
        found: tuple[TransportAddr, ...] = (*direct, *custom)
        if self.home.value is not None:
            found = (RelayAddr(self.home.value.url), *found)
        addr = EndpointAddr(self._secret_key.public, found)
        if addr != self.addr.value:
            self.addr.set(addr)
            self._on_change(EndpointData(found))
            events.direct_addrs(addrs=direct)

    def add_external(self, address: IpAddr) -> None:
        """This endpoint is reached there, too."""
        if len(self._external) < MAX_EXTERNAL:
            self._external = tuple(dict.fromkeys((*self._external, address)))
            self.refresh()

    def remove_external(self, address: IpAddr) -> bool:
        """It is no more; whether it was."""
        before = self._external
        self._external = tuple(other for other in before if other != address)
        self.refresh()
        return self._external != before

    def network_changed(self, state: NetworkState, *, major: bool) -> None:
        """The machine's network is another one: sockets, relays and addresses follow."""
        self.sockets.network_changed(state, major=major)
        if major and self._relays is not None:
            self._outside.forget()
            self._relays.network_changed(state.ips)
        if self._port_mapper is not None:
            self._port_mapper.network_changed()
        self._report_on(Reason.LINK_CHANGE_MAJOR if major else Reason.LINK_CHANGE_MINOR)
        self.refresh()

    # --- the ways to peers

    def stands_for(self, ip: str) -> RelayAddr | CustomAddr | None:
        """What a mapped address of a peer stands for; None: it is a real one."""
        for carrier in self._carriers:
            address = carrier.address_at(ip)
            if address is not None:
                return address
        url = None if self._relays is None else self._relays.url_at(ip)
        return None if url is None else RelayAddr(url)

    def unusable(self, address: tuple[str, int]) -> str | None:
        """Why nothing can be sent to a peer at this IP address and port; None if it can."""
        return self.sockets.unusable(address)

    def way_to(
        self, address: RelayAddr | CustomAddr, peer: EndpointId
    ) -> tuple[int, tuple[str, int]] | str:
        """Slot and address by which the engine reaches a peer there, or why it does not."""
        if isinstance(address, CustomAddr):
            for carrier in self._carriers:
                if carrier.id == address.id:
                    return carrier.way_to(address)
            return f"this endpoint has no custom transport {address.id:x}"
        if self._relays is None:
            return "this endpoint uses no relays"
        return self._relays.way_to(address.url, peer)

    def relayed_ways(self, peer: EndpointAddr) -> list[tuple[str, int]]:
        """Addresses by which the engine reaches a peer at the relays that its address names."""
        if self._relays is None:
            return []
        ways = (self._relays.way_to(RelayUrl(url), peer.id) for url in peer.relay_urls)
        return [way[1] for way in ways if not isinstance(way, str)]

    # --- the end

    def outlive(self, is_needed: Callable[[], bool]) -> None:
        """Nobody holds the endpoint any more; from any thread. Relays are there for as long as they are needed."""

        def begin() -> None:
            self._ending = self._driver.loop.create_task(self._end(is_needed))

        with contextlib.suppress(RuntimeError):  # The loop is closed.
            self._driver.loop.call_soon_threadsafe(begin)

    async def _end(self, is_needed: Callable[[], bool]) -> None:
        while is_needed():
            await asyncio.sleep(LOOK_INTERVAL)
        await self.stop_reports()
        await self.leave_relays()

    def close(self) -> None:
        """Nothing changes any more."""
        self.sockets.close()
        self.addr.close(EndpointClosedError())

    async def stop_reports(self) -> None:
        """Ask relays nothing any more. Before the engine ends, so that they hear of it."""
        await self._tasks.aclose()
        if self._reporter is not None:
            await self._reporter.aclose()
        self.report.close()

    async def end_transports(self) -> None:
        """Let custom transports go. Connections must have ended."""
        for carrier in self._carriers:
            await carrier.aclose()

    async def release_port(self) -> None:
        """Let the router forward nothing any more. Connections must have ended."""
        if self._port_mapper is not None:
            await self._port_mapper.aclose()

    async def leave_relays(self) -> None:
        """Say goodbye to the relays. Connections must have ended."""
        if self._relays is not None:
            await self._relays.aclose()
        self.home.close()


def _is_mappable(host: str) -> bool:
    ip = ip_address(host)
    return ip.version == 4 and not ip.is_loopback
