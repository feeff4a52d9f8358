"""Hashes, formats, tickets, hash sequences and collections against the vectors of the wire."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioiroh.address import EndpointAddr, IpAddr
from aioiroh.blobs.collection import decode_metadata
from aioiroh.blobs.hash import BlobFormat, Hash, HashAndFormat
from aioiroh.blobs.hashseq import HashSeq
from aioiroh.blobs.ticket import BlobTicket
from aioiroh.errors import DecodeError, TicketParsingError
from aioiroh.keys import EndpointId

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "vectors" / "blobs.json").read_text("utf-8")
)
hashes = st.binary(min_size=32, max_size=32).map(Hash)


@pytest.mark.parametrize(
    "text",
    ["", "00", "A" * 64, "g" * 64, "0" * 63, "a" * 51, "a" * 53, "é" * 32, "1" * 52, " " * 64],
)
def test_not_a_hash(text: str) -> None:
    with pytest.raises(DecodeError):
        Hash.parse(text)


def test_hash_from_other_things() -> None:
    with pytest.raises(DecodeError):
        Hash(b"short")
    with pytest.raises(TypeError):
        Hash("0" * 64)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        Hash(32)  # type: ignore[arg-type]


@given(hashes, st.sampled_from(BlobFormat))
def test_hash_and_format_round_trip(hash: Hash, format: BlobFormat) -> None:
    value = HashAndFormat(hash, format)
    assert HashAndFormat.parse(str(value)) == value
    assert HashAndFormat.parse(str(value).upper()) == value
    assert HashAndFormat.from_bytes(bytes(value)) == value
    assert len(bytes(value)) == 33


@pytest.mark.parametrize("text", ["", "s", "s" * 65, "ss" + "0" * 63, "0" * 63, "k" + "0" * 64])
def test_not_a_hash_and_format(text: str) -> None:
    with pytest.raises(DecodeError):
        HashAndFormat.parse(text)


def test_unknown_format() -> None:
    with pytest.raises(DecodeError):
        HashAndFormat.from_bytes(bytes(32) + b"\x02")


@pytest.mark.parametrize("vector", VECTORS["tickets"], ids=lambda v: v["text"][-20:])
def test_ticket_vectors(vector: dict[str, Any]) -> None:
    addr = EndpointAddr(
        EndpointId.parse(VECTORS["ticket_endpoint"]),
        [IpAddr.parse(text) for text in vector["addresses"]],
    )
    if vector["relay"]:
        addr = addr.with_relay(vector["relay"])
    ticket = BlobTicket(addr, Hash.parse(VECTORS["ticket_hash"]), BlobFormat(vector["format"]))
    assert bytes(ticket).hex() == vector["body"]
    assert str(ticket) == vector["text"]
    parsed = BlobTicket.parse(vector["text"])
    assert parsed == ticket and hash(parsed) == hash(ticket)
    assert BlobTicket.parse("blob" + vector["text"][4:].upper()) == ticket
    assert parsed.content == HashAndFormat(ticket.hash, ticket.format)
    assert EndpointAddr.coerce(vector["text"]) == addr


@pytest.mark.parametrize("at", range(0, 150, 7))
def test_cut_tickets(at: int) -> None:
    text = VECTORS["tickets"][2]["text"]
    with pytest.raises(TicketParsingError):
        BlobTicket.parse(text[: min(at, len(text) - 8)])


def test_damaged_tickets() -> None:
    body = bytes.fromhex(VECTORS["tickets"][0]["body"])
    for changed in (
        b"\x01" + body[1:],
        body[:33] + b"\x02" + body[34:],
        body[:35] + b"\x02" + body[36:],
    ):
        with pytest.raises(TicketParsingError):
            BlobTicket.from_bytes(changed)
    assert BlobTicket.from_bytes(body + b"more") == BlobTicket.from_bytes(body)


@given(st.binary(max_size=120))
def test_ticket_decoder_is_total(data: bytes) -> None:
    with contextlib.suppress(TicketParsingError):
        BlobTicket.from_bytes(data)


@given(st.lists(hashes, max_size=6))
def test_hash_seq(values: list[Hash]) -> None:
    sequence = HashSeq(values)
    assert list(sequence) == values and len(sequence) == len(values)
    assert HashSeq.from_bytes(bytes(sequence)) == sequence
    assert [sequence[i] for i in range(len(values))] == values
    for outside in (-1, len(values)):
        with pytest.raises(IndexError):
            sequence[outside]
    with pytest.raises(DecodeError):
        HashSeq.from_bytes(bytes(sequence) + b"x")


def test_hash_seq_is_bounded() -> None:
    with pytest.raises(DecodeError):
        HashSeq.from_bytes(bytes(32 * 1024 * 1024 + 32))


@given(st.binary(max_size=60))
def test_metadata_decoder_is_total(data: bytes) -> None:
    for attempt in (data, b"CollectionV0." + data):
        with contextlib.suppress(DecodeError):
            decode_metadata(attempt)
