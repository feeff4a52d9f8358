"""Whatever a peer sends, a provider goes on and a getter ends with a documented error."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import pytest
from blob_serving import pattern

from aioiroh import _native, blobs
from aioiroh.blobs import ChunkRanges, ChunkRangesSeq, GetRequest, Hash, HashAndFormat, MemoryStore
from aioiroh.blobs.messages import RequestKind, encode_request
from aioiroh.blobs.serving.provider import READ_ONLY
from aioiroh.errors import DecodeError, StreamResetError
from aioiroh.quic import BiStream

Pairs = Callable[..., AbstractAsyncContextManager[Any]]


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Bytes changed, removed, repeated or cut off."""
    result = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(result) + 1)
        match chance.randrange(5):
            case 0:
                result[at:at] = chance.randbytes(chance.randint(1, 40))
            case 1:
                del result[at : at + chance.randint(1, 40)]
            case 2:
                del result[at:]
            case 3:
                result[at:at] = result[at : at + chance.randint(1, 100)]
            case _ if at < len(result):
                result[at] ^= 1 << chance.randrange(8)
    return bytes(result)


@pytest.mark.parametrize("serve", [READ_ONLY, frozenset(RequestKind)], ids=["reads", "all"])
@pytest.mark.parametrize("seed", range(3))
async def test_a_provider_survives_any_request(
    quic_pair: Pairs, seed: int, serve: frozenset[RequestKind]
) -> None:
    chance = random.Random(seed)
    problems: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: problems.append(context))
    async with MemoryStore() as store:
        child = (await store.add_bytes(pattern(20_000))).hash
        root = (await store.add_bytes(bytes(child) * 3, blobs.BlobFormat.HASH_SEQ)).hash
        seeds = [
            encode_request(GetRequest(root, ChunkRangesSeq.all())),
            encode_request(GetRequest(child, ChunkRangesSeq.blob(ChunkRanges((3, 5, 7))))),
            encode_request(blobs.GetManyRequest((child, root), ChunkRangesSeq.sizes())),
            encode_request(blobs.ObserveRequest(child, ChunkRanges.all())),
            encode_request(blobs.PushRequest(child, ChunkRangesSeq.blob()))
            + _native.encode_blob(pattern(20_000), (0,)),
        ]
        async with quic_pair() as pair:
            served = blobs.Provider(store, serve=serve)
            provider = asyncio.create_task(served.accept(pair.server))

            async def attack(request: bytes) -> None:
                with suppress(ConnectionError):
                    async with pair.client.open_bi() as stream:
                        await stream.write(request)
                        if chance.random() < 0.9:
                            await stream.finish()
                        if chance.random() < 0.2:
                            stream.recv.stop(7)
                        elif chance.random() < 0.2:
                            stream.send.reset(9)
                        else:
                            await stream.read_all(limit=1 << 22)

            async with asyncio.timeout(60):
                for _ in range(40):
                    requests = [mutated(chance.choice(seeds), chance) for _ in range(20)]
                    attacks = [asyncio.create_task(attack(request)) for request in requests]
                    await asyncio.wait(attacks, timeout=0.05)
                    for task in attacks:
                        task.cancel()
                    await asyncio.wait(attacks)
                assert await blobs.get_bytes(pair.client, child, limit=20_000) == pattern(20_000)
            pair.client.close()
            await provider
    assert not problems


@pytest.mark.parametrize("seed", range(3))
async def test_a_getter_survives_any_answer(quic_pair: Pairs, seed: int) -> None:
    chance = random.Random(seed)
    data = {Hash.of(part): part for part in (pattern(40_000), pattern(5), b"")}
    sequence = b"".join(bytes(hash) for hash in data)
    root = HashAndFormat(Hash.of(sequence), blobs.BlobFormat.HASH_SEQ)
    answer = b"".join(_native.encode_blob(part, (0,)) for part in (sequence, *data.values()))
    ends: set[type[BaseException]] = set()

    async def serve(stream: BiStream) -> None:
        await stream.read_all(limit=1 << 21)
        with suppress(ConnectionError):
            await stream.write(mutated(answer, chance))
            if chance.random() < 0.2:
                stream.send.reset(chance.randrange(5))

    async with quic_pair() as pair:
        provider = asyncio.create_task(pair.server.serve(serve))
        for number in range(150):
            async with MemoryStore() as store, asyncio.timeout(20):
                try:
                    await blobs.get(pair.client, root, into=store, totals=number % 3 == 0)
                except (blobs.BlobsError, DecodeError, StreamResetError) as error:
                    ends.add(type(error))
                # Nothing false is ever kept.
                for hash, part in {root.hash: sequence, **data}.items():
                    if (await store.status(hash)).is_complete:
                        assert await store.read_bytes(hash, limit=1 << 20) == part
        pair.client.close()
        await provider
    assert blobs.VerificationError in ends and blobs.NotAvailableError in ends


async def test_endless_trailing_bytes_end(quic_pair: Pairs) -> None:
    async def serve(stream: BiStream) -> None:
        await stream.read_all(limit=1 << 21)
        with suppress(ConnectionError):
            await stream.write(_native.encode_blob(b"hello", (0,)))
            while True:
                await stream.write(bytes(65536))

    async with quic_pair() as pair, MemoryStore() as store:
        provider = asyncio.create_task(pair.server.serve(serve))
        async with asyncio.timeout(5):
            await blobs.get(pair.client, Hash.of(b"hello"), into=store)
        pair.client.close()
        await provider


async def test_a_stream_that_does_not_end(
    quic_pair: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aioiroh.blobs.transfer.receive.END_GRACE", 0.2)

    async def serve(stream: BiStream) -> None:
        await stream.read_all(limit=1 << 21)
        await stream.write(_native.encode_blob(b"hello", (0,)))
        assert await stream.send.stopped() == 0

    async with quic_pair() as pair, MemoryStore() as store:
        provider = asyncio.create_task(pair.server.serve(serve))
        async with asyncio.timeout(10):
            await blobs.get(pair.client, Hash.of(b"hello"), into=store)
        pair.client.close()
        await provider


async def test_authorize_that_fails(quic_pair: Pairs) -> None:
    def authorize(_request: blobs.IncomingRequest) -> bool:
        raise RuntimeError("no database")

    async with quic_pair() as pair, MemoryStore() as store:
        hash = (await store.add_bytes(b"x")).hash
        provider = blobs.Provider(store, authorize=authorize)
        serving = asyncio.create_task(provider.accept(pair.server))
        with pytest.raises(blobs.NotAvailableError):
            await blobs.get_bytes(pair.client, hash, limit=1)
        await provider.shutdown()
        await serving
        with pytest.raises(ConnectionError):
            await blobs.get_bytes(pair.client, hash, limit=1)


async def test_too_many_connections(quic_pair: Pairs) -> None:
    async with MemoryStore() as store, quic_pair() as pair:
        provider = blobs.Provider(store, limits=blobs.Limits(connections=1))
        first = asyncio.create_task(provider.accept(pair.server))
        await asyncio.sleep(0)
        client, server = await pair.connect()
        await provider.accept(server)
        error = await client.closed()
        assert getattr(error, "code", None) == 2
        pair.client.close()
        await first
