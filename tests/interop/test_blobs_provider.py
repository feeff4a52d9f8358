"""Upstream's getter and our provider of blobs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aioiroh import Endpoint, Router, blobs
from aioiroh.blobs import (
    BlobFormat,
    BlobTicket,
    ChunkRanges,
    Collection,
    FileStore,
    Hash,
    HashSeq,
    Limits,
    Provider,
    RequestKind,
    TransferAborted,
    TransferCompleted,
    Verdict,
)
from meeting import LOOPBACK, address, pattern, where
from remote_peer import PeerError
from sharing import ALPN, BIG, QUERIES, SIZES, hash_of, hex_of, one_blob, to_them

PERMISSION, LIMIT, INTERNAL = 1, 2, 3


async def test_whole_blobs(blobs_peer: Callable[..., Any]) -> None:
    async with to_them(blobs_peer) as link:
        for size in SIZES:
            hash = (await link.store.add_bytes(pattern(size))).hash
            told = await link.they("get", hash, ranges=[[0]])
            assert told["payload"] == size
            state = await link.peer("blob_state", hash=hex_of(hash))
            assert (state["status"], state["size"]) == ("complete", size)


async def test_from_files(blobs_peer: Callable[..., Any], tmp_path: Path) -> None:
    """To a store on disk, and to a file, byte for byte."""
    async with (
        await FileStore.open(tmp_path / "ours") as store,
        Endpoint.bind(bind=LOOPBACK) as endpoint,
        Router(endpoint, {blobs.ALPN: Provider(store)}),
        blobs_peer() as peer,
    ):
        await peer("store", path=str(tmp_path / "theirs"))
        for size in SIZES:
            source, target = tmp_path / f"source{size}", tmp_path / f"target{size}"
            source.write_bytes(pattern(size))
            hash = (await store.add_file(source)).hash
            ticket = str(BlobTicket(endpoint.addr, hash))
            await peer("blob_fetch", ticket=ticket, export=str(target))
            assert target.read_bytes() == pattern(size)


async def test_many_at_once(blobs_peer: Callable[..., Any]) -> None:
    async with to_them(blobs_peer) as link:
        hashes = [(await link.store.add_bytes(pattern(20_000 + i))).hash for i in range(150)]
        await asyncio.gather(*(link.they("get", hash, ranges=[[0]]) for hash in hashes))
        for hash in hashes:
            assert (await link.peer("blob_state", hash=hex_of(hash)))["status"] == "complete"


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
async def test_ranges(blobs_peer: Callable[..., Any], query: tuple[int, ...]) -> None:
    async with to_them(blobs_peer) as link:
        for size in (BIG, 17_408, 1025, 1, 0):
            hash = (await link.store.add_bytes(pattern(size))).hash
            chunks = max(1, -(-size // 1024))
            wanted = ChunkRanges(query).select(size)
            told = await link.they("get", hash, ranges=[list(query)])
            assert told["payload"] == wanted.byte_count(size)
            state = await link.peer("blob_state", hash=hex_of(hash))
            present = ChunkRanges(state["ranges"]) & ChunkRanges.chunks(0, chunks)
            assert present == wanted
            # Then the rest, as a program would fetch it.
            ticket = str(BlobTicket(link.endpoint.addr, hash))
            rest = await link.peer("blob_fetch", ticket=ticket)
            assert rest["payload"] == size - told["payload"]
            state = await link.peer("blob_state", hash=hex_of(hash))
            assert (state["status"], state["size"]) == ("complete", size)


async def test_sizes(blobs_peer: Callable[..., Any]) -> None:
    async with to_them(blobs_peer) as link:
        children = []
        for size in SIZES:
            hash = (await link.store.add_bytes(pattern(size))).hash
            children.append(hash)
            assert (await link.they("size", hash))["size"] == size
        root = await link.store.add_bytes(bytes(HashSeq(children)), BlobFormat.HASH_SEQ)
        assert (await link.they("sizes", root.hash))["sizes"] == list(SIZES)


async def test_hash_sequences(blobs_peer: Callable[..., Any]) -> None:
    async with to_them(blobs_peer) as link:
        for sizes in ((), (0,), SIZES, (5,) * 4, tuple(range(600))):
            children = [(await link.store.add_bytes(pattern(size))).hash for size in sizes]
            root = await link.store.add_bytes(bytes(HashSeq(children)), BlobFormat.HASH_SEQ)
            # Everything, and nothing that it has already.
            ticket = BlobTicket(link.endpoint.addr, root.hash, BlobFormat.HASH_SEQ)
            await link.peer("blob_fetch", ticket=str(ticket))
            for child in children:
                if child != Hash.EMPTY:
                    state = await link.peer("blob_state", hash=hex_of(child))
                    assert state["status"] == "complete"
            # An endless request ends with the last child.
            told = await link.they("get", root.hash, ranges=[[0]], open=True)
            assert told["payload"] == 32 * len(sizes) + sum(sizes)


SEQUENCE_QUERIES: dict[str, tuple[list[list[int]], bool]] = {
    "only the root": ([[0]], False),
    "root and two children": ([[0], [], [0], [], [], [0]], False),
    "the first chunk of each": ([[0], [0, 1]], True),
    "the sizes": ([[0], [2**64 - 1]], True),
    "some chunks of one": ([[0], [], [], [], [3, 5, 20, 30]], False),
    "further than there are children": ([[0], *[[]] * 6, *[[0]] * 20], False),
}


@pytest.mark.parametrize(
    ("lists", "endless"), SEQUENCE_QUERIES.values(), ids=SEQUENCE_QUERIES.keys()
)
async def test_ranges_of_sequences(
    blobs_peer: Callable[..., Any], lists: list[list[int]], endless: bool
) -> None:
    sizes = (0, 1000, 5000, 50_000, 100_000, 16_384, 16_385, 40_000)
    async with to_them(blobs_peer) as link:
        children = [(await link.store.add_bytes(pattern(size))).hash for size in sizes]
        root = await link.store.add_bytes(bytes(HashSeq(children)), BlobFormat.HASH_SEQ)
        told = await link.they("get", root.hash, ranges=lists, open=endless)
        expected = 32 * len(sizes)
        for index, size, child in zip(range(1, 9), sizes, children, strict=True):
            query = lists[index] if index < len(lists) else lists[-1] if endless else []
            wanted = ChunkRanges(query).select(size)
            expected += wanted.byte_count(size)
            state = await link.peer("blob_state", hash=hex_of(child))
            present = ChunkRanges(state["ranges"]) & ChunkRanges.chunks(0, -(-size // 1024))
            assert size == 0 or present == wanted
        assert told["payload"] == expected


async def test_collections(blobs_peer: Callable[..., Any]) -> None:
    names = ("a", "b/c", "größe.txt", "日本語/🎈", "")
    async with to_them(blobs_peer) as link:
        hashes = [(await link.store.add_bytes(pattern(1000 * i))).hash for i in range(5)]
        sequence, metadata = Collection(zip(names, hashes, strict=True)).to_parts()
        await link.store.add_bytes(metadata)
        root = await link.store.add_bytes(bytes(sequence), BlobFormat.HASH_SEQ)
        ticket = BlobTicket(link.endpoint.addr, root.hash, BlobFormat.HASH_SEQ)
        await link.peer("blob_fetch", ticket=str(ticket))
        theirs = await link.peer("blob_collection", hash=hex_of(root.hash))
        assert theirs == {"names": list(names), "hashes": [hex_of(hash) for hash in hashes]}


async def test_get_many(blobs_peer: Callable[..., Any]) -> None:
    async with to_them(blobs_peer) as link:
        hashes = [(await link.store.add_bytes(pattern(size))).hash for size in SIZES]
        told = await link.peer("blob_get_many", conn=link.conn, hashes=list(map(hex_of, hashes)))
        assert told["payload"] == sum(SIZES)
        for hash in hashes:
            assert (await link.peer("blob_state", hash=hex_of(hash)))["status"] == "complete"


# --- what is not here, and what is not allowed ----------------------------------------------------


async def refusal(asking: Any) -> PeerError:
    with pytest.raises(PeerError) as refused:
        await asking
    return refused.value


async def test_a_blob_we_do_not_have(blobs_peer: Callable[..., Any]) -> None:
    missing = Hash.of(b"nobody has this")
    async with to_them(blobs_peer) as link:
        for ranges, endless in (
            ([[0]], False),
            ([[0]], True),
            ([[5, 7]], False),
        ):
            error = await refusal(link.they("get", missing, ranges=ranges, open=endless))
            assert (error.kind, error.code) == ("stream_reset", INTERNAL), error.details
            assert error.details["get_code"] == INTERNAL
        error = await refusal(link.they("size", missing))
        assert error.code == INTERNAL
        error = await refusal(link.peer("blob_get_many", conn=link.conn, hashes=[hex_of(missing)]))
        assert error.code == INTERNAL
        # The connection is as good as before.
        hash = (await link.store.add_bytes(b"hello")).hash
        assert (await link.they("get", hash, ranges=[[0]]))["payload"] == 5


async def test_a_sequence_of_which_we_lack_a_child(blobs_peer: Callable[..., Any]) -> None:
    """What comes before the gap arrives for sure: the stream ends there, and is not reset."""
    async with to_them(blobs_peer) as link:
        here = [(await link.store.add_bytes(pattern(size))).hash for size in (30_000, 40_000)]
        hashes = [here[0], Hash.of(b"nobody has this"), here[1]]
        root = await link.store.add_bytes(bytes(HashSeq(hashes)), BlobFormat.HASH_SEQ)
        error = await refusal(link.they("get", root.hash, ranges=[[0]], open=True))
        assert "not found" in error.text.lower(), error.details
        state = await link.peer("blob_state", hash=hex_of(here[0]))
        assert state["status"] == "complete"
        told = await link.they("get", root.hash, ranges=[[0], [], [], [0]])
        assert told["payload"] == 96 + 40_000
        await refusal(link.they("sizes", root.hash))
        # The root has to be here even if only children are asked for.
        theirs = await link.peer("blob_add_hash_seq", hashes=[hex_of(here[0])])
        error = await refusal(link.they("get", hash_of(theirs), ranges=[[], [0]]))
        assert (error.kind, error.code) == ("stream_reset", INTERNAL), error.details


async def test_a_blob_of_which_we_have_a_part(blobs_peer: Callable[..., Any]) -> None:
    """Who asks for more than is here gets nothing, at once; who asks for what is here gets that."""
    async with to_them(blobs_peer) as link:
        added = await link.peer("blob_add", pattern=BIG)
        hash = hash_of(added)
        async with link.endpoint.connect(address(link.peer), alpn=blobs.ALPN) as back:
            await blobs.get(back, hash, into=link.store, ranges=one_blob((16, 64, 1024)))
        async with blobs_peer() as third:
            await third("store")
            known = await third("connect", alpn=ALPN, **where(link.endpoint))

            async def get(ranges: list[int]) -> dict[str, Any]:
                told: dict[str, Any] = await third(
                    "blob_get", conn=known["conn"], hash=hex_of(hash), ranges=[ranges]
                )
                return told

            for lacking in ([0], [0, 1], [60, 65]):
                error = await refusal(get(lacking))
                assert (error.kind, error.code) == ("stream_reset", INTERNAL)
            assert (await get([16, 64]))["payload"] == 48 * 1024
            assert (await get([20, 21, 63, 64]))["payload"] == 2 * 1024
            told = await third("blob_size", conn=known["conn"], hash=hex_of(hash))
            assert told["size"] == BIG


async def test_an_odd_sequence(blobs_peer: Callable[..., Any]) -> None:
    async with to_them(blobs_peer) as link:
        hash = (await link.store.add_bytes(pattern(33))).hash
        await refusal(link.they("get", hash, ranges=[[0]], open=True))
        assert (await link.they("get", hash, ranges=[[0]]))["payload"] == 33


@pytest.mark.parametrize(("verdict", "code"), [(Verdict.DENY, PERMISSION), (Verdict.LATER, LIMIT)])
async def test_we_refuse(blobs_peer: Callable[..., Any], verdict: Verdict, code: int) -> None:
    asked = []

    def authorize(request: blobs.IncomingRequest) -> Verdict:
        asked.append(request)
        return verdict

    async with to_them(blobs_peer, authorize=authorize) as link:
        hash = (await link.store.add_bytes(b"hello")).hash
        error = await refusal(link.they("get", hash, ranges=[[0]]))
        assert (error.kind, error.code) == ("stream_reset", code), error.details
        (request,) = asked
        assert bytes(request.remote_id).hex() == link.peer.id
        assert request.kind is RequestKind.GET


async def test_observing(blobs_peer: Callable[..., Any]) -> None:
    served = {RequestKind.GET, RequestKind.OBSERVE}
    async with to_them(blobs_peer, serve=served) as link:
        for size in SIZES:
            hash = (await link.store.add_bytes(pattern(size))).hash
            (state,) = (await link.they("observe", hash))["states"]
            assert (state["size"], state["complete"]) == (size, True), (size, state)
        (state,) = (await link.they("observe", Hash.of(b"nobody has this")))["states"]
        assert (state["size"], state["complete"], state["ranges"]) == (0, False, [])
        # GetMany was left out of what is served.
        error = await refusal(
            link.peer("blob_get_many", conn=link.conn, hashes=[hex_of(Hash.of(b"x"))])
        )
        assert error.code == PERMISSION


async def test_observing_is_refused_by_default(blobs_peer: Callable[..., Any]) -> None:
    async with to_them(blobs_peer) as link:
        hash = (await link.store.add_bytes(b"hello")).hash
        error = await refusal(link.they("observe", hash))
        assert error.code == PERMISSION, error.details


async def test_pushes_are_never_taken(blobs_peer: Callable[..., Any]) -> None:
    async with to_them(blobs_peer) as link:
        for size in (5, 10 << 20):
            hash = hash_of(await link.peer("blob_add", pattern=size))
            # There is no answer to a push: a small one may be gone before it is refused.
            try:
                await link.they("push", hash, ranges=[[0]])
            except PeerError as error:
                assert error.code in (0, PERMISSION), error.details
            else:
                assert size == 5
            assert await link.store.handle(hash) is None
        assert (await link.store.status(hash)).present == ChunkRanges.empty()
        hash = (await link.store.add_bytes(b"hello")).hash
        assert (await link.they("get", hash, ranges=[[0]]))["payload"] == 5


async def test_too_many_requests(blobs_peer: Callable[..., Any]) -> None:
    limits = Limits(requests=1)
    asked, release = asyncio.Event(), asyncio.Event()

    async def authorize(_request: blobs.IncomingRequest) -> bool:
        asked.set()
        await release.wait()
        return True

    async with to_them(blobs_peer, authorize=authorize, limits=limits) as link:
        hash = (await link.store.add_bytes(b"hello")).hash
        first = asyncio.create_task(link.they("get", hash, ranges=[[0]]))
        await asked.wait()
        error = await refusal(link.they("get", hash, ranges=[[0]]))
        assert error.code == LIMIT
        release.set()
        assert (await first)["payload"] == 5


async def test_a_getter_that_dies(blobs_peer: Callable[..., Any]) -> None:
    events: list[Any] = []

    async def until(reached: Callable[[Any], bool]) -> Any:
        async with asyncio.timeout(10):
            while not reached(events[-1]):
                await asyncio.sleep(0.005)
        return events[-1]

    async with to_them(blobs_peer, on_transfer=events.append) as link:
        hash = (await link.store.add_bytes(pattern(5))).hash
        await link.they("get", hash, ranges=[[0]])
        completed = await until(lambda event: isinstance(event, TransferCompleted))
        assert completed.stats.payload_bytes == 5
        large = (await link.store.add_bytes(bytes(100 << 20))).hash
        asking = asyncio.create_task(link.they("get", large, ranges=[[0]]))
        await until(lambda event: getattr(event, "end_offset", 0) >= 1 << 20)
        await link.peer("shut_down")
        aborted = await until(lambda event: isinstance(event, TransferAborted))
        assert aborted.stats.payload_bytes >= 1 << 20
        with pytest.raises(PeerError):
            await asking
