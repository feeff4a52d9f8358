"""Addresses: text and binary forms, order, and decoders that take any bytes."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioiroh.address import (
    MAX_ADDRS,
    CustomAddr,
    EndpointAddr,
    IpAddr,
    RelayAddr,
    RelayConfig,
    RelayMap,
    RelayUrl,
    read_socket_addr,
    write_socket_addr,
)
from aioiroh.codec.postcard import Reader, Writer
from aioiroh.errors import AddressParsingError, DecodeError
from aioiroh.keys import SecretKey
from aioiroh.ticket import EndpointTicket

VECTORS = json.loads((Path(__file__).parent / "vectors" / "addresses.json").read_text())
ID = SecretKey(bytes(range(32))).public


def parse_display(text):
    kind, _, rest = text.partition(":")
    if kind == "relay":
        return RelayAddr(RelayUrl(rest))
    return {"ip": IpAddr, "custom": CustomAddr}[kind].parse(rest)


# --- relay URLs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("given_url", "stored"), VECTORS["relay_urls"].items())
def test_relay_urls_are_normalised(given_url, stored):
    url = RelayUrl(given_url)
    assert url == stored
    assert RelayUrl(url) is url
    assert repr(url) == f"RelayUrl({stored!r})"
    assert pickle.loads(pickle.dumps(url)) == url


@pytest.mark.parametrize("text", VECTORS["not_relay_urls"])
def test_not_relay_urls(text):
    with pytest.raises(AddressParsingError):
        RelayUrl(text)


def test_root_dot_is_significant():
    assert RelayUrl("https://relay.example/") != RelayUrl("https://relay.example./")


def test_relay_map():
    relays = RelayMap(["https://b.example", RelayConfig(RelayUrl("https://a.example"), None)])
    assert relays.urls == ("https://a.example/", "https://b.example/")
    assert [relay.quic_port for relay in relays] == [None, 7842]
    assert "https://B.example:443" in relays and len(relays) == 2
    replaced = relays.insert(RelayConfig(RelayUrl("https://a.example"), 0, "secret"))
    assert replaced == RelayConfig(RelayUrl("https://a.example"), None)
    entry = relays.get("https://a.example")
    assert entry is not None and entry.quic_port == 7842 and entry.auth_token == "secret"
    assert "secret" not in repr(entry) + repr(relays)
    assert relays.remove("https://a.example") == entry
    assert relays.remove("https://a.example") is None
    assert relays == RelayMap(["https://b.example"]) != RelayMap()
    with pytest.raises(TypeError):
        hash(relays)


# --- transport addresses --------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS["socket_addrs"], ids=lambda v: v["text"])
def test_socket_addresses(vector):
    addr = IpAddr.parse(vector["text"])
    assert addr.text == vector["text"]
    assert str(addr) == f"ip:{vector['text']}"
    writer = Writer()
    write_socket_addr(writer, addr)
    assert writer.finish().hex() == vector["wire"]
    assert read_socket_addr(Reader(writer.finish())) == addr
    assert pickle.loads(pickle.dumps(addr)) == copy.copy(addr) == addr


@pytest.mark.parametrize("text", VECTORS["not_socket_addrs"])
def test_not_socket_addresses(text):
    with pytest.raises(AddressParsingError):
        IpAddr.parse(text)


def test_pairs_for_the_engine_are_canonical():
    assert IpAddr.from_pair(("127.0.0.1", 1)).pair == ("127.0.0.1", 1)
    assert IpAddr.from_pair(("0:0::1", 1)).pair == ("::1", 1)
    assert IpAddr.from_pair(("::ffff:1.2.3.4", 1)).pair == ("1.2.3.4", 1)
    with pytest.raises(AddressParsingError):
        IpAddr.from_pair(("localhost", 1))
    with pytest.raises(AddressParsingError):
        IpAddr.from_pair(("::1", -1))


def test_scopes_stay_on_this_machine():
    addr = IpAddr.parse("[fe80::1%eth0]:5")
    assert addr.text == "[fe80::1%eth0]:5"
    assert addr != IpAddr.parse("[fe80::1]:5")
    assert EndpointAddr.decode(EndpointAddr(ID, [addr]).encode()).addrs == (
        IpAddr.parse("[fe80::1]:5"),
    )


@pytest.mark.parametrize("vector", VECTORS["custom_addrs"], ids=lambda v: v["text"])
def test_custom_addresses(vector):
    addr = CustomAddr.parse(vector["text"])
    assert addr.text == vector["text"]
    assert str(addr) == f"custom:{vector['text']}"
    assert bytes(addr).hex() == vector["raw"]
    assert CustomAddr.from_bytes(bytes(addr)) == addr
    wire = EndpointAddr(ID, [addr]).encode()
    assert wire[32:].hex() == "0102" + vector["wire"]
    assert EndpointAddr.decode(wire).addrs == (addr,)


@pytest.mark.parametrize("text", VECTORS["not_custom_addrs"])
def test_not_custom_addresses(text):
    with pytest.raises(AddressParsingError):
        CustomAddr.parse(text)


def test_custom_address_ids():
    assert CustomAddr.parse("0F_") == CustomAddr.parse("f_") == CustomAddr(15, b"")
    with pytest.raises(AddressParsingError):
        CustomAddr.from_bytes(bytes(7))
    for id in (-1, 2**64):
        with pytest.raises(AddressParsingError):
            CustomAddr(id, b"")


# --- endpoint addresses ---------------------------------------------------------------------------


def test_order():
    addrs = [parse_display(text) for text in VECTORS["order"]]
    for shuffled in (addrs[::-1], addrs[5:] + addrs[:5], addrs * 2):
        assert EndpointAddr(ID, shuffled).addrs == tuple(addrs)
    assert [str(addr) for addr in addrs] == VECTORS["order"]


def test_endpoint_addresses_are_values():
    addr = EndpointAddr(ID).with_ip("10.0.0.1", 4).with_relay("https://r.example")
    assert addr == EndpointAddr(ID, [RelayAddr(RelayUrl("https://r.example/")), *addr.ip_addrs])
    assert addr.relay_urls == ("https://r.example/",)
    assert addr.ip_addrs == (IpAddr(IPv4Address("10.0.0.1"), 4),)
    assert addr != EndpointAddr(ID) and addr != ID
    assert pickle.loads(pickle.dumps(addr)) == copy.deepcopy(addr) == addr
    assert len({addr, copy.copy(addr)}) == 1
    assert "ip:10.0.0.1:4" in repr(addr)
    with pytest.raises(AttributeError):
        addr.id = ID


def test_coerce_takes_what_people_dial():
    addr = EndpointAddr(ID).with_ip("10.0.0.1", 4)
    ticket = EndpointTicket(addr)
    assert EndpointAddr.coerce(addr) is addr
    assert EndpointAddr.coerce(ID) == EndpointAddr(ID)
    assert EndpointAddr.coerce(str(ID)) == EndpointAddr(ID)
    assert EndpointAddr.coerce(ticket) == EndpointAddr.coerce(str(ticket)) == addr
    for thing in (None, 5, b"x" * 32, object()):
        with pytest.raises(TypeError):
            EndpointAddr.coerce(thing)
    for text in ("", "endpointxx", "nonsense"):
        with pytest.raises(DecodeError):
            EndpointAddr.coerce(text)


def test_addresses_are_bounded():
    writer = Writer()
    writer.raw(bytes(ID))
    writer.count(MAX_ADDRS + 1)
    for port in range(MAX_ADDRS + 1):
        writer.variant(1)
        write_socket_addr(writer, IpAddr(IPv4Address(1), port))
    with pytest.raises(DecodeError):
        EndpointAddr.decode(writer.finish())


IPS = st.integers(0, 2**32 - 1).map(IPv4Address) | st.integers(0, 2**128 - 1).map(IPv6Address)
ADDRS = st.one_of(
    st.builds(
        lambda host, path: RelayAddr(RelayUrl(f"https://{host}.example/{path}")),
        st.text("abcxyz", min_size=1, max_size=8),
        st.text(max_size=8),
    ),
    st.builds(IpAddr, IPS, st.integers(0, 65535)),
    st.builds(CustomAddr, st.integers(0, 2**64 - 1), st.binary(max_size=20)),
)
ENDPOINT_ADDRS = st.builds(EndpointAddr, st.just(ID), st.lists(ADDRS, max_size=6))


@given(ENDPOINT_ADDRS)
def test_round_trips(addr):
    assert EndpointAddr.decode(addr.encode()) == addr
    assert EndpointAddr.decode(addr.encode() + b"more") == addr
    for part in addr.addrs:
        assert parse_display(str(part)) == part


@given(ENDPOINT_ADDRS, st.data())
def test_decoding_is_total(addr, data):
    wire = bytearray(addr.encode())
    for _ in range(data.draw(st.integers(0, 4))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    del wire[data.draw(st.integers(0, len(wire))) :]
    try:
        decoded = EndpointAddr.decode(wire)
    except DecodeError:
        return
    assert EndpointAddr.decode(decoded.encode()) == decoded


@given(st.binary(max_size=60))
def test_decoding_noise_is_total(noise):
    for wire in (noise, bytes(ID) + noise):
        with contextlib.suppress(DecodeError):
            EndpointAddr.decode(wire)


@given(st.text(max_size=40))
def test_parsing_text_is_total(text):
    for parse in (IpAddr.parse, CustomAddr.parse, RelayUrl):
        try:
            parse(text)
        except DecodeError as error:
            assert type(error) is AddressParsingError
