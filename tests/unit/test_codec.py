"""Vectors, round trips and fuzzing of the shared encodings."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioiroh.codec import base32, zbase32
from aioiroh.codec.postcard import Reader, Writer
from aioiroh.errors import DecodeError

CODECS = {
    "base32": (base32.encode, base32.decode),
    "base32hex": (base32.encode_hex, base32.decode_hex),
    "z-base-32": (zbase32.encode, zbase32.decode),
}
each_codec = pytest.mark.parametrize(("encode", "decode"), CODECS.values(), ids=CODECS)


# --- base 32 ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plain", "text", "hex_text"),
    [  # RFC 4648 section 10, without padding and in lowercase
        (b"", "", ""),
        (b"f", "my", "co"),
        (b"fo", "mzxq", "cpng"),
        (b"foo", "mzxw6", "cpnmu"),
        (b"foob", "mzxw6yq", "cpnmuog"),
        (b"fooba", "mzxw6ytb", "cpnmuoj1"),
        (b"foobar", "mzxw6ytboi", "cpnmuoj1e8"),
    ],
)
def test_base32_vectors(plain, text, hex_text):
    assert base32.encode(plain) == text
    assert base32.decode(text) == base32.decode(text.upper()) == plain
    assert base32.encode_hex(plain) == hex_text
    assert base32.decode_hex(hex_text) == plain


@each_codec
@given(data=st.binary(max_size=200))
def test_base32_round_trip(encode, decode, data):
    assert decode(encode(data)) == data


@each_codec
@given(text=st.text(max_size=80) | st.text("abcdefghijklmnopqrstuvwxyz0123456789", max_size=80))
def test_base32_takes_only_what_it_would_write(encode, decode, text):
    try:
        data = decode(text)
    except DecodeError:
        return
    assert encode(data) == (text.lower() if decode is base32.decode else text)


@pytest.mark.parametrize("text", ["a", "abc", "abcdef", "my======", "m y", "mz", "m1", "\u212ay"])
def test_base32_rejects(text):
    with pytest.raises(DecodeError):
        base32.decode(text)


@pytest.mark.parametrize("text", ["CO", "co======", "wo", "cp"])
def test_base32hex_rejects(text):
    with pytest.raises(DecodeError):
        base32.decode_hex(text)


@pytest.mark.parametrize("text", ["YY", "yb", "l0", "vv"])
def test_zbase32_rejects(text):
    with pytest.raises(DecodeError):
        zbase32.decode(text)


def test_base32_agrees_with_the_standard_library():
    data = bytes(range(256))
    assert base32.encode(data).upper() == base64.b32encode(data).decode().rstrip("=")
    assert base32.encode_hex(data).upper() == base64.b32hexencode(data).decode().rstrip("=")


# --- postcard -----------------------------------------------------------------------------------

UNSIGNED = {"u8": 8, "u16": 16, "u32": 32, "u64": 64}


@pytest.mark.parametrize(
    ("kind", "value", "wire"),
    [
        ("u8", 255, "ff"),
        ("u16", 0, "00"),
        ("u16", 127, "7f"),
        ("u16", 128, "8001"),
        ("u16", 1024, "8008"),
        ("u16", 65535, "ffff03"),
        ("u32", 2**32 - 1, "ffffffff0f"),
        ("u64", 2**64 - 1, "ffffffffffffffffff01"),
    ],
)
def test_numbers(kind, value, wire):
    writer = Writer()
    getattr(writer, kind)(value)
    assert writer.finish().hex() == wire
    assert getattr(Reader(bytes.fromhex(wire)), kind)() == value


@pytest.mark.parametrize(
    ("kind", "wire", "value"),
    [("u16", "808800", 1024), ("u32", "8080808000", 0), ("u64", "ff808080808080808000", 127)],
)
def test_longer_spellings_of_numbers_are_read(kind, wire, value):
    reader = Reader(bytes.fromhex(wire))
    assert getattr(reader, kind)() == value
    reader.end()


@pytest.mark.parametrize(
    ("kind", "wire"),
    [
        ("u16", "ffff04"),
        ("u16", "80808000"),
        ("u16", "80"),
        ("u16", ""),
        ("u32", "ffffffff10"),
        ("u32", "808080808000"),
        ("u64", "ffffffffffffffffff02"),
        ("u64", "8080808080808080808000"),
        ("u8", ""),
    ],
)
def test_bad_numbers_are_rejected(kind, wire):
    reader = Reader(bytes.fromhex(wire))
    with pytest.raises(DecodeError):
        getattr(reader, kind)()
    assert reader.position == 0


@pytest.mark.parametrize("kind", UNSIGNED)
def test_numbers_out_of_range_are_not_written(kind):
    for value in (-1, 1 << UNSIGNED[kind]):
        with pytest.raises(ValueError):
            getattr(Writer(), kind)(value)


FIELDS = st.lists(
    st.one_of(
        *(
            st.tuples(st.just(kind), st.integers(0, (1 << bits) - 1))
            for kind, bits in UNSIGNED.items()
        ),
        st.tuples(st.just("boolean"), st.booleans()),
        st.tuples(st.just("option"), st.booleans()),
        st.tuples(st.just("byte_string"), st.binary(max_size=40)),
        st.tuples(st.just("string"), st.text(max_size=40)),
    ),
    max_size=12,
)
LIMIT = 1000


def read_field(reader, kind):
    if kind in {"byte_string", "string"}:
        return getattr(reader, kind)(LIMIT)
    return getattr(reader, kind)()


def write_fields(fields):
    writer = Writer()
    for kind, value in fields:
        getattr(writer, kind)(value)
    assert len(writer) == len(writer.finish())
    return writer.finish()


@given(FIELDS)
def test_fields_round_trip(fields):
    reader = Reader(memoryview(write_fields(fields)))
    assert [(kind, read_field(reader, kind)) for kind, _ in fields] == fields
    reader.end()
    assert reader.rest() == b""


@given(FIELDS, st.data())
def test_reading_is_total(fields, data):
    wire = bytearray(write_fields(fields))
    for _ in range(data.draw(st.integers(0, 3))):
        if wire:
            wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    reader = Reader(wire[: data.draw(st.integers(0, len(wire)))])
    try:
        for kind, _ in fields:
            before = reader.position
            read_field(reader, kind)
            assert reader.position > before
    except DecodeError:
        assert reader.position <= len(wire)


@given(st.binary(max_size=30), st.lists(st.sampled_from([*UNSIGNED, "string", "byte_string"])))
def test_reading_noise_is_total(noise, kinds):
    reader = Reader(noise)
    try:
        for kind in kinds:
            read_field(reader, kind)
    except DecodeError:
        pass


def test_lengths_are_checked_before_memory_is_taken():
    huge = bytes.fromhex("ffffffffffffffffff01")
    for read in (
        lambda r: r.byte_string(2**64),
        lambda r: r.string(2**64),
        lambda r: r.count(2**64),
    ):
        with pytest.raises(DecodeError):
            read(Reader(huge))
    with pytest.raises(DecodeError, match="at most 3"):
        Reader(b"\x04abcd").byte_string(3)
    with pytest.raises(DecodeError, match="cannot fit"):
        Reader(b"\x02abc").count(10, size=2)
    assert Reader(b"\x02abcd").count(10, size=2) == 2


def test_enums_booleans_and_ends():
    assert Reader(b"\x01").variant(2) == 1
    assert Reader(b"\x81\x00").variant(2) == 1
    for data, read in (
        (b"\x02", lambda r: r.variant(2)),
        (b"\x02", Reader.boolean),
        (b"\xff", Reader.option),
        (b"\x01", Reader.end),
        (b"\x02\xc3\x28", lambda r: r.string(9)),
    ):
        with pytest.raises(DecodeError):
            read(Reader(data))
    writer = Writer()
    writer.variant(300)
    writer.count(2)
    writer.raw(memoryview(b"xy"))
    assert writer.finish() == b"\xac\x02\x02xy"
