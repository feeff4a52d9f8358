"""Hashes of content: the vectors, and collections whose parts name each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from blob_serving import pattern
from hypothesis import given
from hypothesis import strategies as st

from aioiroh.blobs.collection import Collection
from aioiroh.blobs.hash import Hash
from aioiroh.blobs.hashseq import HashSeq
from aioiroh.errors import DecodeError

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "vectors" / "blobs.json").read_text("utf-8")
)
hashes = st.binary(min_size=32, max_size=32).map(Hash)


@pytest.mark.parametrize("vector", VECTORS["hashes"], ids=lambda v: str(v["size"]))
def test_hash_vectors(vector: dict[str, Any]) -> None:
    value = Hash.of(pattern(vector["size"]))
    assert str(value) == value.hex() == vector["hex"]
    assert value.base32() == vector["base32"]
    assert value == Hash.parse(vector["hex"]) == Hash.parse(vector["base32"])
    assert value == Hash.parse(vector["base32"].upper())
    assert value.short() == vector["hex"][:10]


def test_the_empty_hash() -> None:
    assert Hash.of(b"") == Hash.EMPTY


def test_collection_vector() -> None:
    vector = VECTORS["collection"]
    children = [Hash.parse(text) for text in vector["children"]]
    collection = Collection(zip(vector["names"], children, strict=True))
    sequence, metadata = collection.to_parts()
    assert metadata.hex() == vector["metadata"]
    assert Hash.of(metadata).hex() == vector["metadata_hash"]
    assert Hash.of(bytes(sequence)).hex() == vector["root"]
    assert Collection.from_parts(sequence, metadata) == collection


def test_empty_collection() -> None:
    vector = VECTORS["collection"]
    sequence, metadata = Collection().to_parts()
    assert metadata.hex() == vector["empty_metadata"]
    assert Hash.of(metadata).hex() == vector["empty_metadata_hash"]
    assert Hash.of(bytes(sequence)).hex() == vector["empty_root"]
    assert Collection.from_parts(sequence, metadata) == Collection()


@given(st.lists(st.tuples(st.text(), hashes), max_size=6))
def test_collections_round_trip(entries: list[tuple[str, Hash]]) -> None:
    collection = Collection(entries)
    assert Collection.from_parts(*collection.to_parts()) == collection
    assert collection.names == tuple(name for name, _ in entries)
    assert collection.hashes == tuple(hash for _, hash in entries)


def test_collections_that_are_none() -> None:
    sequence, metadata = Collection([("a", Hash.EMPTY)]).to_parts()
    for bad in (b"", b"CollectionV1.\x00", metadata[:-1], metadata[:-1] + b"\xff", metadata[:13]):
        with pytest.raises(DecodeError):
            Collection.from_parts(sequence, bad)
    for other in (HashSeq(), HashSeq([Hash.EMPTY]), HashSeq([Hash.EMPTY] * 3)):
        with pytest.raises(DecodeError):
            Collection.from_parts(other, metadata)
