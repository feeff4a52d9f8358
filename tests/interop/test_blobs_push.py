"""Pushing, observing and asking for many, with upstream's store at either end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aioiroh import blobs
from aioiroh._native import encode_blob
from aioiroh.blobs import (
    BlobFormat,
    ChunkRanges,
    ChunkRangesSeq,
    Hash,
    HashAndFormat,
    HashSeq,
    Limits,
    MemoryStore,
    NotAvailableError,
    ProviderBusyError,
    ProviderError,
    ProviderRefusedError,
    PushReceived,
    RequestKind,
)
from aioiroh.blobs.messages import ObserveItem, encode_request
from aioiroh.blobs.pushing import confirm
from aioiroh.errors import ApplicationClosedError
from meeting import pattern
from remote_peer import PeerError
from sharing import BIG, SIZES, FromThem, from_them, hash_of, hex_of, one_blob, to_them

EVERYTHING = frozenset(RequestKind)
CHILDREN = (0, 1000, 5000, 50_000, 1000, 100_000)


@asynccontextmanager
async def pushing(blobs_peer: Callable[..., Any]) -> AsyncIterator[tuple[FromThem, MemoryStore]]:
    """Our store, and an upstream peer that takes pushes."""
    async with from_them(blobs_peer, push=True) as link, MemoryStore() as store:
        yield link, store


async def add_sequence(store: MemoryStore, sizes: tuple[int, ...] = CHILDREN) -> HashAndFormat:
    children = [(await store.add_bytes(pattern(size))).hash for size in sizes]
    root = await store.add_bytes(bytes(HashSeq(children)), BlobFormat.HASH_SEQ)
    return HashAndFormat(root.hash, BlobFormat.HASH_SEQ)


async def state(peer: Any, hash: Hash) -> dict[str, Any]:
    told: dict[str, Any] = await peer("blob_state", hash=hex_of(hash))
    return told


# --- we push ------------------------------------------------------------------------------------


async def test_we_push_blobs(blobs_peer: Callable[..., Any]) -> None:
    async with pushing(blobs_peer) as (link, store):
        for size in SIZES:
            hash = (await store.add_bytes(pattern(size))).hash
            pushed = await blobs.push(link.connection, hash, store=store, confirm=True)
            assert (pushed.sent, pushed.is_confirmed) == (size, True)
            known = await state(link.peer, hash)
            assert (known["status"], known["size"]) == ("complete", size)


async def test_we_push_parts(blobs_peer: Callable[..., Any]) -> None:
    async with pushing(blobs_peer) as (link, store):
        hash = (await store.add_bytes(pattern(BIG))).hash
        for query in ((3, 7), (500, 600), (1024,)):
            await blobs.push(
                link.connection, hash, store=store, ranges=one_blob(query), confirm=True
            )
        present = ChunkRanges((await state(link.peer, hash))["ranges"])
        assert present == ChunkRanges((3, 7, 500, 600, 1024))
        # All of it, though a part is there: who pushes was not asked what is missing.
        pushed = await blobs.push(link.connection, hash, store=store, confirm=True)
        assert pushed.sent == BIG
        assert (await state(link.peer, hash))["status"] == "complete"


async def test_we_push_sequences(blobs_peer: Callable[..., Any]) -> None:
    async with pushing(blobs_peer) as (link, store):
        content = await add_sequence(store)
        progress = [now async for now in blobs.push(link.connection, content, store=store)]
        assert progress[-1].bytes == progress[-1].total == 32 * len(CHILDREN) + sum(CHILDREN)
        assert progress[-1].blobs == progress[-1].total_blobs == 1 + len(CHILDREN)
        pushed = await blobs.push(link.connection, content, store=store, confirm=True)
        assert pushed.sent == progress[-1].total
        for size in CHILDREN:
            assert (await state(link.peer, Hash.of(pattern(size))))["status"] == "complete"


@pytest.fixture
def unconfirmed(monkeypatch: pytest.MonkeyPatch) -> str:
    """What a push says that they did not take: a small one may be gone before they stop it."""
    monkeypatch.setattr(confirm, "TIME", 2.0)
    return "code 3|does not have"


async def test_we_push_children_to_a_sequence_they_have(
    blobs_peer: Callable[..., Any], unconfirmed: str
) -> None:
    ranges = ChunkRangesSeq(
        ((3, ChunkRanges.chunks(0, 2)), (4, ChunkRanges.all()), (5, ChunkRanges.empty()))
    )
    async with pushing(blobs_peer) as (link, store):
        content = await add_sequence(store)
        # Not before they have the sequence itself.
        with pytest.raises(ProviderError, match=unconfirmed):
            await blobs.push(link.connection, content, store=store, ranges=ranges, confirm=True)
        await blobs.push(link.connection, content.hash, store=store, confirm=True)
        pushed = await blobs.push(
            link.connection, content, store=store, ranges=ranges, confirm=True
        )
        assert pushed.sent == 2048 + 50_000


def only(child: int) -> ChunkRangesSeq:
    """All of one child."""
    return ChunkRangesSeq(((child + 1, ChunkRanges.all()), (child + 2, ChunkRanges.empty())))


async def test_we_push_a_child_to_a_part_of_a_sequence(
    blobs_peer: Callable[..., Any], unconfirmed: str
) -> None:
    """0.104 needs only the hash of the child, 0.103 all of the sequence."""
    sizes = tuple(range(1000, 1100))
    async with pushing(blobs_peer) as (link, store):
        content = await add_sequence(store, sizes)
        await blobs.push(
            link.connection, content.hash, store=store, ranges=one_blob((1, 2)), confirm=True
        )
        pushing_known = blobs.push(
            link.connection, content, store=store, ranges=only(40), confirm=True
        )
        if link.peer.command[0].endswith("-103"):
            with pytest.raises(ProviderError, match=unconfirmed):
                await pushing_known
        else:
            assert (await pushing_known).sent == sizes[40]
        with pytest.raises(ProviderError, match=unconfirmed):
            await blobs.push(link.connection, content, store=store, ranges=only(0), confirm=True)


async def test_they_push_a_child_to_a_part_of_a_sequence(blobs_peer: Callable[..., Any]) -> None:
    received: asyncio.Queue[PushReceived] = asyncio.Queue()
    ended: asyncio.Queue[Any] = asyncio.Queue()

    def told(event: Any) -> None:
        if isinstance(event, blobs.TransferAborted):
            ended.put_nowait(event)

    options = {"serve": EVERYTHING, "on_push": received.put, "on_transfer": told}
    async with to_them(blobs_peer, **options) as link:
        hashes = []
        for size in range(1000, 1100):
            hashes.append(hash_of(await link.peer("blob_add", pattern=size)))
        root = hash_of(await link.peer("blob_add_hash_seq", hashes=list(map(hex_of, hashes))))
        async with asyncio.timeout(30):
            await link.they("push", root, ranges=[[1, 2]])
            await received.get()
            await link.they("push", root, ranges=[*[[]] * 41, [0]])
            assert (await received.get()).payload_bytes == 1040
            for unknown in ([[], [0]], [*[[]] * 41, [0], *[[]] * 50, [0]]):
                with contextlib.suppress(PeerError):
                    await link.they("push", root, ranges=unknown)
                assert "Incomplete" in (await ended.get()).reason
        assert (await link.store.status(hashes[40])).is_complete
        assert received.empty()


async def test_they_take_no_pushes(blobs_peer: Callable[..., Any]) -> None:
    """However small it is: the reason is on the side of the stream that upstream's pusher does not read."""
    async with from_them(blobs_peer) as link, MemoryStore() as store:
        for size in (5, 20 << 20):
            hash = (await store.add_bytes(bytes(size))).hash
            with pytest.raises(ProviderRefusedError):
                await blobs.push(link.connection, hash, store=store)
            assert (await state(link.peer, hash))["status"] != "complete"
        # The connection is as good as before.
        hash = await link.they_add(5)
        assert await blobs.get_bytes(link.connection, hash, limit=5) == pattern(5)


KINDS = {
    "get": lambda connection, hash, store: blobs.get(connection, hash, into=store),
    "get_many": lambda connection, hash, store: blobs.get_many(connection, [hash], into=store),
    "push": lambda connection, hash, store: blobs.push(connection, Hash.EMPTY, store=store),
    "observe": lambda connection, hash, store: observed(connection, hash),
}


async def observed(connection: Any, hash: Hash) -> None:
    async with blobs.observe(connection, hash) as states:
        await anext(states)


@pytest.mark.parametrize("deny", ["permission", "limit"])
@pytest.mark.parametrize("refused", KINDS)
async def test_they_decide_for_each_kind(
    blobs_peer: Callable[..., Any], refused: str, deny: str
) -> None:
    error = {"permission": ProviderRefusedError, "limit": ProviderBusyError}[deny]
    async with from_them(blobs_peer, push=True, deny=deny, kinds=[refused]) as link:
        hash = await link.they_add(5)
        for kind, ask in KINDS.items():
            async with MemoryStore() as store:
                asking = ask(link.connection, hash, store)
                if kind == refused:
                    with pytest.raises(error):
                        await asking
                else:
                    await asking


@pytest.mark.parametrize(
    ("deny", "code", "reason"), [("permission", 1, b"permission"), ("limit", 2, b"limit")]
)
async def test_they_refuse_the_connection(
    blobs_peer: Callable[..., Any], deny: str, code: int, reason: bytes
) -> None:
    async with from_them(blobs_peer, deny=deny, kinds=["connect"]) as link:
        lost = await link.connection.closed()
        assert isinstance(lost, ApplicationClosedError)
        assert (lost.code, lost.reason) == (code, reason)


@pytest.mark.parametrize("verdict", [blobs.Verdict.DENY, blobs.Verdict.LATER])
async def test_we_refuse_the_connection(
    blobs_peer: Callable[..., Any], verdict: blobs.Verdict
) -> None:
    async with to_them(blobs_peer, admit=lambda peer: verdict) as link:
        closed = await link.peer("closed", conn=link.conn)
        assert closed["kind"] == "application_closed"
        assert (closed["code"], closed["reason"]) == (verdict.value, verdict.reason.decode())


async def test_they_get_at_our_rate(blobs_peer: Callable[..., Any]) -> None:
    """In portions, that is; how fast is measured in virtual time elsewhere."""
    async with to_them(blobs_peer, limits=Limits(rate_per_peer=2_000_000)) as link:
        hash = (await link.store.add_bytes(pattern(1_000_000))).hash
        assert (await link.they("get", hash, ranges=[[0]]))["payload"] == 1_000_000


async def test_what_they_cannot_take(blobs_peer: Callable[..., Any]) -> None:
    """A sequence that is none: its children cannot be found, and they stop the push with 3."""
    async with pushing(blobs_peer) as (link, store):
        odd = await store.add_bytes(pattern(33))
        with pytest.raises(ValueError, match="not a hash sequence"):
            await blobs.push(
                link.connection, HashAndFormat(odd.hash, BlobFormat.HASH_SEQ), store=store
            )
        request = blobs.PushRequest(odd.hash, ChunkRangesSeq.all())
        async with link.connection.open_bi() as stream:
            await stream.write(encode_request(request) + encode_blob(pattern(33), (0,)))
            # Its own side it has ended long before.
            assert await stream.read_all(limit=0) == b""
            assert await stream.send.stopped() == 3
        for lie in (b"\0" * 33, pattern(32)):
            hash = Hash.of(lie + b"not")
            async with link.connection.open_bi() as stream:
                request = blobs.PushRequest(hash, ChunkRangesSeq.blob())
                await stream.write(encode_request(request) + encode_blob(lie, (0,)))
                assert await stream.send.stopped() == 3
            assert (await state(link.peer, hash))["status"] != "complete"


# --- they push ----------------------------------------------------------------------------------


async def test_they_push(blobs_peer: Callable[..., Any]) -> None:
    received: asyncio.Queue[PushReceived] = asyncio.Queue()
    async with to_them(blobs_peer, serve=EVERYTHING, on_push=received.put) as link:
        for size in (*SIZES, 20 << 20):
            hash = hash_of(await link.peer("blob_add", pattern=size))
            # Twice: what is here already is verified and thrown away.
            for _ in range(2):
                await link.they("push", hash, ranges=[[0]])
                async with asyncio.timeout(20):
                    push = await received.get()
                assert (push.content, push.payload_bytes) == (HashAndFormat(hash), size)
                assert bytes(push.source.remote_id).hex() == link.peer.id
                assert await link.store.read_bytes(hash, limit=size) == pattern(size)


async def test_they_push_sequences_and_parts(blobs_peer: Callable[..., Any]) -> None:
    received: asyncio.Queue[PushReceived] = asyncio.Queue()

    async def arrived() -> PushReceived:
        async with asyncio.timeout(20):
            return await received.get()

    async with to_them(blobs_peer, serve=EVERYTHING, on_push=received.put) as link:
        children = [hash_of(await link.peer("blob_add", pattern=size)) for size in CHILDREN]
        hashes = [hex_of(hash) for hash in children]
        root = hash_of(await link.peer("blob_add_hash_seq", hashes=hashes))
        await link.they("push", children[-1], ranges=[[3, 9]])
        assert (await arrived()).payload_bytes == 6 * 1024
        await link.they("push", root, ranges=[[0], [], [0]])
        push = await arrived()
        assert push.content == HashAndFormat(root, BlobFormat.HASH_SEQ)
        assert (push.blobs, push.payload_bytes) == (2, 32 * len(CHILDREN) + 1000)
        await link.they("push", root, ranges=[[], [], [], [0]])
        assert (await arrived()).payload_bytes == 5000
        await link.they("push", root, ranges=[[0]], open=True)
        assert (await arrived()).payload_bytes == 32 * len(CHILDREN) + sum(CHILDREN)
        for size, hash in zip(CHILDREN, children, strict=True):
            assert await link.store.read_bytes(hash, limit=size) == pattern(size)


async def test_a_push_is_spared_until_it_has_a_name(blobs_peer: Callable[..., Any]) -> None:
    named = asyncio.Event()

    async def keep(push: PushReceived) -> None:
        assert await link.store.collect_garbage() == 0
        link.store.tags.set(b"pushed", push.content)
        named.set()

    async with to_them(blobs_peer, serve=EVERYTHING, on_push=keep) as link:
        hash = hash_of(await link.peer("blob_add", pattern=100_000))
        await link.they("push", hash, ranges=[[0]])
        async with asyncio.timeout(20):
            await named.wait()
        assert await link.store.collect_garbage() == 0
        link.store.tags.delete(b"pushed")
        assert await link.store.collect_garbage() == 1


@pytest.mark.parametrize("limits", [{"push_blob_size": 100_000}, {"push_size": 10 << 20}])
async def test_they_push_too_much(blobs_peer: Callable[..., Any], limits: dict[str, int]) -> None:
    ended: asyncio.Queue[Any] = asyncio.Queue()

    def told(event: Any) -> None:
        if isinstance(event, blobs.TransferAborted):
            ended.put_nowait(event)

    async with to_them(
        blobs_peer, serve=EVERYTHING, on_transfer=told, limits=Limits(**limits)
    ) as link:
        children = [
            hash_of(await link.peer("blob_add", pattern=size)) for size in (90_000, 50 << 20)
        ]
        hashes = [hex_of(hash) for hash in children]
        root = hash_of(await link.peer("blob_add_hash_seq", hashes=hashes))
        try:
            await link.they("push", root, ranges=[[0]], open=True)
        except PeerError as error:
            assert error.code == 3, error.details
        async with asyncio.timeout(20):
            aborted = await ended.get()
        assert "TooLarge" in aborted.reason
        assert (await link.store.status(children[0])).is_complete
        assert not (await link.store.status(children[1])).is_complete


async def test_authorize_decides_about_pushes(blobs_peer: Callable[..., Any]) -> None:
    asked: asyncio.Queue[RequestKind] = asyncio.Queue()

    async def authorize(request: blobs.IncomingRequest) -> bool:
        await asked.put(request.kind)
        return request.kind is not RequestKind.PUSH

    async with to_them(blobs_peer, serve=EVERYTHING, authorize=authorize) as link:
        hash = hash_of(await link.peer("blob_add", pattern=20 << 20))
        with pytest.raises(PeerError) as refused:
            await link.they("push", hash, ranges=[[0]])
        assert refused.value.code == 0
        assert await asked.get() is RequestKind.PUSH
        assert await link.store.handle(hash) is None


# --- observing ----------------------------------------------------------------------------------


async def test_we_observe(blobs_peer: Callable[..., Any]) -> None:
    async with from_them(blobs_peer) as link:
        for size in SIZES:
            hash = await link.they_add(size)
            async with blobs.observe(link.connection, hash) as states:
                status = await states.until_complete()
            assert (status.size, status.is_complete) == (size, True)
        async with blobs.observe(link.connection, Hash.of(b"nobody has this")) as states:
            assert await anext(states) == blobs.BlobStatus.missing()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await anext(states)


async def test_an_empty_blob_is_told_once(blobs_peer: Callable[..., Any]) -> None:
    """Upstream resets the stream of an empty blob, and the reset may overtake the only state; of others it
    keeps it open and says no more.
    """
    async with from_them(blobs_peer) as link:
        for size, ends in ((0, True), (5, False)):
            hash = await link.they_add(size)
            async with blobs.observe(link.connection, hash) as states:
                assert (await anext(states)).is_complete
                try:
                    async with asyncio.timeout(20 if ends else 0.5):
                        async for _ in states:
                            raise AssertionError("nothing changes")
                        ended = True
                except TimeoutError:
                    ended = False
            assert ended == ends


async def test_what_they_were_asked_to_observe_they_do_not_have(
    blobs_peer: Callable[..., Any],
) -> None:
    """Upstream's memory store makes an entry for it; 0.104 then answers a get with a size of 0."""
    hash = Hash.of(b"nobody has this")
    async with from_them(blobs_peer) as link, MemoryStore() as store:
        async with blobs.observe(link.connection, hash) as states:
            await anext(states)
        with pytest.raises(NotAvailableError):
            await blobs.get(link.connection, hash, into=store)
        with pytest.raises(NotAvailableError):
            await blobs.get_size(link.connection, hash)


@pytest.mark.parametrize(
    ("query", "item"),
    [
        ((), "020000"),
        ((0, 16), "06a08d06020010"),
        ((0, 16, 96), "07a08d0603001060"),
        ((0,), "05a08d060100"),
    ],
)
async def test_what_is_observed_on_the_wire(
    blobs_peer: Callable[..., Any], query: tuple[int, ...], item: str
) -> None:
    """The length, the size and where the present chunks begin and end, all of them as varints."""
    async with pushing(blobs_peer) as (link, store), MemoryStore() as part:
        hash = (await store.add_bytes(pattern(100_000))).hash
        if query:
            ranges = one_blob(query)
            await blobs.push(link.connection, hash, store=store, ranges=ranges, confirm=True)
            await blobs.get(link.connection, hash, into=part, ranges=ranges)
        request = encode_request(blobs.ObserveRequest(hash, ChunkRanges.all()))
        async with link.connection.open_bi() as stream:
            await stream.write(request)
            await stream.finish()
            assert (await stream.recv.read_exactly(len(item) // 2)).hex() == item
        # As our store describes the same state.
        status = await part.status(hash)
        ours = ObserveItem(status.size or 0, status.present)
        assert ours.encode_framed().hex() == item


async def test_we_observe_a_blob_that_arrives(blobs_peer: Callable[..., Any]) -> None:
    async with pushing(blobs_peer) as (link, store):
        hash = (await store.add_bytes(pattern(BIG))).hash
        async with blobs.observe(link.connection, hash) as states:
            assert await anext(states) == blobs.BlobStatus.missing()
            present = ChunkRanges.empty()
            for query in ((16, 32), (0, 4), (1000, 1008), (1024,)):
                await blobs.push(link.connection, hash, store=store, ranges=one_blob(query))
                present |= ChunkRanges(query)
                while states.status.present != present:
                    await anext(states)
            assert (states.status.size, states.status.size_verified) == (BIG, True)
            await blobs.push(link.connection, hash, store=store)
            assert (await states.until_complete()).size == BIG


async def test_they_observe_a_blob_that_arrives(blobs_peer: Callable[..., Any]) -> None:
    asked = asyncio.Event()

    async def authorize(request: blobs.IncomingRequest) -> bool:
        if request.kind is RequestKind.OBSERVE:
            asked.set()
        return True

    async with to_them(blobs_peer, serve=EVERYTHING, authorize=authorize) as link:
        hash = hash_of(await link.peer("blob_add", pattern=BIG))
        # They may begin to look after the first push has arrived.
        observing = asyncio.create_task(link.they("observe", hash, count=2))
        await asked.wait()
        await link.they("push", hash, ranges=[[16, 32]])
        while not (await link.store.status(hash)).present:
            await asyncio.sleep(0.01)
        await link.they("push", hash, ranges=[[0]])
        first, then = (await observing)["states"]
        assert ChunkRanges(then["ranges"]) - ChunkRanges(first["ranges"])
        assert then["size"] in (0, BIG)
        async with asyncio.timeout(20):
            while not (await link.store.status(hash)).is_complete:
                await asyncio.sleep(0.01)
        (known,) = (await link.they("observe", hash))["states"]
        assert known["complete"] and known["size"] == BIG


# --- asking for many ----------------------------------------------------------------------------


async def test_we_get_many(blobs_peer: Callable[..., Any]) -> None:
    async with from_them(blobs_peer) as link, MemoryStore() as store:
        hashes = [await link.they_add(size) for size in (*SIZES, 1000, 5)]
        got = await blobs.get_many(link.connection, [*hashes, *hashes], into=store)
        assert got.received == sum({*SIZES, 1000, 5})
        for size in SIZES:
            assert await store.read_bytes(Hash.of(pattern(size)), limit=size) == pattern(size)
        assert (await blobs.get_many(link.connection, hashes, into=store)).received == 0


async def test_we_get_parts_of_many(blobs_peer: Callable[..., Any]) -> None:
    ranges = ChunkRangesSeq.from_sets(
        [ChunkRanges.chunks(0, 2), ChunkRanges.empty()], rest=ChunkRanges.last_chunk()
    )
    sizes = (BIG, 5000, 50_000, 100_000, 0)
    async with from_them(blobs_peer) as link, MemoryStore() as store:
        hashes = [await link.they_add(size) for size in sizes]
        got = await blobs.get_many(link.connection, hashes, into=store, ranges=ranges)
        assert got.received == 2048 + (50_000 - 48 * 1024) + (100_000 - 97 * 1024)
        statuses = await store.statuses(hashes)
        assert [status.size for status in statuses if status.size_verified] == [50_000, 100_000, 0]
        rest = await blobs.get_many(link.connection, hashes, into=store)
        assert got.received + rest.received == sum(sizes)


async def test_we_get_many_of_which_one_is_missing(blobs_peer: Callable[..., Any]) -> None:
    async with from_them(blobs_peer) as link, MemoryStore() as store:
        here = await link.they_add(1000)
        with pytest.raises(NotAvailableError):
            await blobs.get_many(link.connection, [here, Hash.of(b"nobody")], into=store)
        with pytest.raises(NotAvailableError):
            await blobs.probe(link.connection, Hash.of(b"nobody"), 0)


async def test_probes(blobs_peer: Callable[..., Any]) -> None:
    async with pushing(blobs_peer) as (link, store):
        hash = (await store.add_bytes(pattern(BIG))).hash
        await blobs.push(link.connection, hash, store=store, ranges=one_blob((16, 48, 1024)))
        async with blobs.observe(link.connection, hash) as states:
            async for status in states:
                if status.size_verified:
                    break
        for chunk, has_it in ((16, True), (47, True), (48, False), (0, False), (1024, True)):
            if has_it:
                assert await blobs.probe(link.connection, hash, chunk) == BIG
            else:
                with pytest.raises(NotAvailableError):
                    await blobs.probe(link.connection, hash, chunk)
        assert await blobs.probe(link.connection, hash, 5000) == BIG
