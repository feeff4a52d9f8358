"""The real network: interfaces, clock, chance."""

from __future__ import annotations

import ipaddress

from aioiroh.net import SystemNetwork


def test_interface_addresses():
    addresses = SystemNetwork().local_addresses()
    loopback = [address for address in addresses if address.ip == "127.0.0.1"]
    assert [(address.prefix, address.is_loopback) for address in loopback] == [(8, True)]
    for address in addresses:
        ip = ipaddress.ip_address(address.ip)
        assert 0 < address.prefix <= ip.max_prefixlen
        assert address.is_loopback == ip.is_loopback
        assert bool(address.scope) <= address.is_link_local


def test_clock_and_chance():
    network = SystemNetwork()
    assert network.monotonic() <= network.monotonic()
    assert network.wall_clock() > 1.7e9
    assert network.engine_clock is None
    assert len(network.secret(32)) == 32
    assert 0 <= network.random.random() < 1
