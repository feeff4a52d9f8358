"""`aioiroh doctor`: look around, and say in plain words what stands in the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aioiroh.net import SystemNetwork

from ..display import Display, visible
from ..failures import ExitCode
from ..relays import NONE_NAMED, RelayChoice
from .diagnosis import Diagnosis, State, diagnose
from .looking import look_around

__all__ = ["DoctorOptions", "examine"]

TITLES: Final = {
    "interfaces": "Interfaces",
    "udp_v4": "UDP over IPv4",
    "udp_v6": "UDP over IPv6",
    "nat": "NAT",
    "relays": "Relays",
    "port_mapping": "Port mapping",
    "captive_portal": "Captive portal",
    "clock": "Clock",
}
MARKS: Final = {State.GOOD: "+", State.LIMITED: "!", State.BAD: "x", State.UNKNOWN: "?"}
CODES: Final = {
    State.GOOD: ExitCode.OK,
    State.UNKNOWN: ExitCode.OK,
    State.LIMITED: ExitCode.LIMITED,
    State.BAD: ExitCode.NO_CONNECTION,
}


@dataclass(frozen=True, slots=True)
class DoctorOptions:
    """What was typed."""

    relay: RelayChoice = NONE_NAMED
    bind: tuple[str, ...] = ()


async def examine(options: DoctorOptions, display: Display) -> int:
    """Looks, and tells."""
    with display.bar("looking around"):
        findings = await look_around(SystemNetwork(), options.relay, options.bind)
    diagnosis = diagnose(findings)
    tell(diagnosis, display)
    return CODES[diagnosis.state]


def tell(diagnosis: Diagnosis, display: Display) -> None:
    """The sections, and the verdict last."""
    width = max(map(len, TITLES.values()))
    for section in diagnosis.sections:
        title = f"{MARKS[section.state]} {TITLES[section.name]:<{width}}  "
        # Relays have a say in some of it.
        display.result(visible(title + section.words))
        for line in section.lines:
            display.result(visible(" " * len(title) + line))
        display.event(
            "section",
            name=section.name,
            state=section.state.value,
            words=section.words,
            **section.facts,
        )
    display.result(f"\n{diagnosis.verdict}")
    display.event("verdict", state=diagnosis.state.value, words=diagnosis.verdict)
