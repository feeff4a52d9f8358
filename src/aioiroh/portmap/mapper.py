"""Keeps a UDP port of this machine mapped by the router, as long as somebody wants it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

from aioiroh.address import IpAddr
from aioiroh.aio import Backoff, Tasks, Watch
from aioiroh.errors import DecodeError
from aioiroh.metrics import NetReportMetrics, PortmapMetrics
from aioiroh.net import Network
from aioiroh.portmap import pcp
from aioiroh.portmap.asking import Local, NoAnswer
from aioiroh.portmap.mapping import Mapping, Refused
from aioiroh.portmap.protocols import NatPmp, Pcp, PortProtocol, Upnp

__all__ = ["PortMapper", "probe"]

logger = logging.getLogger("aioiroh.portmap")

AGAIN: Final = (60.0, 3600.0)
"""Seconds until a router that maps nothing is asked again, growing; a change of the network comes first."""
MIN_LIFETIME: Final = 60.0
"""Seconds; a mapping that is granted for less is not worth keeping up."""
MAX_LIFETIME: Final = 86_400.0
MIN_PAUSE: Final = 4.0
"""Seconds between attempts to renew, RFC 6887 section 11.2.1."""
RELEASE_TIME: Final = 0.5
"""Seconds that the end may take."""
FAILURES: Final = (NoAnswer, Refused, DecodeError)


async def probe(network: Network) -> dict[str, str]:
    """Which of PCP, NAT-PMP and UPnP the router of the local network has: for each what is wrong, empty if nothing.

    Takes about a second and a half. Empty where there is no router.
    """
    local = _local(network)
    if local is None:
        return {}
    found = _protocols(local, network.secret(pcp.NONCE_SIZE))
    answers = await asyncio.gather(*map(_works, found))
    return {protocol.name: problem for protocol, problem in zip(found, answers, strict=True)}


def _local(network: Network) -> Local | None:
    router = network.gateway()
    own = next((ip for ip in network.outward_addresses() if ":" not in ip), None)
    return Local(network, own, router) if own and router else None


def _protocols(local: Local, nonce: bytes) -> tuple[PortProtocol, ...]:
    """The best first."""
    return Pcp(local, nonce), NatPmp(local), Upnp(local)


async def _works(protocol: PortProtocol) -> str:
    try:
        await protocol.probe()
    except FAILURES as error:
        return str(error)
    return ""


def _useless(mapping: Mapping) -> str:
    """Why a mapping is of no use; empty if it is."""
    external = mapping.external
    if mapping.lifetime < MIN_LIFETIME:
        return f"it maps for {mapping.lifetime:.0f} s only"
    if not external.ip.is_global or external.ip.is_multicast or external.port == 0:
        return f"{external.text} is no address on the internet"
    return ""


class PortMapper:
    """Maps `port` while it runs. Asks nobody but the router of the local network, and keeps nobody waiting.

    `external` is where the port is reached from the internet; None: not at all, or not that we know. `on_change`
    is called whenever it is another one.
    """

    def __init__(
        self,
        network: Network,
        port: int,
        metrics: PortmapMetrics,
        reports: NetReportMetrics,
        on_change: Callable[[], None],
    ) -> None:
        self._network = network
        self._on_change = on_change
        self._loop = asyncio.get_running_loop()
        self._port = port
        self._metrics = metrics
        self._reports = reports
        self._nonce = network.secret(pcp.NONCE_SIZE)
        self._tasks = Tasks("port mapping")
        self._look_again = asyncio.Event()
        self._held: tuple[PortProtocol, Mapping] | None = None
        self._answered = asyncio.Event()
        self._answered.set()
        self.external: Watch[IpAddr | None] = Watch(None)

    def start(self) -> None:
        self._tasks.spawn(self._run(), name="port mapping")

    def network_changed(self) -> None:
        """Perhaps there is another router now, or this one has started again."""
        self._look_again.set()

    def abandon(self) -> None:
        """The same as `aclose` where nobody is left to wait for it; from any thread."""
        with contextlib.suppress(RuntimeError):  # The loop is closed.
            self._loop.call_soon_threadsafe(self._abandon)

    def _abandon(self) -> None:
        if not self._tasks.closed:
            self._abandoned = self._loop.create_task(self.aclose())

    async def aclose(self) -> None:
        """Gives the mapping back, if the router is quick."""
        until = self._loop.time() + RELEASE_TIME
        # What it grants after nobody waits for it would stay.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._answered.wait()
        await self._tasks.aclose()
        if self._held is not None:
            protocol, mapping = self._held
            self._held = None
            self.external.set(None)
            with contextlib.suppress(TimeoutError, *FAILURES):
                async with asyncio.timeout_at(until):
                    await protocol.release(mapping)
        self.external.close()

    async def _run(self) -> None:
        pauses = Backoff(*AGAIN, random=self._network.random.random)
        while True:
            local = _local(self._network)
            if local is not None and await self._obtain(local):
                pauses.reset()
                await self._keep(local)
                continue
            if local is None:
                await self._look_again.wait()
                self._look_again.clear()
            elif await self._woken(pauses.next()):
                pauses.reset()

    async def _obtain(self, local: Local) -> bool:
        """Asks by every protocol that the router has, until one grants a mapping."""
        self._metrics.probes_started += 1
        protocols = _protocols(local, self._nonce)
        async with Tasks("probes") as probes:
            asked = [(each, probes.spawn(_works(each))) for each in protocols]
            for protocol, probing in asked:
                problem = await probing
                if not problem:
                    try:
                        self._hold((protocol, await self._ask(protocol)))
                        return True
                    except FAILURES as error:
                        problem = str(error)
                logger.debug("%s at %s: %s", protocol.name, local.router, problem)
        return False

    async def _ask(self, protocol: PortProtocol) -> Mapping:
        """Raises one of FAILURES."""
        self._metrics.mapping_attempts += 1
        self._reports.portmap_attempts += 1
        self._answered.clear()
        try:
            mapping = await protocol.obtain(self._port, self.external.value)
            problem = _useless(mapping)
            if problem:
                await protocol.release(mapping)
                raise Refused(problem)
        except FAILURES:
            self._metrics.mapping_failures += 1
            raise
        finally:
            self._answered.set()
        return mapping

    async def _keep(self, local: Local) -> None:
        """Renews what is held; returns when it is lost, or the network may be another one."""
        assert self._held is not None
        protocol, mapping = self._held
        left = min(mapping.lifetime, MAX_LIFETIME)
        while left > MIN_PAUSE:
            pause = max(left / 2, MIN_PAUSE)
            if await self._woken(pause) and _local(self._network) != local:
                break
            left -= pause
            try:
                mapping = await self._ask(protocol)
            except FAILURES as error:
                logger.debug("%s at %s does not renew: %s", protocol.name, local.router, error)
                continue
            self._hold((protocol, mapping))
            left = min(mapping.lifetime, MAX_LIFETIME)
        self._hold(None)

    async def _woken(self, seconds: float) -> bool:
        """Waits; True: the network may be another one."""
        try:
            async with asyncio.timeout(seconds):
                await self._look_again.wait()
        except TimeoutError:
            return False
        self._look_again.clear()
        return True

    def _hold(self, held: tuple[PortProtocol, Mapping] | None) -> None:
        self._held = held
        external = None
        if held is not None:
            protocol, mapping = held
            external = mapping.external
        if external != self.external.value:
            self._metrics.external_address_updated += 1
            self._reports.portmap_external_address_updated += 1
            self.external.set(external)
            self._on_change()
            if held is not None:
                logger.info("%s maps port %d: %s", protocol.name, mapping.port, mapping.external)
