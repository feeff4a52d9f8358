"""Metrics and structured log events."""

from __future__ import annotations

import dataclasses
import logging

import pytest

from aioiroh import events
from aioiroh.metrics import Metrics, counter, gauge


@dataclasses.dataclass(slots=True)
class Kitchen:
    meals: int = counter("Meals served")
    cooks: int = gauge("Cooks at work")


def test_counting_and_reading():
    metrics = Metrics()
    metrics.socket.send_ipv4 += 5
    kitchen = metrics.add_group("kitchen", Kitchen())
    kitchen.cooks = 3
    snapshot = metrics.snapshot()
    assert snapshot["socket"]["send_ipv4"] == 5
    assert snapshot["kitchen"] == {"meals": 0, "cooks": 3}
    kitchen.meals += 1
    assert snapshot["kitchen"]["meals"] == 0, "a snapshot does not change"
    with pytest.raises(ValueError):
        metrics.add_group("socket", Kitchen())
    with pytest.raises(AttributeError):
        metrics.socket.send_ipv5 = 1
    assert Metrics().socket.send_ipv4 == 0


def test_upstream_names():
    expected = {
        "send_ipv4", "send_ipv6", "send_relay", "recv_data_ipv4", "recv_data_ipv6",
        "recv_data_relay", "recv_data_custom", "recv_datagrams", "recv_gro_datagrams",
        "relay_home_change", "relay_conns_success", "relay_conns_failed", "relay_conns_closed",
        "relay_conns_ratelimited", "holepunch_attempts", "paths_direct", "paths_relay",
        "paths_custom", "num_conns_direct", "num_conns_opened", "num_conns_closed",
        "transport_ip_paths_added", "transport_ip_paths_removed", "transport_relay_paths_added",
        "transport_relay_paths_removed", "transport_custom_paths_added",
        "transport_custom_paths_removed",
    }  # fmt: skip
    assert Metrics().snapshot()["socket"].keys() == expected


def test_sources_are_asked_before_every_reading():
    metrics = Metrics()
    total = 0

    def refresh():
        metrics.socket.recv_datagrams = total

    metrics.add_source(refresh)
    total = 7
    assert metrics.snapshot()["socket"]["recv_datagrams"] == 7
    total = 8
    assert "socket_recv_datagrams_total 8\n" in metrics.openmetrics()


def test_openmetrics_text():
    metrics = Metrics()
    metrics.add_group("kitchen", Kitchen(meals=2, cooks=1))
    text = metrics.openmetrics()
    assert text.endswith(
        "# HELP kitchen_meals Meals served.\n"
        "# TYPE kitchen_meals counter\n"
        "kitchen_meals_total 2\n"
        "# HELP kitchen_cooks Cooks at work.\n"
        "# TYPE kitchen_cooks gauge\n"
        "kitchen_cooks 1\n"
        "# EOF\n"
    )
    assert text.startswith("# HELP socket_send_ipv4 ")


def test_events_carry_their_facts_as_data(caplog):
    with caplog.at_level(logging.DEBUG, "aioiroh.events"):
        events.conn_connected(remote_id="abc", alpn=b"x")
    record = caplog.records[0]
    assert record.name == "aioiroh.events.conn.connected"
    assert record.event == "conn.connected"
    assert record.fields == {"remote_id": "abc", "alpn": b"x"}
    assert record.getMessage() == "conn.connected remote_id=abc alpn=b'x'"
    assert record.funcName == "test_events_carry_their_facts_as_data"


def test_events_cost_nothing_unheard():
    class Loud:
        def __str__(self):
            raise AssertionError("formatted although nobody listens")

    with_level = logging.getLogger("aioiroh.events")
    assert not with_level.isEnabledFor(logging.DEBUG)
    events.path_open(path_id=Loud())


def test_event_names_are_upstream_s():
    names = {value.name for value in vars(events).values() if isinstance(value, events.Event)}
    assert names == {
        "conn.connecting", "conn.incoming", "conn.connected", "conn.closed",
        "path.open", "path.set_status", "path.selected", "path.abandoned",
        "qnt.init", "relay.connected", "relay.home_changed", "direct_addrs", "link_change",
    }  # fmt: skip
