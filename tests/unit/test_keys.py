"""Keys, ids and signatures against upstream's vectors and oddities."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioiroh.codec import base32
from aioiroh.errors import DecodeError, KeyParsingError
from aioiroh.keys import EndpointId, PublicKey, SecretKey, Signature

VECTORS = json.loads((Path(__file__).parent / "vectors" / "keys.json").read_text())
SECRET = SecretKey(bytes(range(32)))


def named(table):
    return pytest.mark.parametrize("value", list(table.values()), ids=list(table))


@pytest.mark.parametrize("vector", VECTORS["keys"], ids=lambda v: v["seed"][:4])
def test_key_forms(vector):
    secret = SecretKey.parse(vector["seed"])
    assert secret.hex() == vector["seed"]
    id = secret.public
    assert str(id) == id.hex() == vector["hex"]
    assert id.short() == vector["hex"][:10]
    assert id.zbase32() == vector["zbase32"]
    assert base32.encode(bytes(id)) == vector["base32"]
    assert EndpointId.parse(vector["hex"]) == EndpointId.parse(vector["base32"]) == id
    assert EndpointId.from_zbase32(vector["zbase32"]) == id
    if "tls_name" in vector:
        assert base32.encode_hex(bytes(id)) == vector["tls_name"]
    assert SecretKey.parse(base32.encode(bytes(secret))) == secret


@pytest.mark.parametrize("vector", VECTORS["signatures"], ids=lambda v: v["message"] or "empty")
def test_signatures(vector):
    secret = SecretKey.from_bytes(bytes.fromhex(vector["seed"]))
    message = bytes.fromhex(vector["message"])
    signature = secret.sign(message)
    assert signature.hex() == str(signature) == vector["signature"]
    assert secret.public.verify(message, signature)
    assert secret.public.verify(memoryview(bytearray(message)), bytes(signature))
    assert not secret.public.verify(message + b".", signature)
    assert not SecretKey.generate().public.verify(message, signature)
    assert not secret.public.verify(message, bytes(signature)[:63])


@named(VECTORS["accepted_ids"])
def test_odd_points_are_ids_but_verify_nothing(value):
    raw = bytes.fromhex(value)
    id = EndpointId(raw)
    assert bytes(id) == raw
    assert EndpointId.parse(value) == id
    assert not id.verify(b"hello", bytes(64))
    # The point of order one with R = identity and S = 0 passes the lax rule for every message.
    assert not id.verify(b"hello", b"\x01" + bytes(63))


@named(VECTORS["rejected_ids"])
def test_other_bytes_are_no_ids(value):
    with pytest.raises(KeyParsingError):
        EndpointId(bytes.fromhex(value))


@named(VECTORS["accepted_text"])
def test_accepted_text(value):
    assert EndpointId.parse(value) == SECRET.public


@named(VECTORS["rejected_text"])
def test_rejected_text(value):
    with pytest.raises(KeyParsingError):
        EndpointId.parse(value)


@named({k: v for k, v in VECTORS["rejected_text"].items() if "point" not in k})
def test_secret_keys_follow_the_same_text_rule(value):
    with pytest.raises(KeyParsingError):
        SecretKey.parse(value)


@named(VECTORS["rejected_zbase32"])
def test_rejected_zbase32(value):
    with pytest.raises(KeyParsingError):
        EndpointId.from_zbase32(value)


def test_malleable_signatures_are_refused():
    order = 2**252 + 27742317777372353535851937790883648493
    raw = bytes(SECRET.sign(b"hello"))
    twin = raw[:32] + (int.from_bytes(raw[32:], "little") + order).to_bytes(32, "little")
    assert not SECRET.public.verify(b"hello", twin)


def test_order_and_hash_are_those_of_the_bytes():
    ids = [SecretKey(bytes([n] * 32)).public for n in range(20)]
    assert sorted(ids) == sorted(ids, key=bytes)
    assert len({*ids, *(EndpointId(bytes(id)) for id in ids)}) == 20
    first, second = sorted(ids)[:2]
    assert first < second and first <= second and second > first and second >= first
    assert first != bytes(first)
    with pytest.raises(TypeError):
        first < bytes(second)  # noqa: B015


def test_secrets_are_not_shown():
    text = f"{SECRET!r} {SECRET}"
    assert SECRET.hex()[:8] not in text
    assert SECRET == SecretKey(bytes(SECRET)) != SecretKey.generate()
    assert bytes(SECRET) != SECRET
    assert len({SECRET, SecretKey(bytes(SECRET))}) == 1


def test_generate_takes_its_chance_from_outside():
    assert SecretKey.generate(lambda n: b"\x07" * n) == SecretKey(b"\x07" * 32)
    assert SecretKey.generate() != SecretKey.generate()


@pytest.mark.parametrize("kind", [EndpointId, SecretKey, Signature])
def test_wrong_sizes_and_types(kind):
    for size in (0, kind.SIZE - 1, kind.SIZE + 1):
        with pytest.raises(KeyParsingError):
            kind(bytes(size))
    for value in (kind.SIZE, "0" * kind.SIZE):
        with pytest.raises(TypeError):
            kind(value)


@pytest.mark.parametrize("value", [SECRET, SECRET.public, SECRET.sign(b"x")])
def test_values_copy_and_pickle(value):
    assert pickle.loads(pickle.dumps(value)) == copy.deepcopy(value) == value
    assert hash(copy.copy(value)) == hash(value)


def test_names():
    assert PublicKey is EndpointId
    assert issubclass(KeyParsingError, ValueError)


@given(st.binary(min_size=32, max_size=32))
def test_every_seed_is_a_key(seed):
    id = SecretKey(seed).public
    assert EndpointId(bytes(id)) == EndpointId.parse(str(id)) == id
    assert EndpointId.from_zbase32(id.zbase32()) == id


@given(st.text(max_size=70) | st.text("0123456789abcdef", min_size=64, max_size=64))
def test_parsing_text_is_total(text):
    for parse in (EndpointId.parse, SecretKey.parse, EndpointId.from_zbase32):
        try:
            parse(text)
        except DecodeError as error:
            assert type(error) is KeyParsingError
