"""Tickets against upstream's vectors."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioiroh.address import CustomAddr, EndpointAddr, IpAddr, RelayAddr, RelayUrl
from aioiroh.codec import base32
from aioiroh.errors import AddressParsingError, DecodeError, KeyParsingError, TicketParsingError
from aioiroh.keys import EndpointId
from aioiroh.ticket import EndpointTicket, Ticket, parse_dialable

VECTORS = json.loads((Path(__file__).parent / "vectors" / "tickets.json").read_text())
ID = EndpointId.parse(VECTORS["id"])


def addr_of(vector, id=ID):
    addrs = []
    for text in vector["addrs"]:
        kind, _, rest = text.partition(":")
        if kind == "relay":
            addrs.append(RelayAddr(RelayUrl(rest)))
        else:
            addrs.append({"ip": IpAddr, "custom": CustomAddr}[kind].parse(rest))
    return EndpointAddr(id, addrs)


@pytest.mark.parametrize("vector", VECTORS["endpoint_tickets"], ids=lambda v: v["name"])
def test_endpoint_tickets(vector):
    ticket = EndpointTicket(addr_of(vector))
    assert bytes(ticket).hex() == vector["hex"]
    assert str(ticket) == vector["text"]
    assert EndpointTicket.parse(vector["text"]) == ticket
    assert EndpointTicket.from_bytes(bytes.fromhex(vector["hex"])).addr == ticket.addr
    assert EndpointTicket.parse("endpoint" + vector["text"][8:].upper()) == ticket


@pytest.mark.parametrize("vector", VECTORS["other_endpoint_tickets"], ids=lambda v: v["name"])
def test_other_endpoint_tickets(vector):
    ticket = EndpointTicket(addr_of(vector, EndpointId.parse(vector["id"])))
    assert str(ticket) == vector["text"]
    assert EndpointTicket.parse(vector["text"]) == ticket


@pytest.mark.parametrize("wire", VECTORS["damaged"].values(), ids=VECTORS["damaged"])
def test_damaged_tickets(wire):
    data = bytes.fromhex(wire)
    with pytest.raises(TicketParsingError):
        EndpointTicket.from_bytes(data)
    with pytest.raises(TicketParsingError):
        EndpointTicket.parse("endpoint" + base32.encode(data))


def test_the_cause_of_damage_is_kept():
    with pytest.raises(TicketParsingError) as caught:
        EndpointTicket.from_bytes(bytes.fromhex(VECTORS["damaged"]["bad key"]))
    assert isinstance(caught.value.__cause__, KeyParsingError)
    with pytest.raises(TicketParsingError) as caught:
        EndpointTicket.from_bytes(bytes.fromhex(VECTORS["damaged"]["bad URL"]))
    assert isinstance(caught.value.__cause__, AddressParsingError)


@pytest.mark.parametrize("vector", VECTORS["tolerated"], ids=lambda v: v["name"])
def test_tolerated_tickets(vector):
    data = bytes.fromhex(vector["hex"])
    assert EndpointTicket.from_bytes(data).addr == addr_of(vector)
    assert EndpointTicket.parse("endpoint" + base32.encode(data)).addr == addr_of(vector)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "Endpoint" + text[8:],
        lambda text: "node" + text[8:],
        lambda text: "blob" + text[8:],
        lambda text: text[8:],
        lambda text: " " + text,
        lambda text: text + "\n",
        lambda text: text + "=",
        lambda text: text[:-1] + "b",
        lambda text: text[:-1],
        lambda text: "",
    ],
)
def test_damaged_text(change):
    with pytest.raises(TicketParsingError):
        EndpointTicket.parse(change(VECTORS["endpoint_tickets"][0]["text"]))


def test_tickets_are_values():
    ticket = EndpointTicket(EndpointAddr(ID).with_ip("10.0.0.1", 4))
    assert pickle.loads(pickle.dumps(ticket)) == copy.copy(ticket) == ticket
    assert len({ticket, EndpointTicket(ticket.addr)}) == 1
    assert ticket != EndpointTicket(EndpointAddr(ID)) and ticket != ticket.addr
    assert "10.0.0.1" in repr(ticket)


def test_a_subclass_is_a_new_kind_everywhere():
    class Note(Ticket):
        KIND = "testnote"

        def __init__(self, addr, text):
            self._addr, self.text = addr, text

        @property
        def addr(self):
            return self._addr

        def write(self, writer):
            self._addr.write(writer)
            writer.string(self.text)

        @classmethod
        def read(cls, reader):
            return cls(EndpointAddr.read(reader), reader.string(100))

    note = Note(EndpointAddr(ID), "hello")
    assert Note.parse(str(note)).text == "hello"
    assert parse_dialable(str(note)) == note.addr
    with pytest.raises(TicketParsingError, match="kind 'testnote'"):
        EndpointTicket.parse(str(note))


def test_ids_that_start_like_a_ticket_are_ids():
    # Look for a point whose base32 form begins with "endpoint".
    prefix = base32.decode("endpoint")
    raw = next(
        raw for raw in (prefix + bytes(25) + bytes([0, n]) for n in range(256)) if _is_id(raw)
    )
    text = base32.encode(raw)
    assert text.startswith("endpoint")
    assert parse_dialable(text).id == EndpointId(raw)


def _is_id(raw):
    try:
        EndpointId(raw)
    except KeyParsingError:
        return False
    return True


@given(st.binary(max_size=80))
def test_reading_noise_is_total(noise):
    for data in (noise, b"\0" + noise, b"\0" + bytes(ID) + noise):
        try:
            ticket = EndpointTicket.from_bytes(data)
        except TicketParsingError:
            continue
        assert EndpointTicket.parse(str(ticket)) == ticket


@given(st.text(max_size=80))
def test_parsing_text_is_total(text):
    for candidate in (text, "endpoint" + text):
        for parse in (EndpointTicket.parse, parse_dialable):
            try:
                parse(candidate)
            except DecodeError as error:
                assert isinstance(error, TicketParsingError | KeyParsingError)
