"""The probes of one report, side by side."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from aioiroh.address import RelayConfig, RelayUrl
from aioiroh.aio import Tasks
from aioiroh.errors import AioirohError
from aioiroh.report import plan
from aioiroh.report.gathering import Gathering
from aioiroh.report.http import HttpError
from aioiroh.report.probes import Question, check_portal, host_of, measure_https
from aioiroh.report.report import Measurement, Probe

if TYPE_CHECKING:
    from aioiroh import _native
    from aioiroh.net import TcpDialler, UdpSlot
    from aioiroh.quic import Driver

__all__ = ["Survey"]

_VERSIONS: Final = {Probe.QAD_IPV4: 4, Probe.QAD_IPV6: 6}
_FAILURES: Final = (OSError, ValueError, AioirohError, HttpError)
"""What a probe that comes to nothing raises; time limits are among them."""


class Survey:
    """What is asked of whom: with each of `probes` for which there is a socket and nothing is `known` all of
    `asked`, over HTTPS all of `https`, for a captive portal the host of `portal`.

    `on_change` hears when a relay that has answered sees a socket somewhere else later.
    """

    def __init__(
        self,
        driver: Driver,
        dialler: TcpDialler,
        tls: _native.RelayTls,
        slots: Sequence[UdpSlot],
        *,
        probes: Iterable[Probe],
        asked: Iterable[RelayConfig],
        known: Sequence[Measurement],
        https: Sequence[RelayConfig],
        portal: RelayUrl | None,
        full: bool,
        on_change: Callable[[], None],
    ) -> None:
        self._driver = driver
        self._network = dialler.network
        self._dialler = dialler
        self._tls = tls
        self._on_change = on_change
        self._slots: dict[int, int] = {}
        for slot in slots:
            self._slots.setdefault(ip_address(slot.host).version, slot.index)
        self._available = plan.available_versions(dialler.network.local_addresses(), self._slots)
        open_probes = _VERSIONS.keys() - {measurement.probe for measurement in known}
        probes = [
            p for p, version in _VERSIONS.items() if p in open_probes and version in self._slots
        ]
        self._asked = [(relay, probes) for relay in asked if probes and relay.quic_port is not None]
        self._https = https
        self._portal = portal
        self._changed = asyncio.Event()
        self._tasks = Tasks("net report's probes")
        self.gathering = Gathering(
            [(probe, relay.url) for relay, probes in self._asked for probe in probes],
            known=known,
            https=[relay.url for relay in https],
            captive=portal is not None,
            full=full,
        )
        self.answered: list[Question] = []
        """Questions that were answered, and are still open."""

    async def run(self, on_progress: Callable[[Gathering], None]) -> None:
        """Until enough is known or it takes too long; `on_progress` hears of every result."""
        async with self._tasks:
            for relay, probes in self._asked:
                self._tasks.spawn(self._approach(relay, probes))
            for relay in self._https:
                self._tasks.spawn(self._measure(relay))
            if self._portal is not None:
                self._tasks.spawn(self._look_for_portal(self._portal))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(plan.REPORT_TIMEOUT):
                    while not self.gathering.is_complete:
                        await self._changed.wait()
                        self._changed.clear()
                        on_progress(self.gathering)

    def close(self) -> None:
        """Leave all relays that have answered. `run` must have ended."""
        for question in self.answered:
            question.close()
        self.answered.clear()

    async def _approach(self, relay: RelayConfig, probes: Iterable[Probe]) -> None:
        try:
            async with asyncio.timeout(plan.PROBE_TIMEOUT):
                found = await self._network.resolve(host_of(relay.url))
        except _FAILURES:
            for probe in probes:
                self.gathering.failed(probe, relay.url)
        else:
            for probe in probes:
                version = _VERSIONS[probe]
                address = plan.address_to_ask(found, version, self._available)
                if address is None:
                    self.gathering.absent(probe, relay.url)
                else:
                    self._tasks.spawn(self._ask(relay, probe, address, self._slots[version]))
        self._changed.set()

    async def _ask(self, relay: RelayConfig, probe: Probe, address: str, slot: int) -> None:
        question = None
        try:
            async with asyncio.timeout(plan.PROBE_TIMEOUT):
                question = Question(self._driver, relay, address, slot, self._tls, self._on_change)
                measurement = await question.answer()
            self.gathering.answered(measurement)
            self.answered.append(question)
            question = None
        except _FAILURES:
            self.gathering.failed(probe, relay.url)
        finally:
            if question is not None:
                question.close()
            self._changed.set()

    async def _measure(self, relay: RelayConfig) -> None:
        trying = {self._tasks.spawn(self._try_https(relay, delay)) for delay in plan.HTTPS_DELAYS}
        measurement = None
        while trying and measurement is None:
            done, trying = await asyncio.wait(trying, return_when=asyncio.FIRST_COMPLETED)
            measurement = next(filter(None, (task.result() for task in done)), None)
        for task in trying:
            task.cancel()
        if measurement is None:
            self.gathering.failed(Probe.HTTPS, relay.url)
        else:
            self.gathering.answered(measurement)
        self._changed.set()

    async def _try_https(self, relay: RelayConfig, delay: float) -> Measurement | None:
        await asyncio.sleep(delay)
        try:
            async with asyncio.timeout(plan.PROBE_TIMEOUT - delay):
                return await measure_https(self._dialler, relay, self._tls)
        except _FAILURES:
            return None

    async def _look_for_portal(self, relay: RelayUrl) -> None:
        await asyncio.sleep(plan.CAPTIVE_DELAY)
        found = None
        if not self.gathering.has_udp:
            with contextlib.suppress(*_FAILURES):
                async with asyncio.timeout(plan.CAPTIVE_TIMEOUT):
                    found = await check_portal(self._dialler, relay)
        self.gathering.looked_for_portal(found)
        self._changed.set()
