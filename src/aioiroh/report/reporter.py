"""Makes reports from time to time, and when something has changed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from aioiroh.address import RelayConfig, RelayUrl
from aioiroh.aio import Tasks, Watch
from aioiroh.report import plan
from aioiroh.report.gathering import Gathering
from aioiroh.report.home import HomeChoice
from aioiroh.report.plan import Reason
from aioiroh.report.probes import Question
from aioiroh.report.report import NetReport, Probe
from aioiroh.report.survey import Survey

if TYPE_CHECKING:
    from aioiroh import _native
    from aioiroh.metrics import NetReportMetrics
    from aioiroh.net import TcpDialler, UdpSlot
    from aioiroh.quic import Driver

__all__ = ["Reporter"]

logger = logging.getLogger("aioiroh.report")

OBSERVED_SPACING: Final = 5.0
"""Seconds between reports that a relay causes by telling another address."""
PATIENCE: Final = 3
"""Reports in a row in which nobody answers over an IP version until it is tried in full reports only."""


class Reporter:
    """Asks the relays that `relays()` gives, from the sockets of `slots()`. Without relays nothing is asked.

    `report` is set to each complete report, None without relays. `on_news(report)` hears of it, too; of a
    report that replaces none also before it is complete, so that nobody has to wait for the slowest relay. Then
    a `preferred_relay` is there as soon as it can be chosen.
    """

    def __init__(
        self,
        driver: Driver,
        dialler: TcpDialler,
        tls: _native.RelayTls,
        metrics: NetReportMetrics,
        report: Watch[NetReport | None],
        *,
        config: plan.NetReportConfig,
        relays: Callable[[], Sequence[RelayConfig]],
        slots: Callable[[], Sequence[UdpSlot]],
        on_news: Callable[[NetReport], None],
    ) -> None:
        self._driver = driver
        self._network = dialler.network
        self._dialler = dialler
        self._tls = tls
        self._metrics = metrics
        self._report = report
        self._config = config
        self._relays = relays
        self._slots = slots
        self._on_news = on_news
        self._choice = HomeChoice()
        self._home: RelayUrl | None = None
        self._kept: dict[Probe, Question] = {}
        self._unheard = {Probe.QAD_IPV4: 0, Probe.QAD_IPV6: 0}
        self._last: NetReport | None = None
        self._last_full: float | None = None
        self._observing: asyncio.TimerHandle | None = None
        self._quiet_until = 0.0
        self._wanted: Reason | None = None
        self._wake = asyncio.Event()
        self._making: asyncio.Task[None] | None = None
        self._tasks = Tasks("net report")

    def start(self) -> None:
        """Make the first report, and then one after the other."""
        self._tasks.spawn(self._run(), name="reports")

    def refresh(self, reason: Reason) -> None:
        """Make a report now. What a major reason makes doubtful is given up, a report under way, too."""
        if reason.is_major or self._wanted is None:
            self._wanted = reason
            self._wake.set()
        if reason is not Reason.ADDRESS_OBSERVED:
            self._unheard = dict.fromkeys(self._unheard, 0)
        if reason.is_major:
            self._last = None
            if self._making is not None:
                self._making.cancel()
            # The network, or what the home relay was good for, is not what it was.
            self._choice.forget()

    async def aclose(self) -> None:
        """Ask nothing any more."""
        await self._tasks.aclose()
        if self._observing is not None:
            self._observing.cancel()
        self._keep(())

    def _observed(self) -> None:
        # What a relay tells must not keep this machine and its peers busy.
        if self._observing is None:
            wait = max(self._quiet_until - self._network.monotonic(), 0.0)
            self._observing = self._driver.loop.call_later(wait, self._report_observed)

    def _report_observed(self) -> None:
        self._observing = None
        self._quiet_until = self._network.monotonic() + OBSERVED_SPACING
        self.refresh(Reason.ADDRESS_OBSERVED)

    # --- one report after the other

    async def _run(self) -> None:
        while True:
            reason = self._take_wanted()
            self._making = self._tasks.spawn(self._make(full=reason.is_major), name="report")
            await asyncio.wait((self._making,))
            self._making = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(plan.next_report_after(self._network.random)):
                    await self._wake.wait()

    def _take_wanted(self) -> Reason:
        reason, self._wanted = self._wanted or Reason.PERIODIC, None
        self._wake.clear()
        return reason

    async def _make(self, *, full: bool) -> None:
        now = self._network.monotonic()
        relays = self._relays()
        if not relays:
            self._keep(())
            self._last = self._home = None
            self._report.set(None)
            self._on_news(NetReport())
            return
        if self._home not in {relay.url for relay in relays}:
            self._home = None
        last = self._last
        full = full or plan.should_be_full(now, self._last_full, last)
        probes = [probe for probe, count in self._unheard.items() if full or count < PATIENCE]
        if not probes and not self._kept:
            return
        self._metrics.reports += 1
        if full:
            self._metrics.reports_full += 1
            self._last_full = now
            self._keep(())
        unmeasured = last is None or not last.relay_latency.relays
        survey = self._survey(relays, probes, full=full, https=full or unmeasured)
        try:
            await survey.run(self._on_progress if last is None else lambda _: None)
            found = self._concluded(survey.gathering, full)
            for probe in self._unheard:
                self._unheard[probe] = (
                    0 if probe in survey.gathering.heard else self._unheard[probe] + 1
                )
            self._keep((*self._kept.values(), *survey.answered))
        except BaseException:
            survey.close()
            raise
        if last is not None:
            found = _completed(found, last)
        self._last = found
        logger.debug("net report: %s", found)
        self._report.set(found)
        self._on_news(found)

    def _survey(
        self, relays: Sequence[RelayConfig], probes: Sequence[Probe], *, full: bool, https: bool
    ) -> Survey:
        random = self._network.random
        https = https and self._config.https_probes
        seeks_portal = full and self._config.captive_portal_check
        return Survey(
            self._driver,
            self._dialler,
            self._tls,
            self._slots(),
            probes=probes,
            asked=plan.to_ask(relays, self._home, random, plan.MAX_ASKED),
            known=[measurement for one in self._kept.values() if (measurement := one.current())],
            https=plan.to_ask(relays, self._home, random, plan.MAX_HTTPS if https else 0),
            portal=(self._home or random.choice(relays).url) if seeks_portal else None,
            full=full,
            on_change=self._observed,
        )

    def _on_progress(self, gathering: Gathering) -> None:
        settled = gathering.is_settled
        found = self._concluded(gathering, full=True) if settled else gathering.report()
        if found.observed or found.preferred_relay is not None:
            self._on_news(found)

    def _concluded(self, gathering: Gathering, full: bool) -> NetReport:
        self._home = self._choice.choose(
            self._network.monotonic(), gathering.latencies, self._home, asked_all=full
        )
        return gathering.report(self._home)

    def _keep(self, questions: Sequence[Question]) -> None:
        """Of each IP version one relay goes on telling where it sees us: the home relay, or the first."""
        kept: dict[Probe, Question] = {}
        for question in questions:
            if question.current() is not None:
                kept.setdefault(question.probe, question)
                if question.relay == self._home:
                    kept[question.probe] = question
        for question in (*self._kept.values(), *questions):
            if question not in kept.values():
                question.close()
        self._kept = kept


def _completed(found: NetReport, last: NetReport) -> NetReport:
    """What only a full report finds out is taken over from the last report."""
    v4, v6 = found.mapping_varies_by_dest_ipv4, found.mapping_varies_by_dest_ipv6
    return replace(
        found,
        mapping_varies_by_dest_ipv4=last.mapping_varies_by_dest_ipv4 if v4 is None else v4,
        mapping_varies_by_dest_ipv6=last.mapping_varies_by_dest_ipv6 if v6 is None else v6,
    )
