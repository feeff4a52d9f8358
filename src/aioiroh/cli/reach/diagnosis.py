"""What `aioiroh doctor` makes of what was found out: sections in plain words, and one verdict. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import ip_address
from typing import Final

from aioiroh.address import RelayUrl
from aioiroh.net import LocalAddress
from aioiroh.report import NetReport

from ..amounts import duration
from ..relays import shown
from .ways import milliseconds

__all__ = ["Diagnosis", "Findings", "Section", "State", "diagnose"]

MAX_CLOCK_ERROR: Final = 300.0
"""Seconds; above, certificates and signed records may be refused."""


class State(Enum):
    """How something stands."""

    GOOD = "good"
    LIMITED = "limited"
    BAD = "bad"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found out. None: it was not looked for, or could not be.

    `outward`: addresses of this machine from which the internet is reached. `problems`: what is wrong with
    relays that do not answer or let nobody in. `port_mapping`: what is wrong with each protocol that a router could have for it,
    nothing if it has it. `clock`: seconds by which this machine's clock is ahead of a relay's.
    """

    addresses: Sequence[LocalAddress] = ()
    outward: Sequence[str] = ()
    relays: Sequence[RelayUrl] = ()
    report: NetReport | None = None
    problems: Mapping[RelayUrl, str] = field(default_factory=dict)
    port_mapping: Mapping[str, str] | None = None
    clock: float | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """One thing that was looked at. `facts` is for programs."""

    name: str
    state: State
    words: str
    lines: tuple[str, ...] = ()
    facts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All of it, and what it comes to."""

    sections: tuple[Section, ...]
    state: State
    verdict: str


def diagnose(findings: Findings) -> Diagnosis:
    """What the findings mean."""
    sections = tuple(look(findings) for look in _LOOKS)
    state, verdict = _verdict(findings, {section.name: section for section in sections})
    return Diagnosis(sections, state, verdict)


# --- sections -------------------------------------------------------------------------------------


def _interfaces(found: Findings) -> Section:
    usable = [address for address in found.addresses if not address.is_loopback]
    lines = [
        f"{address.interface}: {address.ip}/{address.prefix} ({_kind(address)})"
        for address in usable
    ]
    facts = {
        "addresses": [
            {"interface": address.interface, "address": address.ip, "prefix": address.prefix}
            for address in found.addresses
        ],
        "outward": list(found.outward),
    }
    if not usable:
        words = "there is no address but those of the machine itself; no network is connected"
        return Section("interfaces", State.BAD, words, facts=facts)
    if not found.outward:
        words = "there is no route to the internet; peers on the same network can be reached"
        return Section("interfaces", State.LIMITED, words, tuple(lines), facts)
    families = ["IPv6" if ":" in ip else "IPv4" for ip in found.outward]
    words = f"the internet is reached by {' and '.join(families)}"
    return Section("interfaces", State.GOOD, words, tuple(lines), facts)


def _kind(address: LocalAddress) -> str:
    if address.is_link_local:
        return "link-local"
    return "public" if ip_address(address.ip).is_global else "private"


def _udp(version: int) -> Callable[[Findings], Section]:
    name = f"udp_v{version}"

    def look(found: Findings) -> Section:
        report = found.report
        family = "IPv4" if version == 4 else "IPv6"
        here = any((":" in ip) == (version == 6) for ip in found.outward)
        if report is None:
            facts: dict[str, object] = {"works": None, "seen_at": None}
            return Section(name, State.UNKNOWN, f"not looked at: {_NO_RELAY}", facts=facts)
        works = report.udp_v4 if version == 4 else report.udp_v6
        seen = report.global_v4 if version == 4 else report.global_v6
        facts = {"works": works, "seen_at": seen.text if seen else None}
        if works:
            words = f"works; relays see {seen.text}" if seen else "works"
            return Section(name, State.GOOD, words, facts=facts)
        if not here:
            words = f"this machine has no {family} address that leads to the internet"
            return Section(name, State.UNKNOWN, words, facts=facts)
        words = (
            f"no relay answers by UDP over {family}; a firewall may drop UDP, or the relays have no "
            "address discovery"
        )
        return Section(name, State.LIMITED, words, facts=facts)

    return look


def _nat(found: Findings) -> Section:
    report = found.report
    if report is None:
        names = ("mapping_varies_by_dest_ipv4", "mapping_varies_by_dest_ipv6", "behind_nat")
        words = f"not looked at: {_NO_RELAY}"
        return Section("nat", State.UNKNOWN, words, facts=dict.fromkeys(names))
    own = {address.ip for address in found.addresses}
    seen = [address for address in (report.global_v4, report.global_v6) if address is not None]
    facts = {
        "mapping_varies_by_dest_ipv4": report.mapping_varies_by_dest_ipv4,
        "mapping_varies_by_dest_ipv6": report.mapping_varies_by_dest_ipv6,
        "behind_nat": None if not seen else not all(str(a.ip) in own for a in seen),
    }
    if not seen:
        return Section("nat", State.UNKNOWN, "unknown: no relay could be asked by UDP", facts=facts)
    if not facts["behind_nat"]:
        words = "none: relays see addresses of this machine"
        return Section("nat", State.GOOD, words, facts=facts)
    if report.mapping_varies_by_dest:
        words = (
            "a strict one: it takes another port for each destination. Peers behind the usual home "
            "router may be reached directly; those behind another strict one through a relay only"
        )
        return Section("nat", State.LIMITED, words, facts=facts)
    if report.mapping_varies_by_dest is False:
        words = "one that keeps its port for all destinations, so holes can be punched"
        return Section("nat", State.GOOD, words, facts=facts)
    words = "there is one; how it maps can be told with two relays, so name another"
    return Section("nat", State.UNKNOWN, words, facts=facts)


def _relays(found: Findings) -> Section:
    report = found.report
    if report is None:
        words = f"not looked at: {_NO_RELAY}"
        return Section("relays", State.UNKNOWN, words, facts={"relays": [], "home": None})
    lines, facts = [], []
    usable = 0
    for url in found.relays:
        ways = {
            name: getattr(report.relay_latency, name).get(url) for name in ("ipv4", "ipv6", "https")
        }
        known = {name: seconds for name, seconds in ways.items() if seconds is not None}
        problem = found.problems.get(url)
        facts.append({"url": str(url), **ways, "problem": problem})
        says = [", ".join(f"{_WAYS[name]} {milliseconds(s)}" for name, s in known.items())]
        if problem or not known:
            says.append(problem or "no answer")
        else:
            usable += 1
            says.append("home" if url == report.preferred_relay else "")
        lines.append(f"{shown(url)}: {'; '.join(filter(None, says))}")
    if usable == len(found.relays):
        state, words = State.GOOD, "all can be used" if usable > 1 else "it can be used"
    elif usable:
        state, words = State.LIMITED, f"{usable} of {len(found.relays)} can be used"
    else:
        state, words = State.BAD, "none can be used"
    summary = {"relays": facts, "home": report.preferred_relay}
    return Section("relays", state, words, tuple(lines), summary)


_WAYS: Final = {"ipv4": "UDP over IPv4", "ipv6": "UDP over IPv6", "https": "HTTP"}


def _port_mapping(found: Findings) -> Section:
    protocols = found.port_mapping
    facts = {"protocols": protocols}
    if protocols is None:
        return Section("port_mapping", State.UNKNOWN, "not looked at", facts=facts)
    if not protocols:
        words = "there is no router that could be asked"
        return Section("port_mapping", State.UNKNOWN, words, facts=facts)
    offered = [name for name, problem in protocols.items() if not problem]
    if offered:
        words = f"the router offers it ({', '.join(offered)})"
        return Section("port_mapping", State.GOOD, words, facts=facts)
    lines = tuple(f"{name}: {problem}" for name, problem in protocols.items())
    words = "the router offers none; most do not"
    return Section("port_mapping", State.UNKNOWN, words, lines, facts)


def _captive_portal(found: Findings) -> Section:
    report = found.report
    captive = None if report is None else report.captive_portal
    facts = {"captive": captive}
    if report is None:
        words = f"not looked at: {_NO_RELAY}"
        return Section("captive_portal", State.UNKNOWN, words, facts=facts)
    if captive is None:
        words = "unknown: nobody answers at port 80 of the relay, where it is looked for"
        return Section("captive_portal", State.UNKNOWN, words, facts=facts)
    if captive and _gets_out(report):
        words = "none: relays are reached, though something else answers at port 80 of one"
        return Section("captive_portal", State.GOOD, words, facts=facts)
    if captive:
        words = "something answers in place of the relays; sign in to this network with a browser"
        return Section("captive_portal", State.BAD, words, facts=facts)
    return Section("captive_portal", State.GOOD, "none", facts=facts)


def _gets_out(report: NetReport) -> bool:
    """Whether relays have answered in a way in which nobody else can."""
    return report.has_udp or any(url.startswith("https:") for url in report.relay_latency.https)


def _clock(found: Findings) -> Section:
    facts = {"ahead": found.clock}
    if found.clock is None:
        return Section("clock", State.UNKNOWN, "no relay told the time", facts=facts)
    if abs(found.clock) > MAX_CLOCK_ERROR:
        way = "ahead of" if found.clock > 0 else "behind"
        words = (
            f"it is {duration(abs(found.clock))} {way} that of a relay; set it, or certificates and "
            "records will be refused"
        )
        return Section("clock", State.BAD, words, facts=facts)
    return Section("clock", State.GOOD, "right, as far as relays can tell", facts=facts)


_NO_RELAY: Final = "name a relay with --relay"

_LOOKS: Final[tuple[Callable[[Findings], Section], ...]] = (
    _interfaces,
    _udp(4),
    _udp(6),
    _nat,
    _relays,
    _port_mapping,
    _captive_portal,
    _clock,
)


# --- the verdict ----------------------------------------------------------------------------------


def _verdict(found: Findings, sections: Mapping[str, Section]) -> tuple[State, str]:
    """The first of these that is so."""
    state = {name: section.state for name, section in sections.items()}
    report = found.report
    if state["interfaces"] is State.BAD:
        return State.BAD, "This machine is not connected to any network."
    if state["captive_portal"] is State.BAD:
        return State.BAD, "A captive portal stands in the way: sign in with a browser first."
    if report is None:
        if state["interfaces"] is State.LIMITED:
            return State.LIMITED, "Peers on the same network can be reached; there is no internet."
        return State.UNKNOWN, "There is a network; with --relay URL more can be said."
    if state["relays"] is State.BAD:
        return State.BAD, "No relay can be used: peers elsewhere can hardly be reached."
    if state["clock"] is State.BAD:
        return State.BAD, "The clock is wrong: set it, or relays and peers will be refused."
    if not report.has_udp:
        return (
            State.LIMITED,
            "No relay answers by UDP: if a firewall drops it, everything will go through the relay.",
        )
    if state["nat"] is State.LIMITED and state["port_mapping"] is not State.GOOD:
        return (
            State.LIMITED,
            "The NAT is strict: many peers are reached directly, some through the relay only.",
        )
    return State.GOOD, "Direct connections will usually work."
