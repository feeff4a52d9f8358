"""A provider that means harm: names that lead elsewhere, content that is none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from aioiroh import Connection, Endpoint, Router
from aioiroh.blobs import (
    ALPN,
    BlobFormat,
    BlobTicket,
    Collection,
    Hash,
    MemoryStore,
    Provider,
)
from aioiroh.quic import BiStream
from commands import tree

Receive = Callable[..., Any]
Fill = Callable[[MemoryStore], Coroutine[Any, Any, Hash]]
Handler = Callable[[Connection], Coroutine[Any, Any, object]]


def attempt(receive: Receive, target: Path, fill: Fill, *options: object, code: int) -> Any:
    """Receives from a provider in this process what `fill` has put into its store."""

    async def serve() -> Any:
        async with MemoryStore() as store, Endpoint.bind(bind="127.0.0.1:0") as endpoint:
            root = await fill(store)
            async with Router(endpoint, {ALPN: Provider(store)}):
                ticket = str(BlobTicket(endpoint.addr, root, BlobFormat.HASH_SEQ))
                return await asyncio.to_thread(receive, ticket, "-o", target, *options, code=code)

    return asyncio.run(serve())


def named(*names: str) -> Fill:
    """A collection of small files with these names."""

    async def fill(store: MemoryStore) -> Hash:
        entries = []
        for number, name in enumerate(names):
            added = await store.add_bytes(b"evil %d" % number)
            entries.append((name, added.hash))
        sequence, metadata = Collection(entries).to_parts()
        await store.add_bytes(metadata)
        return (await store.add_bytes(bytes(sequence), BlobFormat.HASH_SEQ)).hash

    return fill


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/tmp/evil",
        "a\\..\\evil",
        "",
        "\x1b[2Jclear",
    ],
)
def test_dangerous_names(tmp_path: Path, receive: Receive, name: str) -> None:
    target = tmp_path / "a" / "there"
    target.mkdir(parents=True)
    done = attempt(receive, target, named("good", name), "--overwrite", code=5)
    assert "cannot be files here" in done.err
    assert "\x1b" not in done.err
    assert tree(tmp_path) == {"a": None, "a/there": None}


@pytest.mark.parametrize("names", [("a", "a"), ("a", "a/b")])
def test_names_that_collide(tmp_path: Path, receive: Receive, names: tuple[str, ...]) -> None:
    done = attempt(receive, tmp_path / "there", named(*names), code=5)
    assert "collides" in done.err
    assert not (tmp_path / "there").exists()


def test_no_collection(tmp_path: Path, receive: Receive) -> None:
    async def fill(store: MemoryStore) -> Hash:
        return (await store.add_bytes(b"no hash sequence")).hash

    attempt(receive, tmp_path / "there", fill, code=5)
    assert not (tmp_path / "there").exists()


def test_a_sequence_without_names(tmp_path: Path, receive: Receive) -> None:
    async def fill(store: MemoryStore) -> Hash:
        blobs = [(await store.add_bytes(bytes([number]) * 50)).hash for number in range(3)]
        return (await store.add_bytes(b"".join(map(bytes, blobs)))).hash

    done = attempt(receive, tmp_path / "there", fill, code=5)
    assert "CollectionV0" in done.err
    assert not (tmp_path / "there").exists()


def test_fewer_names_than_files(tmp_path: Path, receive: Receive) -> None:
    async def fill(store: MemoryStore) -> Hash:
        _, metadata = Collection([("only", Hash.EMPTY)]).to_parts()
        blobs = [(await store.add_bytes(data)).hash for data in (metadata, b"1", b"2")]
        return (await store.add_bytes(b"".join(map(bytes, blobs)))).hash

    done = attempt(receive, tmp_path / "there", fill, code=5)
    assert "1 names for 2 blobs" in done.err


def test_files_that_are_announced_and_missing(tmp_path: Path, receive: Receive) -> None:
    async def fill(store: MemoryStore) -> Hash:
        sequence, metadata = Collection([("gone", Hash.of(b"not in the store"))]).to_parts()
        await store.add_bytes(metadata)
        return (await store.add_bytes(bytes(sequence))).hash

    done = attempt(receive, tmp_path / "there", fill, code=5)
    assert "lacks" in done.err
    assert not (tmp_path / "there").exists()


# --- providers that do not keep to the protocol ---------------------------------------------------


def attempt_at(receive: Receive, target: Path, handler: Handler, *options: str, code: int) -> Any:
    """Receives from a provider that `handler` plays."""

    async def serve() -> Any:
        async with (
            Endpoint.bind(bind="127.0.0.1:0") as endpoint,
            Router(endpoint, {ALPN: handler}),
        ):
            ticket = str(BlobTicket(endpoint.addr, Hash(b"\5" * 32), BlobFormat.HASH_SEQ))
            return await asyncio.to_thread(receive, ticket, "-o", target, *options, code=code)

    return asyncio.run(serve())


@pytest.mark.parametrize("started", [True, False])
def test_a_provider_that_says_nothing(tmp_path: Path, receive: Receive, started: bool) -> None:
    async def wait(stream: BiStream) -> None:
        if started:
            await stream.send.write((64).to_bytes(8, "little") + b"\1")
        await asyncio.sleep(3600)

    async def handle(connection: Connection) -> None:
        await connection.serve(wait)

    done = attempt_at(receive, tmp_path / "there", handle, "--timeout", "1.5", code=4)
    assert "has sent nothing for 1.5 s" in done.err
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((64).to_bytes(8, "little") + bytes(64), "do not belong to it"),
        ((1 << 63).to_bytes(8, "little") + bytes(64), "over the limit"),
        ((64).to_bytes(8, "little") + bytes(10), "broke off"),
        (b"", "lacks it"),
    ],
    ids=["content", "size", "truncated", "empty"],
)
def test_a_provider_that_lies(tmp_path: Path, receive: Receive, answer: bytes, says: str) -> None:
    async def lie(stream: BiStream) -> None:
        await stream.recv.read_all(limit=1 << 20)
        await stream.send.write(answer)
        await stream.send.finish()

    async def handle(connection: Connection) -> None:
        await connection.serve(lie)

    done = attempt_at(receive, tmp_path / "there", handle, code=5)
    assert says in done.err
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize(
    ("code", "says"), [(1, "refuses"), (2, "too much to do"), (3, "lacks"), (77, "code 77")]
)
def test_a_provider_that_refuses(tmp_path: Path, receive: Receive, code: int, says: str) -> None:
    async def refuse(stream: BiStream) -> None:
        stream.send.reset(code)

    async def handle(connection: Connection) -> None:
        await connection.serve(refuse)

    done = attempt_at(receive, tmp_path / "there", handle, code=5)
    assert says in done.err
    assert not (tmp_path / "there").exists()
