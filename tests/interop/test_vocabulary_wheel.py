"""Keys, relay URLs and tickets: upstream's own Python package is asked the same questions."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import iroh
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aioiroh.address import EndpointAddr, IpAddr, RelayAddr, RelayUrl
from aioiroh.codec import base32
from aioiroh.errors import AddressParsingError, KeyParsingError, TicketParsingError
from aioiroh.keys import EndpointId, SecretKey
from aioiroh.ticket import EndpointTicket

VECTORS = Path(__file__).parent.parent / "unit" / "vectors"
KEYS = json.loads((VECTORS / "keys.json").read_text())
TICKETS = json.loads((VECTORS / "tickets.json").read_text())
ADDRESSES = json.loads((VECTORS / "addresses.json").read_text())
ID = EndpointId.parse(TICKETS["id"])

# The wheel crosses into Rust and back for every question.
asked = settings(max_examples=60, deadline=None)


def outcome(ask, refusal):
    """What `ask()` gives, or None if it refuses."""
    try:
        return ask()
    except refusal:
        return None


def same_id(text):
    ours = outcome(lambda: bytes(EndpointId.parse(text)), KeyParsingError)
    theirs = outcome(lambda: iroh.EndpointId.from_string(text).to_bytes(), iroh.IrohError)
    assert ours == theirs
    return ours


@pytest.mark.parametrize("text", KEYS["accepted_text"].values(), ids=KEYS["accepted_text"])
def test_accepted_ids(text):
    assert same_id(text) is not None


@pytest.mark.parametrize("text", KEYS["rejected_text"].values(), ids=KEYS["rejected_text"])
def test_rejected_ids(text):
    assert same_id(text) is None


@asked
@given(st.binary(min_size=30, max_size=34) | st.binary(min_size=32, max_size=32))
def test_points(raw):
    ours = outcome(lambda: str(EndpointId(raw)), KeyParsingError)
    theirs = outcome(lambda: str(iroh.EndpointId.from_bytes(raw)), iroh.IrohError)
    assert ours == theirs
    for text in (raw.hex(), base32.encode(raw), base32.encode(raw).upper()):
        same_id(text)


@asked
@given(st.text("abcdefghijklmnopqrstuvwxyz234567ABCZ019= ", min_size=50, max_size=66))
def test_id_text(text):
    same_id(text)


@asked
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100))
def test_signatures(seed, message):
    ours, theirs = SecretKey(seed), iroh.SecretKey.from_bytes(seed)
    assert bytes(ours.public) == theirs.public().to_bytes()
    signature = ours.sign(message)
    assert bytes(signature) == theirs.sign(message).to_bytes()
    theirs.public().verify(message, iroh.Signature.from_bytes(bytes(signature)))


@asked
@given(
    st.sampled_from([*KEYS["accepted_ids"].values(), ID.hex()]),
    st.sampled_from([bytes(32), b"\x01" + bytes(31), bytes(ID)])
    | st.binary(min_size=32, max_size=32),
    st.sampled_from([bytes(32), b"\x01" + bytes(31), b"\xff" * 32]),
)
def test_strict_verification(id, commitment, scalar):
    signature = commitment + scalar
    theirs = iroh.EndpointId.from_bytes(bytes.fromhex(id))

    def ask():
        theirs.verify(b"hello", iroh.Signature.from_bytes(signature))
        return True

    ours = EndpointId.parse(id).verify(b"hello", signature)
    assert ours == bool(outcome(ask, iroh.IrohError))


def same_url(text):
    ours = outcome(lambda: str(RelayUrl(text)), AddressParsingError)
    theirs = outcome(lambda: iroh.RelayMap.from_urls([text]).urls()[0], iroh.IrohError)
    assert ours == theirs


@pytest.mark.parametrize("url", [*ADDRESSES["relay_urls"], *ADDRESSES["not_relay_urls"]])
def test_relay_urls(url):
    same_url(url)


@asked
@given(
    st.builds(
        "{}{}{}{}".format,
        st.sampled_from(["https://", "http:", "HTTPS:/", "wss://", "foo:", ""]),
        st.text(max_size=10) | st.sampled_from(["EXAMPLE.com.", "1.2", "[::1]", "a b", "xn--a"]),
        st.sampled_from(["", ":443", ":80", ":0443", ":99999", ":"]),
        st.sampled_from(["", "/", "/a/../b", "?q", "#f"]) | st.text(max_size=5),
    )
)
def test_strange_relay_urls(url):
    same_url(url)


# The wheel shows one relay and the IP addresses of an address.
ADDRS = st.lists(
    st.builds(
        IpAddr,
        st.integers(0, 2**32 - 1).map(IPv4Address) | st.integers(0, 2**128 - 1).map(IPv6Address),
        st.integers(0, 65535),
    ),
    max_size=5,
).flatmap(
    lambda ips: st.sampled_from([ips, [RelayAddr(RelayUrl("https://relay.example./x?y")), *ips]])
)


@asked
@given(ADDRS)
def test_tickets(addrs):
    addr = EndpointAddr(ID, addrs)
    ours = str(EndpointTicket(addr))
    relay = addr.relay_urls[0] if addr.relay_urls else None
    ips = [ip.text for ip in addrs if isinstance(ip, IpAddr)]
    theirs = iroh.EndpointAddr(iroh.EndpointId.from_bytes(bytes(ID)), relay, ips)
    assert ours == str(iroh.EndpointTicket.from_addr(theirs))
    read = iroh.EndpointTicket.from_string(ours).endpoint_addr()
    assert read.relay_url() == relay
    assert read.direct_addresses() == [ip.text for ip in addr.ip_addrs]


def same_ticket(text):
    ours = outcome(lambda: EndpointTicket.parse(text).addr, TicketParsingError)
    theirs = outcome(lambda: iroh.EndpointTicket.from_string(text).endpoint_addr(), iroh.IrohError)
    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None:
        assert bytes(ours.id) == theirs.id().to_bytes()
        assert [ip.text for ip in ours.ip_addrs] == theirs.direct_addresses()
    return ours


@pytest.mark.parametrize("wire", TICKETS["damaged"].values(), ids=TICKETS["damaged"])
def test_damaged_tickets(wire):
    assert same_ticket("endpoint" + base32.encode(bytes.fromhex(wire))) is None


@pytest.mark.parametrize("vector", TICKETS["tolerated"], ids=lambda v: v["name"])
def test_tolerated_tickets(vector):
    assert same_ticket("endpoint" + base32.encode(bytes.fromhex(vector["hex"]))) is not None


@pytest.mark.parametrize(
    "change",
    [
        str.upper,
        lambda text: "Endpoint" + text[8:],
        lambda text: "endpoint" + text[8:].upper(),
        lambda text: "node" + text[8:],
        lambda text: text + "\n",
        lambda text: text + "=",
        lambda text: text[:-1] + "b",
        lambda text: text[:-1],
        lambda text: text.replace("a", "\u212a", 1),
        lambda text: "",
    ],
)
def test_damaged_ticket_text(change):
    same_ticket(change(TICKETS["endpoint_tickets"][0]["text"]))


@asked
@given(st.data())
def test_mutated_tickets(data):
    vector = data.draw(st.sampled_from(TICKETS["endpoint_tickets"]))
    wire = bytearray.fromhex(vector["hex"])
    for _ in range(data.draw(st.integers(1, 3))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    del wire[data.draw(st.integers(len(wire) // 2, len(wire))) :]
    same_ticket("endpoint" + base32.encode(bytes(wire)))
