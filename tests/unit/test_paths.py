"""Addresses of this machine, addresses of peers, and addresses that stand for something else."""

from __future__ import annotations

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioiroh.address import IpAddr, RelayAddr
from aioiroh.net import LocalAddress, UdpSlot
from aioiroh.paths import Remotes, direct_addresses
from aioiroh.paths.remotes import MAX_ADDRESSES, MAX_GONE, MAX_USED, PRUNE_FROM, REMEMBER_FOR
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


def known(remotes: Remotes, peer: bytes) -> set[IpAddr]:
    info = remotes.info(peer)
    assert info is not None
    return {address.addr for address in info.addresses}


def at(ip: str, port: int) -> IpAddr:
    return IpAddr.from_pair((ip, port))


def test_remotes_are_remembered_for_a_while():
    clock = Clock()
    remotes = Remotes(clock)
    peer = b"p" * 32
    assert remotes.addresses(peer) == () and remotes.info(peer) is None
    one, two = at("192.0.2.1", 1), at("192.0.2.2", 2)
    for _ in range(2):
        remotes.connected(peer)
        remotes.path_opened(peer, one)
    clock.now += 1e6
    for _ in range(2):
        assert remotes.addresses(peer) == (one,)
        remotes.path_closed(peer, one)
        remotes.disconnected(peer)
    clock.now += REMEMBER_FOR
    assert remotes.addresses(peer) == (one,)
    remotes.connected(peer)
    remotes.path_opened(peer, two)
    # What is in use first.
    assert remotes.addresses(peer) == (two, one)
    remotes.path_closed(peer, two)
    remotes.disconnected(peer)
    clock.now += REMEMBER_FOR + 1
    assert remotes.addresses(peer) == ()
    assert remotes.info(peer) is None


def test_what_is_known_of_a_remote():
    clock = Clock()
    remotes = Remotes(clock)
    peer = b"p" * 32
    told, found = at("192.0.2.1", 1), at("192.0.2.2", 2)
    remotes.told(peer, [told, RelayAddr("https://r.example/")], "application")
    remotes.told(peer, [told], "lookup memory")
    remotes.connected(peer)
    clock.now += 1
    remotes.path_opened(peer, found)
    remotes.path_opened(peer, told)
    remotes.path_closed(peer, told)
    clock.now += 2
    info = remotes.info(peer)
    assert info is not None
    assert [(str(a.addr), a.source, a.is_active, a.last_used) for a in info.addresses] == [
        ("ip:192.0.2.2:2", "peer", True, 0.0),
        ("ip:192.0.2.1:1", "application", False, 2.0),
        ("relay:https://r.example/", "application", False, None),
    ]


def test_remotes_that_are_remembered_are_bounded():
    remotes = Remotes(Clock())
    remotes.connected(b"many")
    remotes.path_opened(b"many", at("192.0.2.1", 1))
    for n in range(MAX_GONE + 10):
        peer = n.to_bytes(32, "big")
        remotes.told(peer, [at("192.0.2.1", 1)], "application")
        if n % 2:
            remotes.connected(peer)
            remotes.disconnected(peer)
    kept = [n for n in range(MAX_GONE + 10) if remotes.addresses(n.to_bytes(32, "big"))]
    assert kept == list(range(10, MAX_GONE + 10))
    assert remotes.addresses(b"many")


def test_which_addresses_are_forgotten():
    clock = Clock()
    remotes = Remotes(clock)
    peer = b"p" * 32
    remotes.connected(peer)
    used = [at("192.0.2.1", n) for n in range(1, PRUNE_FROM // 2 + 1)]
    for address in used:
        clock.now += 1
        remotes.path_opened(peer, address)
        remotes.path_closed(peer, address)
    failed = [at("192.0.2.2", n) for n in range(1, PRUNE_FROM // 2 + 1)]
    remotes.told(peer, failed, "application")
    remotes.failed(peer, failed)
    assert known(remotes, peer) == {*used, *failed}
    assert set(remotes.addresses(peer)) == set(used)
    new = at("192.0.2.3", 1)
    remotes.told(peer, [new], "application")
    assert known(remotes, peer) == {*used[-MAX_USED:], new}


@given(st.lists(st.tuples(st.sampled_from(["told", "open", "close", "fail"]), st.integers(1, 400))))
def test_addresses_are_bounded_and_open_ones_stay(steps: list[tuple[str, int]]):
    clock = Clock()
    remotes = Remotes(clock)
    peer = b"p" * 32
    remotes.connected(peer)
    open: dict[IpAddr, int] = {}
    for what, port in steps:
        clock.now += 1
        address = at("192.0.2.1", port)
        match what:
            case "told":
                remotes.told(peer, [at("192.0.2.1", port + n) for n in range(40)], "application")
            case "open":
                remotes.path_opened(peer, address)
                open[address] = open.get(address, 0) + 1
            case "close" if open.get(address):
                remotes.path_closed(peer, address)
                open[address] -= 1
            case "fail":
                remotes.failed(peer, [address])
    all = known(remotes, peer)
    assert len(all) <= MAX_ADDRESSES
    if len(all) < MAX_ADDRESSES:
        assert {address for address, count in open.items() if count} <= all
