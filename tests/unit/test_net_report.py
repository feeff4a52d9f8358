"""The cores of the net report: what follows from answers, which relay is home, when enough is known."""

from __future__ import annotations

import asyncio
from random import Random
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioiroh import _native
from aioiroh.address import IpAddr, RelayConfig, RelayUrl
from aioiroh.net import LocalAddress, SystemNetwork, TcpDialler
from aioiroh.net.http import Head
from aioiroh.report import NetReport, Outside, plan
from aioiroh.report.gathering import Gathering
from aioiroh.report.home import BETTER, MAX_REPORTS, HomeChoice
from aioiroh.report.http import HttpError, ask
from aioiroh.report.report import Measurement, Probe, RelayLatencies, latencies_of, report_of

A, B, C, D = (RelayUrl(f"https://{name}.test/") for name in "abcd")
V4, V6, HTTPS = Probe.QAD_IPV4, Probe.QAD_IPV6, Probe.HTTPS


def seen(relay: RelayUrl, address: str, latency: float = 0.1, slot: int = 0) -> Measurement:
    addr = IpAddr.parse(address)
    return Measurement(V4 if addr.ip.version == 4 else V6, relay, latency, addr, slot)


def https(relay: RelayUrl, latency: float = 0.1) -> Measurement:
    return Measurement(HTTPS, relay, latency)


def latencies(**of: float) -> RelayLatencies:
    return latencies_of(https(RelayUrl(f"https://{name}.test/"), s) for name, s in of.items())


# --- what follows from answers


def test_nothing_is_known_without_answers() -> None:
    assert report_of(()) == NetReport()
    assert not NetReport().has_udp


def test_two_relays_that_see_the_same_address_tell_that_the_mapping_does_not_vary() -> None:
    report = report_of([seen(A, "192.0.2.1:5", 0.2), seen(B, "192.0.2.1:5", 0.1)])
    assert report.udp_v4 and not report.udp_v6
    assert report.mapping_varies_by_dest_ipv4 is False
    assert report.mapping_varies_by_dest_ipv6 is None
    assert report.mapping_varies_by_dest is False
    assert report.global_v4 == IpAddr.parse("192.0.2.1:5")
    assert report.relay_latency.ipv4 == {A: 0.2, B: 0.1}
    assert [one.relay for one in report.observed] == [A, B]


@pytest.mark.parametrize("other", ["192.0.2.1:6", "192.0.2.2:5"])
def test_a_mapping_varies_if_relays_see_different_addresses(other: str) -> None:
    report = report_of([seen(A, "192.0.2.1:5"), seen(B, other), seen(C, "192.0.2.1:5")])
    assert report.mapping_varies_by_dest_ipv4 is True
    assert report.global_v4 == IpAddr.parse("192.0.2.1:5")


def test_one_relay_alone_tells_nothing_of_the_mapping() -> None:
    # It may see another address after a while; that is no matter of the destination.
    report = report_of([seen(A, "192.0.2.1:5"), seen(A, "192.0.2.1:6"), https(B)])
    assert report.mapping_varies_by_dest_ipv4 is None


def test_sockets_are_judged_one_by_one() -> None:
    report = report_of([seen(A, "192.0.2.1:5", slot=0), seen(B, "192.0.2.1:6", slot=1)])
    assert report.mapping_varies_by_dest_ipv4 is None


def test_the_families_are_apart() -> None:
    report = report_of(
        [seen(A, "192.0.2.1:5"), seen(A, "[2001:db8::1]:5"), seen(B, "[2001:db8::1]:6")]
    )
    assert (report.udp_v4, report.udp_v6) == (True, True)
    assert (report.mapping_varies_by_dest_ipv4, report.mapping_varies_by_dest_ipv6) == (None, True)
    assert report.mapping_varies_by_dest is True
    assert report.global_v6 == IpAddr.parse("[2001:db8::1]:5")


def test_an_address_of_the_wrong_family_counts_for_its_latency_only() -> None:
    wrong = Measurement(V4, A, 0.1, IpAddr.parse("[2001:db8::1]:5"), 0)
    report = report_of([wrong, Measurement(V4, B, 0.2, None, 0)])
    assert not report.has_udp and report.observed == ()
    assert report.relay_latency.relays == {A, B}


def test_the_address_that_the_home_relay_sees_is_ours() -> None:
    answers = [seen(A, "192.0.2.1:5"), seen(B, "192.0.2.1:6"), seen(C, "192.0.2.1:7")]
    report = report_of(answers, home=B)
    assert (report.preferred_relay, report.global_v4) == (B, IpAddr.parse("192.0.2.1:6"))
    assert report_of(reversed(answers), home=B).global_v4 == report.global_v4
    assert report_of(answers[::2], home=B).global_v4 == IpAddr.parse("192.0.2.1:5")


def test_the_lowest_latency_of_a_relay_counts() -> None:
    found = latencies_of([https(A, 0.3), seen(A, "192.0.2.1:5", 0.2), https(A, 0.1)])
    assert (found.https, found.ipv4) == ({A: 0.1}, {A: 0.2})
    assert found.get(A) == 0.1 and found.get(B) is None


# --- which addresses are offered


def offered(outside: Outside, *, home: RelayUrl = A, port: int | None = None) -> list[str]:
    return [address.text for address in outside.addresses(home, port, varies=port is not None)]


def heard(*answers: Measurement, at: float = 0.0, outside: Outside | None = None) -> Outside:
    outside = outside or Outside()
    outside.heard(at, report_of(answers), {A, B, C, D})
    return outside


def test_observed_addresses_are_offered() -> None:
    outside = heard(seen(A, "[2001:db8::1]:6"), seen(A, "192.0.2.1:5"), seen(B, "192.0.2.1:5"))
    assert offered(outside) == ["192.0.2.1:5", "[2001:db8::1]:6"]


def test_a_fixed_port_is_a_guess_where_the_mapping_varies() -> None:
    outside = heard(seen(A, "192.0.2.1:5"), seen(B, "192.0.2.1:6"))
    assert offered(outside, port=7) == ["192.0.2.1:5", "192.0.2.1:6", "192.0.2.1:7"]
    assert offered(outside, home=B) == ["192.0.2.1:6", "192.0.2.1:5"]


def test_what_a_relay_on_this_machine_sees_is_of_no_use_to_peers() -> None:
    assert offered(heard(seen(A, "127.0.0.1:5"), seen(A, "[::1]:6")), port=7) == []


def test_a_relay_that_lies_takes_nothing_from_what_others_see() -> None:
    outside = heard(seen(A, "192.0.2.1:5"), seen(B, "192.0.2.1:5"))
    # As the home relay it is the only one that is asked between full reports, and may lie anew each time.
    for number in range(1, 60):
        heard(seen(A, f"203.0.113.{number}:9"), at=5.0 * number, outside=outside)
        assert offered(outside) == [f"203.0.113.{number}:9", "192.0.2.1:5"]
    heard(seen(A, "192.0.2.1:5"), at=300.0, outside=outside)
    assert offered(outside) == ["192.0.2.1:5"]


def test_what_was_seen_is_forgotten() -> None:
    outside = heard(seen(A, "192.0.2.1:5"), seen(B, "192.0.2.1:6"))
    heard(seen(A, "192.0.2.1:7"), at=401.0, outside=outside)
    assert offered(outside) == ["192.0.2.1:7"]
    outside.heard(402.0, NetReport(), {B})
    assert offered(outside) == []
    heard(seen(A, "192.0.2.1:7"), outside=outside).forget()
    assert offered(outside) == []


def test_few_addresses_are_offered_whatever_relays_say() -> None:
    lies = [seen(relay, f"192.0.2.{number}:5") for number, relay in enumerate((A, B, C, D))]
    assert offered(heard(*lies), home=D) == ["192.0.2.3:5", "192.0.2.0:5", "192.0.2.1:5"]


# --- home


def test_the_nearest_is_home() -> None:
    choice = HomeChoice()
    assert choice.choose(0, latencies(a=0.3, b=0.1, c=0.2), None, asked_all=True) == B


def test_without_measurements_home_stays() -> None:
    choice = HomeChoice()
    assert choice.choose(0, latencies(), None, asked_all=True) is None
    assert choice.choose(0, latencies(), A, asked_all=True) == A


@pytest.mark.parametrize(("better", "home"), [(0.21, A), (0.19, B)])
def test_another_relay_has_to_be_clearly_better(better: float, home: RelayUrl) -> None:
    choice = HomeChoice()
    assert choice.choose(0, latencies(a=0.3, b=better), A, asked_all=True) == home


def test_the_best_of_five_minutes_counts_for_a_relay() -> None:
    choice = HomeChoice()
    choice.choose(0, latencies(a=0.3, b=0.1), A, asked_all=True)
    assert choice.choose(10, latencies(a=0.3, b=0.29), A, asked_all=True) == B
    assert choice.choose(400, latencies(a=0.3, b=0.29), A, asked_all=True) == A


def test_a_relay_that_was_not_asked_is_not_left_for_that() -> None:
    choice = HomeChoice()
    choice.choose(0, latencies(a=0.1, b=0.2), None, asked_all=True)
    assert choice.choose(10, latencies(b=0.2), A, asked_all=False) == A


def test_a_relay_that_does_not_answer_is_left() -> None:
    choice = HomeChoice()
    choice.choose(0, latencies(a=0.1, b=0.2), None, asked_all=True)
    assert choice.choose(10, latencies(b=0.2), A, asked_all=True) == B


def test_a_relay_that_was_forgotten_is_left_for_any_that_answers() -> None:
    choice = HomeChoice()
    choice.choose(0, latencies(a=0.1), None, asked_all=True)
    choice.forget()
    assert choice.choose(10, latencies(b=0.9), A, asked_all=False) == B


def test_relays_without_any_latency_do_not_take_turns() -> None:
    choice = HomeChoice()
    assert choice.choose(0, latencies(a=0.0, b=0.0), B, asked_all=True) == B


LATENCIES = st.dictionaries(st.sampled_from("abcd"), st.floats(0, 5), max_size=4)


@given(st.lists(st.tuples(st.floats(0, 400), LATENCIES, st.booleans()), max_size=20))
def test_home_changes_only_for_something_better(rounds) -> None:  # type: ignore[no-untyped-def]
    choice, home, now = HomeChoice(), None, 0.0
    for pause, measured, asked_all in rounds:
        now += pause
        found = latencies(**measured)
        before, home = home, choice.choose(now, found, home, asked_all=asked_all)
        if measured:
            assert home in found.relays or (home == before and not asked_all)
        else:
            assert home == before
        if before is not None and home != before and before in found.relays:
            assert home is not None
            # Its best of late, so at most what it has now.
            assert choice._best(home) <= found.get(before) * BETTER  # type: ignore[operator]
    assert len(choice._recent) <= MAX_REPORTS


# --- one report


def both(*relays: RelayUrl) -> list[tuple[Probe, RelayUrl]]:
    return [(probe, relay) for relay in relays for probe in (V4, V6)]


def test_a_full_report_wants_two_answers_of_one_family_and_one_of_the_other() -> None:
    gathering = Gathering(both(A, B, C), https=[A, B, C], captive=True, full=True)
    gathering.answered(seen(A, "192.0.2.1:5"))
    assert not gathering.is_settled
    gathering.answered(seen(B, "192.0.2.1:5"))
    assert not gathering.is_settled
    gathering.answered(seen(A, "[2001:db8::1]:5"))
    assert gathering.is_settled and gathering.is_complete


def test_a_family_without_addresses_is_not_waited_for() -> None:
    gathering = Gathering(both(A, B), full=True)
    gathering.absent(V6, A)
    gathering.absent(V6, B)
    gathering.answered(seen(A, "192.0.2.1:5"))
    assert not gathering.is_settled
    gathering.answered(seen(B, "192.0.2.1:5"))
    assert gathering.is_complete


def test_a_single_relay_is_enough_when_it_has_said_all_it_can() -> None:
    gathering = Gathering(both(A), https=[A], captive=True, full=True)
    gathering.answered(seen(A, "192.0.2.1:5"))
    assert not gathering.is_complete
    gathering.answered(seen(A, "[2001:db8::1]:5"))
    assert gathering.is_complete


def test_answers_over_https_settle_home_but_udp_is_waited_for() -> None:
    gathering = Gathering(both(A, B), https=[A, B], captive=True, full=True)
    gathering.answered(https(A))
    assert not gathering.is_settled
    gathering.answered(https(B))
    assert gathering.is_settled and not gathering.is_complete
    for probe, relay in both(A, B):
        gathering.failed(probe, relay)
    assert gathering.is_complete
    assert not gathering.has_udp


def test_a_relay_that_fails_over_https_is_not_waited_for() -> None:
    gathering = Gathering(both(A, B), https=[A, B], full=True)
    gathering.failed(HTTPS, A)
    assert not gathering.is_settled
    gathering.answered(https(B))
    assert gathering.is_settled


def test_a_dead_network_is_given_up_when_all_have_failed() -> None:
    gathering = Gathering([(V4, A)], https=[A], captive=True, full=True)
    gathering.failed(V4, A)
    gathering.failed(HTTPS, A)
    assert not gathering.is_complete
    gathering.looked_for_portal(True)
    assert gathering.is_complete and not gathering.is_settled
    assert gathering.report().captive_portal is True


def test_an_incremental_report_lives_on_what_is_known() -> None:
    known = [seen(A, "192.0.2.1:5"), seen(B, "[2001:db8::1]:5")]
    assert Gathering((), known=known, full=False).is_complete
    gathering = Gathering([(V6, A), (V6, B)], known=known[:1], full=False)
    assert not gathering.is_complete
    gathering.answered(seen(A, "[2001:db8::1]:5"))
    assert gathering.is_settled


RESULTS = st.lists(
    st.tuples(st.sampled_from([V4, V6, HTTPS]), st.sampled_from([A, B, C]), st.integers(0, 2)),
    max_size=40,
)


@given(RESULTS, st.booleans())
def test_a_report_ends_when_everything_has_ended(results, full: bool) -> None:  # type: ignore[no-untyped-def]
    gathering = Gathering(both(A, B, C), https=[A, B, C], captive=True, full=full)
    settled = False
    for probe, relay, outcome in [
        *results,
        *((probe, relay, 1) for probe, relay in both(A, B, C)),
        *((HTTPS, relay, 1) for relay in (A, B, C)),
    ]:
        if outcome == 0:
            address = "192.0.2.1:5" if probe is V4 else "[2001:db8::1]:5"
            gathering.answered(https(relay) if probe is HTTPS else seen(relay, address))
        elif outcome == 1 or probe is HTTPS:
            gathering.failed(probe, relay)
        else:
            gathering.absent(probe, relay)
        settled |= gathering.is_settled
    gathering.looked_for_portal(None)
    assert gathering.is_complete


# --- rules


def config(name: str) -> RelayConfig:
    return RelayConfig(RelayUrl(f"https://{name}.test/"))


@given(st.integers(0, 12), st.integers(1, 6), st.integers(0, 100))
def test_home_is_always_asked_and_nobody_twice(count: int, limit: int, seed: int) -> None:
    relays = [config(f"r{number}") for number in range(count)]
    for home in (None, *(relay.url for relay in relays)):
        asked = plan.to_ask(relays, home, Random(seed), limit)
        assert len(asked) == len(set(asked)) == min(count, limit)
        assert set(asked) <= set(relays)
        assert home is None or home in {relay.url for relay in asked}


def test_families_need_an_address_that_leads_further() -> None:
    def local(ip: str, loopback: bool = False) -> LocalAddress:
        return LocalAddress("eth0", ip, 24, loopback)

    alone = [local("127.0.0.1", True), local("::1", True), local("169.254.1.1"), local("fe80::1")]
    assert plan.available_versions(alone, (4, 6)) == frozenset()
    both_versions = [*alone, local("10.0.0.1"), local("fd00::1")]
    assert plan.available_versions(both_versions, (4, 6)) == {4, 6}
    assert plan.available_versions(both_versions, (4,)) == {4}


def test_an_address_is_asked_over_an_available_family_or_on_this_machine() -> None:
    addresses = ("2001:db8::1", "192.0.2.1", "192.0.2.2")
    assert plan.address_to_ask(addresses, 4, frozenset({4})) == "192.0.2.1"
    assert plan.address_to_ask(addresses, 6, frozenset({4})) is None
    assert plan.address_to_ask(("127.0.0.1",), 4, frozenset()) == "127.0.0.1"


def test_a_report_is_full_after_five_minutes_and_behind_a_portal() -> None:
    report = NetReport(udp_v4=True)
    assert plan.should_be_full(0, None, None)
    assert not plan.should_be_full(300, 0, report)
    assert plan.should_be_full(301, 0, report)
    assert plan.should_be_full(10, 0, NetReport(captive_portal=True))
    assert not plan.should_be_full(10, 0, NetReport(udp_v4=True, captive_portal=True))


# --- HTTP


class Answering(asyncio.Protocol):
    """Sends the same to everybody."""

    def __init__(self, answer: bytes, *, closes: bool = False) -> None:
        self._answer = answer
        self._closes = closes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(self._answer)
        if self._closes:
            self._transport.close()


async def answer_of(protocol: Answering, tls: _native.TlsStream | None = None) -> Head:
    network = SystemNetwork()
    listener = await network.listen_tcp(lambda: protocol, "127.0.0.1", 0)
    dialler = TcpDialler(network, None, _native.RelayTls())
    try:
        async with asyncio.timeout(10):
            return await ask(dialler, listener.address, "/ping", host="relay.test", tls=tls)
    finally:
        listener.close()
        await listener.wait_closed()


async def test_only_the_head_of_an_answer_is_waited_for() -> None:
    answer = await answer_of(Answering(b"HTTP/1.1 200 OK\r\nx: y\r\n\r\nbody"))
    assert (answer.status, answer.fields) == (200, {"x": "y"})


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 4000, "too long"),
        (b"220 mail.test ESMTP\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n", "there was no answer"),
    ],
)
async def test_a_strange_server_is_an_error(answer: bytes, why: str) -> None:
    with pytest.raises(HttpError, match=why):
        await answer_of(Answering(answer, closes=True))


async def test_a_server_that_speaks_no_tls_is_an_error() -> None:
    tls = _native.TlsStream(_native.RelayTls(), "relay.test")
    with pytest.raises(HttpError):
        await answer_of(Answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"), tls)
