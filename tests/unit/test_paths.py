"""Addresses of this machine, addresses of peers, and addresses that stand for something else."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioiroh.address import IpAddr
from aioiroh.net import LocalAddress, UdpSlot
from aioiroh.paths import Remotes, direct_addresses
from aioiroh.paths.remotes import MAX_ADDRESSES, MAX_GONE, REMEMBER_FOR
from aioiroh.quic.mapped import Mapped, is_mapped, mapped_ip

V4, V6 = UdpSlot(0, "0.0.0.0", 4), UdpSlot(1, "::", 6)
LOOPBACK = [LocalAddress("lo", "127.0.0.1", 8, True), LocalAddress("lo", "::1", 128, True)]


def local(*ips: str) -> list[LocalAddress]:
    return [*LOOPBACK, *(LocalAddress("eth0", ip, 24, False) for ip in ips)]


@pytest.mark.parametrize(
    ("interfaces", "told"),
    [
        (local("192.0.2.2"), ["192.0.2.2:4"]),
        (local("192.0.2.2", "2001:db8::2"), ["192.0.2.2:4", "[2001:db8::2]:6"]),
        # As the reference says: a unique-local or link-local address counts only without others.
        (local("192.0.2.2", "fd00::2", "fe80::2"), ["192.0.2.2:4"]),
        (local("fd00::2", "fe80::2"), ["[fd00::2]:6"]),
        (local("169.254.3.4", "2001:db8::2"), ["[2001:db8::2]:6"]),
        (local("169.254.3.4"), ["169.254.3.4:4"]),
        (local("fe80::2"), ["127.0.0.1:4", "[::1]:6"]),
        (local(), ["127.0.0.1:4", "[::1]:6"]),
        ([], []),
    ],
)
def test_what_wildcards_tell(interfaces, told):
    assert [address.text for address in direct_addresses([V4, V6], interfaces)] == told


def test_a_chosen_address_is_told_as_it_is():
    slots = [UdpSlot(0, "127.0.0.5", 7)]
    assert [a.text for a in direct_addresses(slots, local("192.0.2.2"))] == ["127.0.0.5:7"]
    slots.append(V4)
    told = [a.text for a in direct_addresses(slots, local("192.0.2.2"))]
    assert told == ["127.0.0.5:7", "192.0.2.2:4"]
    assert [a.text for a in direct_addresses(slots, LOOPBACK)] == ["127.0.0.5:7"]


def test_two_wildcards_of_one_family():
    slots = [V4, UdpSlot(2, "0.0.0.0", 5)]
    told = [a.text for a in direct_addresses(slots, local("192.0.2.2", "2001:db8::2"))]
    assert told == ["192.0.2.2:4", "192.0.2.2:5"]


@given(st.sampled_from(Mapped), st.binary(min_size=8, max_size=8))
def test_mapped_addresses(kind, host):
    ip = IPv6Address(mapped_ip(kind, host))
    assert is_mapped(ip)
    assert ip.packed[:6].hex() == "fd15070a510b"
    assert ip.packed[6:8] == kind.to_bytes(2, "big")
    assert ip.packed[8:] == host


def test_mapped_addresses_are_told_from_others():
    assert not is_mapped(IPv6Address("fd15:70a:510c::1"))
    with pytest.raises(ValueError, match="8 bytes"):
        mapped_ip(Mapped.RELAY, b"short")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def at(ip: str, port: int) -> IpAddr:
    return IpAddr.from_pair((ip, port))


def test_remotes_are_remembered_for_a_while():
    clock = Clock()
    remotes = Remotes(clock)
    peer = b"p" * 32
    assert remotes.addresses(peer) == ()
    remotes.connected(peer, at("192.0.2.1", 1))
    remotes.connected(peer, at("192.0.2.1", 1))
    remotes.connected(peer, None)
    clock.now += 1e6
    for _ in range(3):
        assert remotes.addresses(peer) == (at("192.0.2.1", 1),)
        remotes.disconnected(peer)
    clock.now += REMEMBER_FOR
    assert remotes.addresses(peer) == (at("192.0.2.1", 1),)
    remotes.connected(peer, at("192.0.2.2", 2))
    assert remotes.addresses(peer) == (at("192.0.2.1", 1), at("192.0.2.2", 2))
    remotes.disconnected(peer)
    clock.now += REMEMBER_FOR + 1
    assert remotes.addresses(peer) == ()
    assert remotes.addresses(peer) == ()


def test_what_is_remembered_is_bounded():
    remotes = Remotes(Clock())
    for n in range(MAX_ADDRESSES + 5):
        remotes.connected(b"many", at("192.0.2.1", n))
    assert [address.port for address in remotes.addresses(b"many")] == list(
        range(5, MAX_ADDRESSES + 5)
    )
    for n in range(MAX_GONE + 10):
        peer = n.to_bytes(32, "big")
        remotes.connected(peer, at("192.0.2.1", 1))
        remotes.disconnected(peer)
    kept = [n for n in range(MAX_GONE + 10) if remotes.addresses(n.to_bytes(32, "big"))]
    assert kept == list(range(10, MAX_GONE + 10))
    assert remotes.addresses(b"many")
