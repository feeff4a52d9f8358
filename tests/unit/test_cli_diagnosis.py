"""What `aioiroh doctor` makes of what it finds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioiroh.address import IpAddr, RelayUrl
from aioiroh.cli.reach.diagnosis import Findings, Section, State, diagnose
from aioiroh.net import LocalAddress
from aioiroh.report import NetReport, RelayLatencies

LOOPBACK = LocalAddress("lo", "127.0.0.1", 8, True)
HOME = LocalAddress("eth0", "192.168.1.5", 24, False)
V6 = LocalAddress("eth0", "2a01:4f8::5", 64, False)
NEAR, FAR = RelayUrl("https://near.example"), RelayUrl("https://far.example")
SEEN = IpAddr.parse("203.0.113.9:41000")

REPORT = NetReport(
    udp_v4=True,
    mapping_varies_by_dest_ipv4=False,
    preferred_relay=NEAR,
    relay_latency=RelayLatencies(ipv4={NEAR: 0.0123, FAR: 0.08}, https={NEAR: 0.05}),
    global_v4=SEEN,
    captive_portal=False,
)
FINE = Findings([LOOPBACK, HOME], ["192.168.1.5"], [NEAR, FAR], REPORT, clock=0.4)


def section(findings: Findings, name: str) -> Section:
    [found] = [section for section in diagnose(findings).sections if section.name == name]
    return found


def test_a_usual_home() -> None:
    found = diagnose(FINE)
    assert (found.state, found.verdict) == (State.GOOD, "Direct connections will usually work.")
    assert [section.name for section in found.sections] == [
        "interfaces",
        "udp_v4",
        "udp_v6",
        "nat",
        "relays",
        "port_mapping",
        "captive_portal",
        "clock",
    ]
    assert section(FINE, "interfaces").lines == ("eth0: 192.168.1.5/24 (private)",)
    assert section(FINE, "udp_v4").words == "works; relays see 203.0.113.9:41000"
    assert section(FINE, "udp_v6").state is State.UNKNOWN
    assert section(FINE, "nat").words.startswith("one that keeps its port")
    assert section(FINE, "relays").lines == (
        "https://near.example/: UDP over IPv4 12.3 ms, HTTP 50.0 ms; home",
        "https://far.example/: UDP over IPv4 80.0 ms",
    )


@pytest.mark.parametrize(
    ("changes", "report", "state", "verdict"),
    [
        ({"addresses": [LOOPBACK], "outward": []}, {}, State.BAD, "not connected"),
        (
            {},
            {"captive_portal": True, "udp_v4": False, "relay_latency": RelayLatencies()},
            State.BAD,
            "captive portal",
        ),
        # A web server next to a relay is none.
        ({}, {"captive_portal": True}, State.GOOD, "Direct connections"),
        ({}, {"captive_portal": True, "udp_v4": False}, State.LIMITED, "a firewall"),
        ({"report": None}, None, State.UNKNOWN, "--relay"),
        ({"report": None, "outward": []}, None, State.LIMITED, "no internet"),
        (
            {},
            {"udp_v4": False, "global_v4": None, "relay_latency": RelayLatencies()},
            State.BAD,
            "No relay can be used",
        ),
        ({"clock": -90_000.0}, {}, State.BAD, "clock is wrong"),
        ({}, {"udp_v4": False, "global_v4": None}, State.LIMITED, "through the relay"),
        ({}, {"mapping_varies_by_dest_ipv4": True}, State.LIMITED, "NAT is strict"),
        (
            {"port_mapping": {"PCP": "", "UPnP": "no answer"}},
            {"mapping_varies_by_dest_ipv4": True},
            State.GOOD,
            "Direct connections",
        ),
    ],
)
def test_verdicts(
    changes: dict[str, object], report: dict[str, object] | None, state: State, verdict: str
) -> None:
    findings = replace(FINE, **changes)  # type: ignore[arg-type]
    if report:
        findings = replace(findings, report=replace(REPORT, **report))  # type: ignore[arg-type]
    found = diagnose(findings)
    assert found.state is state and verdict in found.verdict


def test_programs_find_the_same_facts_with_and_without_relays() -> None:
    with_them, without = diagnose(FINE), diagnose(replace(FINE, relays=[], report=None))
    for some, none in zip(with_them.sections, without.sections, strict=True):
        assert some.facts.keys() == none.facts.keys()


def test_nats() -> None:
    public = replace(FINE, addresses=[LOOPBACK, LocalAddress("eth0", "203.0.113.9", 24, False)])
    assert section(public, "nat").words.startswith("none: ")
    one = replace(FINE, report=replace(REPORT, mapping_varies_by_dest_ipv4=None))
    assert "name another" in section(one, "nat").words
    strict = replace(FINE, report=replace(REPORT, mapping_varies_by_dest_ipv4=True))
    assert section(strict, "nat").state is State.LIMITED


def test_relays_that_do_not_answer() -> None:
    report = replace(REPORT, relay_latency=RelayLatencies(https={FAR: 0.1}))
    found = section(replace(FINE, report=report, problems={NEAR: "TLS: expired"}), "relays")
    assert (found.state, found.words) == (State.LIMITED, "1 of 2 can be used")
    assert found.lines[0] == "https://near.example/: TLS: expired"
    assert found.facts["relays"][0]["problem"] == "TLS: expired"  # type: ignore[index]


def test_port_mapping() -> None:
    silent = {"PCP": "no answer", "NAT-PMP": "no answer"}
    found = section(replace(FINE, port_mapping=silent), "port_mapping")
    assert found.state is State.UNKNOWN and found.lines[1] == "NAT-PMP: no answer"
    found = section(replace(FINE, port_mapping={**silent, "UPnP": ""}), "port_mapping")
    assert (found.state, found.words) == (State.GOOD, "the router offers it (UPnP)")
    assert "no router" in section(replace(FINE, port_mapping={}), "port_mapping").words
    assert section(FINE, "port_mapping").words == "not looked at"


def test_udp_that_is_dropped() -> None:
    report = replace(REPORT, udp_v4=False)
    found = section(replace(FINE, addresses=[HOME, V6], outward=[V6.ip], report=report), "udp_v6")
    assert found.state is State.LIMITED and "firewall" in found.words


maybe = st.none() | st.booleans()


@given(
    st.lists(st.sampled_from([LOOPBACK, HOME, V6]), max_size=3),
    st.lists(st.sampled_from([HOME.ip, V6.ip]), max_size=2),
    st.none()
    | st.builds(
        NetReport,
        udp_v4=st.booleans(),
        udp_v6=st.booleans(),
        mapping_varies_by_dest_ipv4=maybe,
        mapping_varies_by_dest_ipv6=maybe,
        global_v4=st.none() | st.just(SEEN),
        captive_portal=maybe,
        relay_latency=st.sampled_from([RelayLatencies(), REPORT.relay_latency]),
    ),
    st.none() | st.floats(-1e9, 1e9),
)
def test_there_is_always_a_verdict_and_eight_sections(
    addresses: list[LocalAddress], outward: list[str], report: NetReport | None, clock: float | None
) -> None:
    relays = [NEAR] if report else []
    found = diagnose(Findings(addresses, outward, relays, report, clock=clock))
    assert found.verdict.endswith((".", "!")) and len(found.sections) == 8
    assert all(section.words for section in found.sections)
    if found.state is State.GOOD:
        assert all(section.state is not State.BAD for section in found.sections)
