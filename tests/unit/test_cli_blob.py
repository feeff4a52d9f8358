"""The parts of `aioiroh blob` that need no process: where the store is, what is meant, how much is there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from aioiroh import SecretKey
from aioiroh.address import EndpointAddr
from aioiroh.blobs import (
    BlobFormat,
    BlobState,
    BlobTicket,
    Hash,
    HashAndFormat,
    HashSeq,
    MemoryStore,
    NotFoundError,
)
from aioiroh.cli.blob.content import Named, extent, find, hashes_of, require, shown, tag_name
from aioiroh.cli.blob.place import default_store
from aioiroh.cli.failures import ExitCode, Failure


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {}, ".local/share/aioiroh/store"),
        ("linux", {"XDG_DATA_HOME": "/data"}, "/data/aioiroh/store"),
        ("linux", {"XDG_DATA_HOME": "data"}, ".local/share/aioiroh/store"),
        ("darwin", {"XDG_DATA_HOME": "/data"}, "Library/Application Support/aioiroh/store"),
        ("win32", {}, "AppData/Local/aioiroh/store"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/aioiroh/store"),
    ],
)
def test_where_the_store_is(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    platform: str,
    environment: dict[str, str],
    expected: str,
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    for name in ("XDG_DATA_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert default_store() == tmp_path / expected


async def test_what_a_text_means() -> None:
    hash = Hash.of(b"x")
    raw, sequence = HashAndFormat(hash), HashAndFormat(hash, BlobFormat.HASH_SEQ)
    ticket = BlobTicket(EndpointAddr(SecretKey(bytes(32)).public), hash, BlobFormat.HASH_SEQ)
    async with MemoryStore() as store:
        store.tags.set(b"name", sequence)
        store.tags.set(hash.hex().encode(), sequence)
        assert find(store, "name") == Named(sequence, b"name")
        # A tag comes first, whatever it looks like.
        assert find(store, hash.hex()) == Named(sequence, hash.hex().encode())
        store.tags.delete(hash.hex().encode())
        assert find(store, hash.hex()) == Named(raw)
        assert find(store, hash.base32()) == Named(raw)
        assert find(store, f"s{hash.hex()}") == Named(sequence)
        assert find(store, str(ticket)) == Named(sequence)
        with pytest.raises(Failure, match="'nme'") as failed:
            find(store, "nme")
    assert failed.value.code == ExitCode.USAGE


@pytest.mark.parametrize("name", [b"photos", "ümläut".encode(), b"\xff no text", b""])
def test_names_survive_being_shown(name: bytes) -> None:
    assert tag_name(shown(name)) == name


async def test_how_much_there_is() -> None:
    async with MemoryStore() as store:
        one = await store.add_bytes(b"one")
        two = await store.add_bytes(b"the second")
        absent = Hash.of(b"elsewhere")
        all_here = await sequence_of(store, [one.hash, two.hash, one.hash])
        partly = await sequence_of(store, [one.hash, absent])
        found = await extent(store, all_here)
        assert (found.state, found.blobs) == (BlobState.COMPLETE, 3)
        assert found.size == found.present == 3 * 32 + len(b"onethe second")
        found = await extent(store, partly)
        assert (found.state, found.blobs, found.present) == (BlobState.PARTIAL, 3, 2 * 32 + 3)
        found = await extent(store, HashAndFormat(absent))
        assert (found.state, found.blobs, found.size) == (BlobState.MISSING, 1, 0)
        assert str(found) == "nothing"
        assert await hashes_of(store, [all_here, partly]) == [
            all_here.hash,
            one.hash,
            two.hash,
            partly.hash,
            absent,
        ]


async def sequence_of(store: MemoryStore, hashes: list[Hash]) -> HashAndFormat:
    added = await store.add_bytes(bytes(HashSeq(hashes)), BlobFormat.HASH_SEQ)
    content = HashAndFormat(added.hash, BlobFormat.HASH_SEQ)
    store.tags.set(bytes(added.hash), content)
    return content


async def test_a_sequence_that_is_none_has_no_children() -> None:
    async with MemoryStore() as store:
        added = await store.add_bytes(b"no hashes")
        content = HashAndFormat(added.hash, BlobFormat.HASH_SEQ)
        assert await hashes_of(store, [content]) == [added.hash]


async def test_what_is_not_there() -> None:
    async with MemoryStore() as store:
        with pytest.raises(NotFoundError, match="nothing of name"):
            await require(store, Named(HashAndFormat(Hash.of(b"x")), b"name"))
