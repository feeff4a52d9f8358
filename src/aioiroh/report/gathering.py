"""The core of one report in the making: what is known, and whether that is enough (section 5.1)."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import Enum
from typing import Final

from aioiroh.address import RelayUrl
from aioiroh.report.report import (
    Measurement,
    NetReport,
    Probe,
    RelayLatencies,
    latencies_of,
    report_of,
)

__all__ = ["Gathering"]

ENOUGH: Final = 3
"""Answers about our address after which the rest is not waited for, if there is one of each IP version."""


class _State(Enum):
    PENDING = "pending"
    ANSWERED = "answered"
    FAILED = "failed"
    ABSENT = "absent"


class Gathering:
    """Takes results one by one.

    `asked`: relays that are asked for our address with these probes. `known`: what is known without
    asking. `https`: relays that are tried over HTTPS, too. `captive`: whether a captive portal is looked for.
    """

    def __init__(
        self,
        asked: Iterable[tuple[Probe, RelayUrl]],
        *,
        known: Iterable[Measurement] = (),
        https: Collection[RelayUrl] = (),
        captive: bool = False,
        full: bool,
    ) -> None:
        self._full = full
        self._asked = dict.fromkeys(asked, _State.PENDING)
        self._https = dict.fromkeys(https, _State.PENDING)
        self._captive_pending = captive
        self._captive: bool | None = None
        self._measurements: list[Measurement] = []
        for measurement in known:
            self.answered(measurement)

    # --- results

    def answered(self, measurement: Measurement) -> None:
        """A relay has answered."""
        self._measurements.append(measurement)
        if measurement.probe is Probe.HTTPS:
            self._https[measurement.relay] = _State.ANSWERED
        else:
            self._asked[measurement.probe, measurement.relay] = _State.ANSWERED

    def failed(self, probe: Probe, relay: RelayUrl) -> None:
        """It has not, and will not."""
        if probe is Probe.HTTPS:
            self._https[relay] = _State.FAILED
        else:
            self._asked[probe, relay] = _State.FAILED

    def absent(self, probe: Probe, relay: RelayUrl) -> None:
        """It has no address of that IP version, so nothing can be expected."""
        self._asked[probe, relay] = _State.ABSENT

    def looked_for_portal(self, found: bool | None) -> None:
        """The end of the search for a captive portal; None: it is not known."""
        self._captive_pending = False
        self._captive = found

    # --- what follows

    def report(self, home: RelayUrl | None = None) -> NetReport:
        """What is known, if `home` is chosen by it."""
        return report_of(self._measurements, self._captive, home=home)

    @property
    def latencies(self) -> RelayLatencies:
        """How far the relays are that have answered."""
        return latencies_of(self._measurements)

    @property
    def heard(self) -> frozenset[Probe]:
        """The probes that were answered by anybody."""
        return frozenset(one.probe for one in self._measurements)

    @property
    def has_udp(self) -> bool:
        """Whether UDP works."""
        return bool(self.heard - {Probe.HTTPS})

    @property
    def is_settled(self) -> bool:
        """Whether a home relay can be chosen by it: enough has been heard over UDP, or all there is over HTTPS."""
        https = self._https.values()
        return self._heard_enough or (_State.ANSWERED in https and _State.PENDING not in https)

    @property
    def is_complete(self) -> bool:
        """Whether nothing more is to be waited for."""
        if not self._asked_enough:
            return False
        return self.is_settled or not (self._is_pending(self._https) or self._captive_pending)

    @property
    def _asked_enough(self) -> bool:
        """Whether the questions about our address are over."""
        if not self._is_pending(self._asked):
            return True
        answers = sum(state is _State.ANSWERED for state in self._asked.values())
        return self._heard_enough and answers >= ENOUGH

    @property
    def _heard_enough(self) -> bool:
        counts = {
            probe: sum(state is _State.ANSWERED for state in states)
            for probe, states in self._expected.items()
        }
        if not self._is_pending(self._asked):
            return any(counts.values())
        # Two answers tell whether a NAT maps by destination; they need two relays.
        wanted = min(2, len({relay for _, relay in self._asked})) if self._full else 1
        return min(counts.values()) >= 1 and max(counts.values()) >= wanted

    @property
    def _expected(self) -> dict[Probe, list[_State]]:
        """The states of questions that may have an answer, by probe."""
        found: dict[Probe, list[_State]] = {}
        for (probe, _), state in self._asked.items():
            if state is not _State.ABSENT:
                found.setdefault(probe, []).append(state)
        return found

    @staticmethod
    def _is_pending(states: dict[RelayUrl, _State] | dict[tuple[Probe, RelayUrl], _State]) -> bool:
        return _State.PENDING in states.values()
