"""`aioiroh doctor` behind all kinds of routers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aioiroh.address import RelayUrl
from aioiroh.cli.reach.diagnosis import Diagnosis, State, diagnose
from aioiroh.cli.reach.looking import look_around
from aioiroh.cli.relays import RelayChoice
from aioiroh.relayserver import RelayOperation, parse_config
from aioiroh.relayserver.config import SharedToken
from aioiroh.testing import Host, Nat, VirtualNetwork, run, simulated

PEM = Path(__file__).parents[1] / "e2e" / "renewed.test.pem"
NAMES = "relay.test", "far.test"
URLS = tuple(RelayUrl(f"https://{name}/") for name in NAMES)
CONFIG = parse_config(
    f"""
    enable_quic_addr_discovery = true
    [tls]
    cert_mode = "Manual"
    manual_cert_path = "{PEM}"
    manual_key_path = "{PEM}"
    """
)


@asynccontextmanager
async def relays(network: VirtualNetwork) -> AsyncIterator[None]:
    near, far = (network.host(name) for name in NAMES)
    async with (
        RelayOperation.start(CONFIG, network=near),
        RelayOperation.start(CONFIG, network=far),
    ):
        yield


async def examined(host: Host, urls: tuple[RelayUrl, ...] = URLS) -> Diagnosis:
    return diagnose(await look_around(host, RelayChoice(urls, PEM)))


def section(diagnosis: Diagnosis, name: str) -> Any:
    [found] = [section for section in diagnosis.sections if section.name == name]
    return found


@pytest.mark.parametrize(
    ("kind", "state", "words"),
    [
        ("none", State.GOOD, "none: "),
        ("open", State.GOOD, "one that keeps its port"),
        ("moderate", State.GOOD, "one that keeps its port"),
        ("strict", State.LIMITED, "a strict one: "),
    ],
)
def test_kinds_of_nat(kind: Any, state: State, words: str) -> None:
    async def scenario(network: VirtualNetwork) -> None:
        async with relays(network):
            router = network.router("home", nat=Nat.kind(kind))
            diagnosis = await examined(network.host("laptop", segment=router.inside))
            assert diagnosis.state is state, diagnosis
            assert section(diagnosis, "nat").words.startswith(words), diagnosis
            assert section(diagnosis, "udp_v4").state is State.GOOD
            assert section(diagnosis, "relays").words == "all can be used"
            assert section(diagnosis, "captive_portal").state is State.GOOD
            assert section(diagnosis, "clock").state is State.GOOD

    run(scenario)


@simulated()
async def test_one_relay_does_not_tell_how_a_nat_maps(network: VirtualNetwork) -> None:
    async with relays(network):
        router = network.router("home", nat=Nat.kind("strict"))
        host = network.host("laptop", segment=router.inside)
        diagnosis = await examined(host, URLS[:1])
        assert "name another" in section(diagnosis, "nat").words
        assert section(diagnosis, "relays").words == "it can be used"


@simulated()
async def test_udp_that_is_blocked(network: VirtualNetwork) -> None:
    async with relays(network):
        router = network.router("home", nat=Nat.kind("moderate"))
        router.carries_udp = False
        diagnosis = await examined(network.host("laptop", segment=router.inside))
        assert diagnosis.state is State.LIMITED
        assert "through the relay" in diagnosis.verdict
        assert "firewall" in section(diagnosis, "udp_v4").words


@simulated()
async def test_a_relay_that_is_not_there(network: VirtualNetwork) -> None:
    async with relays(network):
        gone = RelayUrl("https://nowhere.test/")
        diagnosis = await examined(network.host("laptop"), (URLS[0], gone))
        assert section(diagnosis, "relays").words == "1 of 2 can be used"
        says = "https://nowhere.test/: its name cannot be looked up: "
        assert section(diagnosis, "relays").lines[1].startswith(says)
        diagnosis = await examined(network.host("other"), (gone,))
        assert diagnosis.state is State.BAD and "No relay can be used" in diagnosis.verdict


@simulated()
async def test_a_relay_that_lets_nobody_in(network: VirtualNetwork) -> None:
    """It answers whoever asks, and is of use only to those who have its token."""
    closed = replace(CONFIG, access=SharedToken(("sesame",)))
    async with RelayOperation.start(closed, network=network.host(NAMES[0])):
        diagnosis = await examined(network.host("laptop"), URLS[:1])
        [line] = section(diagnosis, "relays").lines
        assert "HTTP" in line and line.endswith("the relay refuses: not authorized")
        assert diagnosis.state is State.BAD and "No relay can be used" in diagnosis.verdict
        known = RelayUrl(f"{URLS[0]}?token=sesame")
        diagnosis = await examined(network.host("other"), (known,))
        assert diagnosis.state is State.GOOD
        # People show this to others.
        [line] = section(diagnosis, "relays").lines
        assert line.startswith("https://relay.test/: ") and "sesame" not in line


@simulated()
async def test_a_certificate_of_somebody_else(network: VirtualNetwork) -> None:
    async with relays(network):
        diagnosis = diagnose(await look_around(network.host("laptop"), RelayChoice(URLS)))
        assert "see --relay-ca" in section(diagnosis, "relays").lines[0]


@simulated()
async def test_without_a_network(network: VirtualNetwork) -> None:
    host = network.host("laptop")
    assert (await examined(host, ())).state is State.UNKNOWN
    host.up = False
    diagnosis = await examined(host)
    assert (diagnosis.state, "not connected" in diagnosis.verdict) == (State.BAD, True)
