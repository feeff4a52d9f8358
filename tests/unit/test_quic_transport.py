"""The transport settings: what is refused, what is clamped."""

from __future__ import annotations

import pytest

from aioiroh import _native
from aioiroh.quic import TransportConfig


def test_the_defaults_are_accepted_by_the_engine():
    assert isinstance(TransportConfig().native(), _native.Transport)
    assert TransportConfig() == TransportConfig().replace()


@pytest.mark.parametrize("congestion", ["cubic", "newreno", "bbr3"])
def test_congestion_controllers(congestion):
    _native.Engine(bytes(32), transport=TransportConfig(congestion=congestion).native())


@pytest.mark.parametrize(
    "settings",
    [
        {"max_bidi_streams": -1},
        {"idle_timeout": 0},
        {"initial_rtt": -1.0},
        {"stream_receive_window": 0},
        {"stream_receive_window": 2_500_001},
        {"initial_mtu": 1199},
        {"nat_addresses": 256},
        {"min_mtu": 1500},
        {"mtu_upper_bound": 65536},
        {"max_uni_streams": 2**60 + 1},
        {"max_paths": 2**32},
        {"send_window": 2**64},
        {"datagram_receive_buffer": -1},
        {"keep_alive": 1.8e19},
        {"initial_rtt": float("inf")},
    ],
)
def test_out_of_range(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        TransportConfig(**settings)


def test_unknown_congestion_controller():
    with pytest.raises(ValueError, match="bbr3"):
        TransportConfig(congestion="vegas").native()


def test_clamped_as_upstream_clamps(monkeypatch):
    given = {}
    monkeypatch.setattr(_native, "Transport", lambda **settings: given.update(settings))
    TransportConfig(
        max_paths=2, nat_addresses=1, path_idle_timeout=60, path_keep_alive=None
    ).native()
    assert given["max_paths"] == 8
    assert given["nat_addresses"] == 8
    assert given["path_idle_timeout"] == 15
    assert given["path_keep_alive"] == 5
    TransportConfig(max_paths=12, path_idle_timeout=3, path_keep_alive=1).native()
    assert given["max_paths"] == 12
    assert given["path_idle_timeout"] == 3
    assert given["path_keep_alive"] == 1
