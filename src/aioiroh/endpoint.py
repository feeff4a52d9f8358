"""The endpoint: one key, its sockets, and all its connections. It puts the rooms below together."""

from __future__ import annotations

import asyncio
import logging
from asyncio import _get_running_loop
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self
from weakref import finalize

from aioiroh import events
from aioiroh.address import Dialable, EndpointAddr, IpAddr, RelayConfig, RelayMap, RelayUrl
from aioiroh.aio import Pending, Tasks, Watch, weakly
from aioiroh.binding import guess_ports, make_driver, options_of
from aioiroh.custom import CustomTransport
from aioiroh.dialling import Dialling
from aioiroh.doorway import Doorway
from aioiroh.errors import EndpointClosedError
from aioiroh.hooks import Hook
from aioiroh.incoming import Incoming
from aioiroh.keys import EndpointId, SecretKey
from aioiroh.lookup import EndpointData, LookupContext, LookupRegistry, LookupService
from aioiroh.metrics import Metrics
from aioiroh.net import Network, NetworkMonitor, Proxies, SystemNetwork, UdpSlot
from aioiroh.paths import (
    PathSelector,
    RemoteInfo,
    Remotes,
    Roster,
    Steering,
    select_by_rtt,
)
from aioiroh.presets import BindAddress, EndpointOptions, Preset, udp_address
from aioiroh.quic import Connection, Driver, TransportConfig
from aioiroh.quic.alpn import Alpns, checked_alpns
from aioiroh.relay import RelayStatus
from aioiroh.report import NetReport, NetReportConfig
from aioiroh.whereabouts import Whereabouts

__all__ = ["Endpoint"]

logger = logging.getLogger("aioiroh.endpoint")

LOOKUP_CLOSE_TIMEOUT = 3.0


class Endpoint:
    """Dials peers by their keys and is dialled by its own.

    Made by `Endpoint.bind`. As a context manager it closes at the end of the block. Belongs to the event
    loop it was bound on: elsewhere its methods raise WrongLoopError, after `close` EndpointClosedError.
    """

    def __init__(
        self,
        secret_key: SecretKey,
        driver: Driver,
        network: Network,
        hooks: Sequence[Hook],
        alpns: Sequence[bytes],
        path_selector: PathSelector | None,
    ) -> None:
        """For `bind`."""
        self._secret_key = secret_key
        self._id = secret_key.public
        self._driver = driver
        self._network = network
        self._alpns = tuple(alpns)
        self._metrics = Metrics()
        self._remotes = Remotes(network.monotonic)
        self._roster = Roster(self._metrics, self._remotes, driver)
        self._lookup = LookupRegistry(LookupContext(secret_key, network, self._metrics))
        self._steering = Steering(
            driver,
            network.monotonic,
            path_selector or select_by_rtt,
            self._roster.stands_for,
            self._metrics.socket,
        )
        self._roster.steering = self._steering
        self._tasks = Tasks(f"endpoint {self._id.short()}")
        self._where = Whereabouts(secret_key, driver, network, self._metrics, weakly(self._moved))
        self._where.on_mapping = self._steering.mapping_changed
        self._monitor = NetworkMonitor(network, self._network_changed)
        self._closing = False
        self._closed = asyncio.Event()
        self._dialling = Dialling(
            self._id,
            driver,
            network,
            hooks,
            lookup=self._lookup,
            roster=self._roster,
            steering=self._steering,
            where=self._where,
            tasks=self._tasks,
        )
        # A router accepts there, in place of the application.
        self._doorway = Doorway(driver, hooks, self._tasks)
        driver.observer = self._roster
        self._roster.on_failed = self._closed.set
        self._where.on_relays = weakly(self._relays_begin)
        self._outlived: finalize[..., Endpoint] | None = None

    # --- binding

    @classmethod
    def bind(
        cls,
        *,
        secret_key: SecretKey | None = None,
        alpns: Sequence[bytes] = (),
        bind: Sequence[BindAddress] | BindAddress | None = None,
        external_addrs: Iterable[str | tuple[str, int]] = (),
        transport: TransportConfig | None = None,
        keylog: str | Path | None = None,
        preset: Preset | None = None,
        lookup: Sequence[LookupService] = (),
        hooks: Sequence[Hook] = (),
        relays: RelayMap | Iterable[RelayConfig | str] | None = None,
        relay_ca: str | Path | None = None,
        proxy: str | Proxies | None = None,
        net_report: NetReportConfig | None = None,
        port_mapping: bool | None = None,
        guess_ports: bool | None = None,
        custom_transports: Sequence[CustomTransport] = (),
        path_selector: PathSelector | None = None,
        max_incoming: int | None = None,
        retry_above: int | None = None,
        max_tickets: int | None = None,
        busy_poll: float | None = None,
        network: Network | None = None,
    ) -> Pending[Self]:
        """A new endpoint: `await` it, or use it with `async with`.

        Without a preset, a lookup service, relays and `port_mapping` nothing is contacted.

        secret_key: the identity; by default a new one.
        alpns: the protocols that are accepted; none means that nobody can connect.
        bind: where to open UDP sockets; by default any port of 0.0.0.0 and, if there is IPv6, of [::].
            `Interface("eth0")`: at the addresses of an interface, as they come and go; nothing is sent
            from others. None at all, `()`: peers are reached through relays only.
        external_addrs: further IP addresses and UDP ports where peers reach this endpoint, such as
            those of a router that forwards the port.
        transport: settings for all connections.
        keylog: file that gets the TLS secrets (NSS format), for debugging with Wireshark.
        lookup: services that find addresses of a peer whose id is known, and publish ours.
        relays: the relays that may be used, as URLs or with settings; the nearest of them is home:
            peers reach this endpoint through it. By default none.
        relay_ca: file with the CA certificates (PEM) by which relays are judged, in place of
            Mozilla's list.
        proxy: through which proxy relays are reached, as `http://`, `https://` or `socks5://` URL with
            user and password if need be; `Proxies.from_environment()` takes what HTTPS_PROXY,
            HTTP_PROXY, ALL_PROXY and NO_PROXY say. By default none.
        net_report: which measurements of relays are made; by default all.
        port_mapping: ask the router of the local network to forward the IPv4 port, by PCP, NAT-PMP or UPnP, until
            the endpoint is closed; by default if there are relays. Nothing waits for that.
        guess_ports: with a NAT in between that gives every destination another port, look for a direct
            path by trying many of them; by default true. To a firewall it may look like a port scan.
        custom_transports: ways of the application's own for datagrams, besides UDP and relays.
        path_selector: chooses which of the paths to a peer carries the data; by default direct before
            relayed ones, then by round-trip time.
        hooks: asked before dialling and after every handshake.
        max_incoming: undecided incoming connections, default 1024; more are refused.
        retry_above: with that many undecided ones, new peers must prove their address first
            (RFC 9000 section 8.1.2); by default never.
        max_tickets: session tickets kept for early data, default 256.
        busy_poll: seconds, at most 0.001, for which the loop waits awake after each turn of the
            engine, default 0. With 0.0001 a short request between idle machines takes about half the
            time. It costs a core while there is traffic, other tasks are late by as much, and where
            other programs want that core everything becomes slower.
        network: the outside world; by default that of this machine.

        Raises BindError, AddressParsingError, InvalidAlpnError, ValueError (a proxy's URL), what a lookup service's start raises.
        """
        given = {
            "bind": bind,
            "external_addrs": external_addrs,
            "transport": transport,
            "keylog": keylog,
            "lookup": lookup,
            "hooks": hooks,
            "relays": relays,
            "relay_ca": relay_ca,
            "proxy": proxy,
            "net_report": net_report,
            "port_mapping": port_mapping,
            "guess_ports": guess_ports,
            "custom_transports": custom_transports,
            "path_selector": path_selector,
            "max_incoming": max_incoming,
            "retry_above": retry_above,
            "max_tickets": max_tickets,
            "busy_poll": busy_poll,
        }
        options = options_of(preset, given)
        return Pending(cls._bind(secret_key, alpns, options, network or SystemNetwork()))

    @classmethod
    async def _bind(
        cls,
        secret_key: SecretKey | None,
        alpns: Sequence[bytes],
        options: EndpointOptions,
        network: Network,
    ) -> Self:
        if secret_key is None:
            secret_key = SecretKey(network.secret(SecretKey.SIZE))
        driver = make_driver(secret_key, alpns, options, network)
        self = cls(secret_key, driver, network, options.hooks, alpns, options.path_selector)
        try:
            self._where.sockets.open(options.bind)
            for address in options.external_addrs:
                self._where.add_external(address)
            self._where.use_relays(options)
            self._roster.meaning = self._where.stands_for
            await self._where.start_transports(options.custom_transports)
            if bool(options.relays) if options.port_mapping is None else options.port_mapping:
                self._where.map_port()
            if options.guess_ports:
                guess_ports(self._driver, network, self._metrics, self._where, self._steering)
            self._where.refresh()
            for service in options.lookup:
                await self._lookup.add(service)
        except BaseException:
            await self.close()
            raise
        return self

    # --- identity and state

    @property
    def id(self) -> EndpointId:
        """What peers dial: the public half of `secret_key`."""
        return self._id

    @property
    def secret_key(self) -> SecretKey:
        """The identity."""
        return self._secret_key

    @property
    def addr(self) -> EndpointAddr:
        """The id, and where it can be reached now: the home relay, and ports of the sockets at addresses
        of this machine.
        """
        if not self._closing and _get_running_loop() is self._driver.loop:
            self._where.refresh()
        return self._where.addr.value

    @property
    def watch_addr(self) -> Watch[EndpointAddr]:
        """`addr` and its changes; closes with the endpoint."""
        return self._where.addr

    @property
    def bound_sockets(self) -> tuple[UdpSlot, ...]:
        """The UDP sockets: address, and the buffer sizes in bytes that the system granted."""
        return self._where.sockets.slots

    def remote_info(self, id: EndpointId) -> RemoteInfo | None:
        """Where that peer is or may be, who told it, and what is in use; None: nothing is known, or not any more."""
        return self._remotes.info(bytes(id))

    @property
    def network(self) -> Network:
        """The outside world that it lives in: clock, chance, sockets."""
        return self._network

    @property
    def alpns(self) -> tuple[bytes, ...]:
        """The protocols that are accepted."""
        return self._alpns

    def set_alpns(self, alpns: Sequence[bytes]) -> None:
        """Accept these protocols from now on, the preferred one first; none: accept nobody.

        The first that a peer offers, too, is agreed on. Raises InvalidAlpnError.
        """
        self._driver.check()
        checked = checked_alpns(alpns) if alpns else ()
        self._driver.engine.set_alpns(checked)
        if not checked:
            self._driver.incoming.refuse_all()
        self._alpns = checked

    @property
    def lookup(self) -> LookupRegistry:
        """The lookup services; more can be added and removed at any time."""
        return self._lookup

    @property
    def metrics(self) -> Metrics:
        """Counters, under upstream's names."""
        return self._metrics

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called, or the engine failed."""
        return self._closing or self._driver.failed is not None

    @property
    def home_relay(self) -> RelayStatus | None:
        """How the home relay stands; None without relays, and with several until one is chosen."""
        return self._where.home.value

    @property
    def watch_home_relay(self) -> Watch[RelayStatus | None]:
        """`home_relay` and its changes; closes with the endpoint."""
        return self._where.home

    def insert_relay(self, relay: RelayConfig | str) -> RelayConfig | None:
        """Use this relay, too, or with other settings than before; gives the entry that it replaces.

        Raises AddressParsingError: it cannot be dialled.
        """
        self._driver.check()
        config = relay if isinstance(relay, RelayConfig) else RelayConfig(RelayUrl(relay))
        return self._where.insert_relay(config)

    def remove_relay(self, url: str) -> RelayConfig | None:
        """Use this relay no more; gives its entry, if there was one.

        If it was home, another one becomes it. Peers that are reached through it stay so for as long as their
        connections last.
        """
        self._driver.check()
        return self._where.remove_relay(RelayUrl(url))

    @property
    def net_report(self) -> NetReport | None:
        """What is known of the way to the relays: addresses they see, latencies, the NAT in between.

        None without relays, and until the first report is complete (some seconds at most).
        """
        return self._where.report.value

    @property
    def watch_net_report(self) -> Watch[NetReport | None]:
        """`net_report` and its changes; closes with the endpoint."""
        return self._where.report

    def add_external_addr(self, address: str | tuple[str, int]) -> None:
        """Peers reach this endpoint at this IP address and UDP port, too; 32 such addresses are taken.

        Raises AddressParsingError.
        """
        self._driver.check()
        self._where.add_external(udp_address(address))

    def remove_external_addr(self, address: str | tuple[str, int]) -> bool:
        """They do no more; whether the address had been added. Raises AddressParsingError."""
        self._driver.check()
        return self._where.remove_external(udp_address(address))

    async def online(self) -> None:
        """Wait until the home relay is connected. Without relays there is nothing to wait for."""
        await self._where.online()

    def network_change(self) -> None:
        """The network of this machine may have changed: look soon.

        Only for systems that tell nothing of it, such as Android; elsewhere it is noticed anyway.
        """
        self._driver.check()
        self._monitor.look_soon()

    def _network_changed(self, major: bool) -> None:
        state = self._monitor.state
        events.link_change(is_major=major)
        self._where.network_changed(state, major=major)
        # Without any network nothing can be done; there will be another change when there is one.
        if state.is_connected:
            self._steering.network_changed(state.ips, major=major)
            self._driver.network_changed()

    def _moved(self, data: EndpointData) -> None:
        self._steering.own_addresses([a.pair for a in data.addrs if isinstance(a, IpAddr)])
        self._lookup.publish(data)

    def _relays_begin(self) -> None:
        # What works in the background must not keep an endpoint that nobody holds any more.
        self._outlived = finalize(self, self._where.outlive, self._roster.is_used)
        self._outlived.atexit = False

    # --- dialling

    def connect(
        self,
        target: Dialable,
        *,
        alpn: Alpns,
        transport: TransportConfig | None = None,
        timeout: float | None = None,
        early_data: bool = False,
    ) -> Pending[Connection]:
        """A connection to the peer: `await` it, or use it with `async with`.

        All addresses of the peer are tried at once: those in `target` (an address, an id, a ticket or
        the text of one), those that lookup services find, those where the peer was a moment ago.

        alpn: the protocol, or several of which the peer chooses.
        transport: settings of this connection, in place of the endpoint's.
        timeout: seconds; in any case the transport's idle timeout (30 s) is the limit.
        early_data: if a ticket of an earlier connection allows it, return before the handshake is
            complete (`Connection.is_early`; then `handshake_completed` tells the outcome).

        Raises SelfConnectError, InvalidAlpnError, NoAddressError, LocallyRejectedError (a hook
        refused) before anything is sent; ConnectError, whose `attempts` say which addresses were
        tried and why each failed; ConnectTimeoutError, which is one of them and a TimeoutError.
        """
        return Pending(self._dialling.connect(target, alpn, transport, timeout, early_data))

    # --- being dialled

    async def accept(self) -> Incoming:
        """The next peer that wants to connect. BusyError: a router accepts for this endpoint."""
        return await self._doorway.accept()

    async def incoming(self) -> AsyncIterator[Incoming]:
        """`accept` again and again, until the endpoint is closed."""
        while True:
            try:
                incoming = await self.accept()
            except EndpointClosedError:
                return
            yield incoming

    # --- the end

    async def close(self) -> None:
        """Close every connection with code 0, let the peers know, and let go of all resources.

        Waits until the peers took note, at most 3 s, and as long for lookup services. May be called
        again, also meanwhile.
        """
        self._driver.check_loop()
        if self._closing:
            await self._closed.wait()
            return
        self._closing = True
        if self._outlived is not None:
            self._outlived.detach()
        self._monitor.close()
        # Last in, first out; each runs even if one before it was cancelled.
        async with AsyncExitStack() as stack:
            stack.callback(self._closed.set)
            stack.callback(self._where.close)
            stack.callback(self._steering.close)
            stack.push_async_callback(self._clear_lookup)
            stack.push_async_callback(self._where.end_transports)
            stack.push_async_callback(self._where.leave_relays)
            stack.push_async_callback(self._where.release_port)
            stack.push_async_callback(self._driver.aclose)
            stack.push_async_callback(self._where.stop_reports)
            stack.push_async_callback(self._tasks.aclose)

    async def _clear_lookup(self) -> None:
        try:
            async with asyncio.timeout(LOOKUP_CLOSE_TIMEOUT):
                await self._lookup.clear()
        except TimeoutError:
            logger.warning("a lookup service did not close in time")

    def close_when_empty(self) -> None:
        """Close as soon as no connection is left, now or later."""

        def close() -> None:
            if not self._closing:
                self._closer = self._driver.loop.create_task(self.close())

        self._roster.on_empty = close
        if not self._roster.count:
            close()

    async def closed(self) -> None:
        """Wait until the endpoint is closed. EndpointFailedError: its engine failed."""
        await self._closed.wait()
        if self._driver.failed is not None:
            self._driver.check()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        life = "closed" if self.is_closed else "open"
        return f"<Endpoint {self._id.short()} {life} connections={self._roster.count}>"
