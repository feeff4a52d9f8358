"""`aioiroh doctor` on this machine, with a relay of ours, in an empty network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from commands import Process
from relay_process import RelayProcess

Start = Callable[..., Process]
NAMES = [
    "interfaces",
    "udp_v4",
    "udp_v6",
    "nat",
    "relays",
    "port_mapping",
    "captive_portal",
    "clock",
]


@pytest.fixture(autouse=True)
def everything_is_isolated(isolated_network: None) -> None:
    """It asks the router of the local network, which shall not hear of tests."""


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[RelayProcess]:
    path = tmp_path / "relay.toml"
    path.write_text('http_bind_addr = "127.0.0.1:0"\nenable_metrics = false\n')
    relay = RelayProcess(path)
    yield relay
    relay.kill()


def test_only_the_machine(start: Start) -> None:
    looked = start("doctor").wait(4)
    lines = looked.out.splitlines()
    assert lines[0].startswith("x Interfaces      there is no address but those of the machine")
    assert "? Port mapping    there is no router that could be asked" in lines
    assert lines[-1] == "This machine is not connected to any network."


def test_with_a_relay(relay: RelayProcess, start: Start) -> None:
    """The relay has no address discovery, so nothing is known of UDP."""
    looked = start("doctor", "--relay", relay.url(), "--json", "--bind", "127.0.0.1:0")
    looked.wait(4)
    assert [event.get("name") for event in looked.events] == [*NAMES, None]
    sections = {event.get("name"): event for event in looked.events}
    [known] = sections["relays"]["relays"]
    assert known["url"] == relay.url() and known["https"] > 0
    assert sections["clock"]["state"] == "good"
    verdict = looked.events[-1]
    assert (verdict["event"], verdict["state"]) == ("verdict", "bad")


def test_wrong_usage(start: Start, tmp_path: Path) -> None:
    assert "--relay" in start("doctor", "--relay", "nonsense").wait(2).err
    assert "--relay-ca" in start("doctor", "--relay-ca", tmp_path / "none").wait(2).err
    (tmp_path / "ca.pem").write_text("what is this?")
    said = start("doctor", "--relay-ca", tmp_path / "ca.pem").wait(2).err
    assert "ca.pem: there is no certificate in it" in said
