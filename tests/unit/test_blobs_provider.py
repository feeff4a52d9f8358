"""What a provider answers, to whom, and when it gives a peer up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blob_serving import FILES, Pairs, add_collection, ask, pattern, serving

from aioiroh import blobs
from aioiroh.blobs import (
    BlobFormat,
    ChunkRanges,
    ChunkRangesSeq,
    FileStore,
    GetRequest,
    Hash,
    HashAndFormat,
    HashSeq,
    MemoryStore,
    NotAvailableError,
    Provider,
    ProviderBusyError,
    ProviderRefusedError,
)
from aioiroh.blobs.messages import ObserveItem, encode_request
from aioiroh.errors import ApplicationClosedError, StreamResetError
from aioiroh.keys import EndpointId
from aioiroh.quic import BiStream, TransportConfig


async def test_answers_are_the_vectors(quic_pair: Pairs) -> None:
    sample = {"a.txt": b"hello", "dir/b.bin": pattern(20_000), "empty": b""}
    async with MemoryStore() as source:
        root = await add_collection(source, sample)
        for size in (1, 1025, 100_000):
            await source.add_bytes(pattern(size))
        many = blobs.GetManyRequest(
            (Hash.of(pattern(1)), Hash.of(pattern(1025))),
            ChunkRangesSeq(((0, ChunkRanges.all()), (2, ChunkRanges.empty()))),
        )
        blob = Hash.of(pattern(100_000))
        expected: list[tuple[GetRequest | blobs.GetManyRequest, int, str]] = [
            (
                GetRequest(root, ChunkRangesSeq.all()),
                20273,
                "9b701ac74b3a541fbcc2b9f81a9f09ec74be24f6e18a97c2ee0859ef57788906",
            ),
            (
                GetRequest(root, ChunkRangesSeq.sizes()),
                945,
                "3ddba72adfbf7e5fb8f1cddf844f238f4a9dd75c718c7a78719c973efcb1082f",
            ),
            (many, 1042, "119cee57d7f7b6da4026272c67c019e0d9483574ca4d3b27fdc7071ae454991c"),
            (
                GetRequest(blob, ChunkRangesSeq.blob(ChunkRanges((0, 2, 20, 21, 97)))),
                4520,
                "49d9bdcd91998b58485d012c3dbe81ded132c67db87cc05c0d697c14a39e8bc6",
            ),
            (
                GetRequest(blob, ChunkRangesSeq.empty()),
                0,
                "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
            ),
        ]
        async with serving(quic_pair, Provider(source)) as connection:
            for request, size, digest in expected:
                answer = await ask(connection, encode_request(request))
                assert (len(answer), Hash.of(answer).hex()) == (size, digest)


async def test_an_unknown_blob_resets_with_3(quic_pair: Pairs) -> None:
    async with MemoryStore() as source, MemoryStore() as target:
        async with serving(quic_pair, Provider(source)) as connection:
            for format in BlobFormat:
                unknown = HashAndFormat(Hash(b"x" * 32), format)
                with pytest.raises(NotAvailableError):
                    await blobs.get(connection, unknown, into=target)
            with pytest.raises(NotAvailableError):
                await blobs.get_size(connection, unknown.hash)
            with pytest.raises(StreamResetError) as caught:
                await ask(
                    connection, encode_request(GetRequest(unknown.hash, ChunkRangesSeq.all()))
                )
            assert caught.value.code == 3
        assert (await target.status(unknown.hash)).state is blobs.BlobState.MISSING


async def test_a_missing_child_does_not_cost_the_others(quic_pair: Pairs) -> None:
    async with MemoryStore() as source, MemoryStore() as target:
        here = (await source.add_bytes(pattern(50_000))).hash
        sequence = HashSeq([here, Hash(b"x" * 32), Hash.EMPTY])
        root = (await source.add_bytes(bytes(sequence), BlobFormat.HASH_SEQ)).hash
        async with serving(quic_pair, Provider(source)) as connection:
            with pytest.raises(NotAvailableError):
                await blobs.get(connection, HashAndFormat(root, BlobFormat.HASH_SEQ), into=target)
        assert (await target.status(root)).is_complete
        assert (await target.status(here)).is_complete


async def test_partial_blobs_are_served_as_far_as_they_go(quic_pair: Pairs) -> None:
    size = 200_000
    async with MemoryStore() as source, MemoryStore() as middle, MemoryStore() as target:
        hash = (await source.add_bytes(pattern(size))).hash
        async with serving(quic_pair, Provider(source)) as connection:
            some = ChunkRangesSeq.blob(ChunkRanges((0, 32, 2**64 - 1)))
            await blobs.get(connection, hash, into=middle, ranges=some)
        async with serving(quic_pair, Provider(middle)) as connection:
            fine = ChunkRangesSeq.blob(ChunkRanges((3, 30)))
            got = await blobs.get(connection, hash, into=target, ranges=fine)
            assert got.received == 27 * 1024
            with pytest.raises(NotAvailableError):
                await blobs.get(connection, hash, into=target)


async def test_gaps_cost_nothing(quic_pair: Pairs) -> None:
    async with MemoryStore() as source:
        root = await add_collection(source, FILES)
        seq = ChunkRangesSeq(((2**62, ChunkRanges.all()), (2**63, ChunkRanges.empty())))
        async with serving(quic_pair, Provider(source)) as connection:
            async with asyncio.timeout(2):
                assert await ask(connection, encode_request(GetRequest(root, seq))) == b""


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"",
        b"\x00",
        b"\x00" + bytes(31),
        b"\x02" + bytes(40),
        b"\xff" + bytes(40),
        b"\x08\xff\xff\xff\xff\x7f",
        b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x00" + bytes(32) + b"\x01\x00\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x01",
        b"\x00" + bytes(1024 * 1024 + 1),
    ],
)
async def test_malformed_requests_get_nothing(quic_pair: Pairs, request_bytes: bytes) -> None:
    async with MemoryStore() as source:
        hash = (await source.add_bytes(b"fine")).hash
        async with serving(quic_pair, Provider(source)) as connection:
            async with connection.open_bi() as stream:
                try:
                    await stream.write(request_bytes)
                    await stream.finish()
                except ConnectionError:
                    pass  # stopped already
                assert await stream.read_all(limit=10) == b""
            assert await blobs.get_bytes(connection, hash, limit=4) == b"fine"


async def test_a_request_that_does_not_end(quic_pair: Pairs) -> None:
    async with MemoryStore() as source:
        provider = Provider(source, limits=blobs.Limits(request_time=0.1))
        async with serving(quic_pair, provider) as connection, connection.open_bi() as stream:
            await stream.write(b"\x00")
            assert await stream.read_all(limit=10) == b""


async def test_authorize(quic_pair: Pairs) -> None:
    asked = []

    async def authorize(request: blobs.IncomingRequest) -> blobs.Verdict | bool:
        asked.append(request)
        return answers.pop(0)

    answers: list[blobs.Verdict | bool] = [False, blobs.Verdict.DENY, blobs.Verdict.LATER, True]
    async with MemoryStore() as source:
        hash = (await source.add_bytes(b"secret")).hash
        async with serving(quic_pair, Provider(source, authorize=authorize)) as connection:
            for kind in (ProviderRefusedError, ProviderRefusedError, ProviderBusyError):
                with pytest.raises(kind):
                    await blobs.get_bytes(connection, hash, limit=6)
            assert await blobs.get_bytes(connection, hash, limit=6) == b"secret"
            all_of_it = ChunkRangesSeq.blob()
            requests: list[blobs.ObserveRequest | blobs.PushRequest] = [
                blobs.ObserveRequest(hash, ChunkRanges.all()),
                blobs.PushRequest(hash, all_of_it),
            ]
            for request in requests:
                with pytest.raises(StreamResetError) as caught:
                    await ask(connection, encode_request(request))
                assert caught.value.code == 1
    assert len(asked) == 4
    assert {type(request.request) for request in asked} == {GetRequest}
    assert asked[0].kind is blobs.RequestKind.GET


@pytest.mark.parametrize("limits", [{"requests": 1}, {"requests_per_peer": 1}])
async def test_too_many_requests(quic_pair: Pairs, limits: dict[str, int]) -> None:
    async with MemoryStore() as source:
        hash = (await source.add_bytes(b"x")).hash
        provider = Provider(source, limits=blobs.Limits(**limits))
        async with serving(quic_pair, provider) as connection, connection.open_bi() as waiting:
            await waiting.write(b"\x00")
            await asyncio.sleep(0.05)
            with pytest.raises(ProviderBusyError):
                await blobs.get_bytes(connection, hash, limit=1)


async def test_a_reader_that_sleeps_is_given_up(quic_pair: Pairs) -> None:
    async with MemoryStore() as source:
        hash = (await source.add_bytes(pattern(20_000_000))).hash
        given_up = asyncio.Event()
        provider = Provider(
            source,
            limits=blobs.Limits(stall_time=0.2),
            on_transfer=lambda event: (
                given_up.set() if isinstance(event, blobs.TransferAborted) else None
            ),
        )
        async with serving(quic_pair, provider) as connection, connection.open_bi() as stream:
            await stream.write(encode_request(GetRequest(hash, ChunkRangesSeq.blob())))
            await stream.finish()
            await given_up.wait()
            with pytest.raises(StreamResetError) as caught:
                await stream.read_all(limit=1 << 30)
            assert caught.value.code == 2


@pytest.mark.parametrize(
    ("leave", "reason"),
    [
        (None, "the peer takes too little data"),
        (lambda stream: stream.recv.stop(7), "the peer stopped the stream with code 7"),
        (lambda stream: stream.connection.close(), "the connection ended"),
    ],
    ids=["sleeps", "stops", "goes"],
)
async def test_a_small_answer_that_nobody_takes(
    quic_pair: Pairs, leave: Callable[[BiStream], None] | None, reason: str
) -> None:
    """It is written at once where there is room, and here there is not."""
    async with MemoryStore() as source:
        hash = (await source.add_bytes(pattern(20_000))).hash
        events: asyncio.Queue[blobs.TransferEvent] = asyncio.Queue()
        provider = Provider(
            source,
            limits=blobs.Limits(stall_time=0.2 if leave is None else 30),
            on_transfer=events.put_nowait,
        )
        narrow = TransportConfig(stream_receive_window=1000)
        served = serving(lambda: quic_pair(narrow), provider)
        async with served as connection, connection.open_bi() as stream:
            await stream.write(encode_request(GetRequest(hash, ChunkRangesSeq.blob())))
            await stream.finish()
            while not isinstance(event := await events.get(), blobs.TransferStarted):
                pass
            if leave is not None:
                leave(stream)
            while not isinstance(event := await events.get(), blobs.TransferAborted):
                pass
            assert event.reason == reason
            assert event.stats.payload_bytes == event.stats.blobs == 0
            if leave is None:
                with pytest.raises(StreamResetError) as caught:
                    await stream.read_all(limit=1 << 20)
                assert caught.value.code == 2


@pytest.mark.parametrize(
    ("verdict", "code", "reason"),
    [
        (False, 1, b"permission"),
        (blobs.Verdict.LATER, 2, b"limit"),
        (RuntimeError("oh"), 3, b"internal"),
    ],
)
async def test_connections_are_let_in_or_not(
    quic_pair: Pairs, verdict: Any, code: int, reason: bytes
) -> None:
    events: list[blobs.ConnectionEvent] = []
    asked = []

    async def admit(peer: EndpointId) -> Any:
        asked.append(peer)
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers.pop(0)

    answers: list[Any] = [True, verdict]
    async with MemoryStore() as source:
        hash = (await source.add_bytes(b"hello")).hash
        provider = Provider(source, admit=admit, on_connection=events.append)
        async with serving(quic_pair, provider) as connection:
            assert await blobs.get_bytes(connection, hash, limit=5) == b"hello"
            (connected,) = events
        assert isinstance(connected, blobs.ClientConnected)
        assert [connected.remote_id] == asked
        assert events[1:] == [blobs.ConnectionClosed(connected.remote_id, connected.connection)]
        async with serving(quic_pair, provider) as connection:
            lost = await connection.closed()
            assert isinstance(lost, ApplicationClosedError)
            assert (lost.code, lost.reason) == (code, reason)
        # Who was not let in is not told of.
        assert len(events) == 2


async def test_transfer_events(quic_pair: Pairs) -> None:
    events: list[blobs.TransferEvent] = []
    async with MemoryStore() as source:
        hash = (await source.add_bytes(pattern(3_000_000))).hash
        provider = Provider(source, on_transfer=events.append)
        async with serving(quic_pair, provider) as connection:
            await blobs.get_bytes(connection, hash, limit=3_000_000)
            with pytest.raises(NotAvailableError):
                await blobs.get_bytes(connection, Hash(b"x" * 32), limit=10)
    received, started, *progress, completed, again, aborted = events
    assert isinstance(received, blobs.RequestReceived) and isinstance(again, blobs.RequestReceived)
    assert isinstance(started, blobs.TransferStarted) and started.size == 3_000_000
    assert all(isinstance(event, blobs.TransferProgress) for event in progress)
    assert isinstance(completed, blobs.TransferCompleted)
    assert completed.stats.payload_bytes == 3_000_000 and completed.stats.blobs == 1
    pairs = -(-3_000_000 // 16384) - 1
    assert completed.stats.other_bytes_sent == 8 + 64 * pairs
    assert completed.stats.other_bytes_read == 39
    assert isinstance(aborted, blobs.TransferAborted) and aborted.stats.payload_bytes == 0


async def test_a_file_that_changed_is_not_sent(quic_pair: Pairs, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(pattern(300_000))
    async with await FileStore.open(tmp_path / "s") as source, MemoryStore() as target:
        hash = (await source.add_file(file)).hash
        file.write_bytes(pattern(200_000) + b"!" + pattern(300_000)[200_001:])
        async with serving(quic_pair, Provider(source)) as connection:
            with pytest.raises(NotAvailableError):
                await blobs.get(connection, hash, into=target)


async def test_observe(quic_pair: Pairs) -> None:
    size = 100_000
    async with MemoryStore() as source, MemoryStore() as middle:
        hash = (await source.add_bytes(pattern(size))).hash
        serve = {blobs.RequestKind.OBSERVE}
        async with (
            serving(quic_pair, Provider(source)) as provider,
            serving(quic_pair, Provider(middle, serve=serve)) as connection,
            connection.open_bi() as stream,
        ):
            await stream.write(b"\x01" + bytes(hash) + b"\x01\x00")
            await stream.finish()
            assert await stream.read_exactly(3) == bytes.fromhex("020000")
            some = ChunkRangesSeq.blob(ChunkRanges((0, 16, 2**64 - 1)))
            await blobs.get(provider, hash, into=middle, ranges=some)
            change = await stream.read_exactly(8)
            assert change[1:] == bytes.fromhex("a08d0603001061")
            await blobs.get(provider, hash, into=middle)
            known = ChunkRanges((0, 16, 97))
            while not known.is_all:
                item = ObserveItem.decode(await stream.read_exactly((await stream.read(1))[0]))
                assert item.size == size and item.ranges
                known = known ^ item.ranges
