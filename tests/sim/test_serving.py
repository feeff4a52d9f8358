"""What a provider spends on its peers, in virtual time: rates, trickles, observers, pushes that stall."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from aioiroh import Endpoint, Router, blobs
from aioiroh.blobs import (
    ChunkRangesSeq,
    GetRequest,
    Hash,
    Limits,
    MemoryStore,
    Provider,
    ProviderBusyError,
    PushRequest,
    RequestKind,
    TransferAborted,
    TransferCompleted,
)
from aioiroh.blobs.messages import encode_request
from aioiroh.errors import StreamResetError, StreamStoppedError
from aioiroh.testing import simulated

SIZE = 1_000_000
RATE = 100_000


@asynccontextmanager
async def serving(network, *peers, **options):
    """A provider with its store, and connections to it: a name that comes twice is one peer."""
    async with (
        MemoryStore() as store,
        Endpoint.bind(network=network.host("provider")) as endpoint,
        Router(endpoint, {blobs.ALPN: Provider(store, **options)}),
        AsyncExitStack() as stack,
    ):
        endpoints = {
            name: await stack.enter_async_context(Endpoint.bind(network=network.host(name)))
            for name in dict.fromkeys(peers)
        }
        connections = [
            await stack.enter_async_context(endpoints[name].connect(endpoint.addr, alpn=blobs.ALPN))
            for name in peers
        ]
        yield store, *connections


async def fetch(network, connection, hash):
    """Seconds that a get takes."""
    began = network.loop.time()
    async with MemoryStore() as store:
        await blobs.get(connection, hash, into=store)
    return network.loop.time() - began


async def add(store, network, size=SIZE):
    return (await store.add_bytes(network.chance("content").randbytes(size))).hash


@simulated()
async def test_a_rate_for_each_peer(network):
    limits = Limits(rate_per_peer=RATE)
    async with serving(network, "a", "b", "b", limits=limits) as (store, *connections):
        hash = await add(store, network)
        times = await asyncio.gather(*(fetch(network, c, hash) for c in connections))
    # The two connections of one peer share its rate.
    assert times[0] == pytest.approx(SIZE / RATE, rel=0.05)
    assert max(times[1:]) == pytest.approx(2 * SIZE / RATE, rel=0.05)


@simulated()
async def test_a_rate_for_all_together(network):
    async with serving(network, "a", "b", limits=Limits(rate=RATE)) as (store, *connections):
        hash = await add(store, network)
        times = await asyncio.gather(*(fetch(network, c, hash) for c in connections))
    assert max(times) == pytest.approx(2 * SIZE / RATE, rel=0.05)
    # Evenly, not one after the other.
    assert min(times) > 0.9 * max(times)


@simulated()
async def test_a_limit_that_the_application_names(network):
    """Large blobs share a limit; others have none."""
    slow = blobs.rate_limit(RATE, now=network.loop.time())

    def throttle(request):
        return [slow] if request.request.hash == large else []

    async with serving(network, "a", throttle=throttle) as (store, connection):
        large, small = await add(store, network), await add(store, network, 100_000)
        times = await asyncio.gather(
            *(fetch(network, connection, hash) for hash in (large, small, large))
        )
    assert max(times) == pytest.approx(2 * SIZE / RATE, rel=0.05)
    assert times[1] < 1


@simulated()
async def test_many_small_requests_are_kept_to_the_rate(network):
    """What an answer did not need of its portion is given back."""
    async with serving(network, "a", limits=Limits(rate_per_peer=RATE)) as (store, connection):
        hashes = [await add(store, network, 5000 + i) for i in range(200)]
        began = network.loop.time()
        async with MemoryStore() as target:
            await asyncio.gather(*(blobs.get(connection, hash, into=target) for hash in hashes))
        assert network.loop.time() - began == pytest.approx(200 * 5100 / RATE, rel=0.1)


@simulated()
async def test_one_small_request_after_the_other_is_kept_to_the_rate(network):
    async with serving(network, "a", limits=Limits(rate_per_peer=RATE)) as (store, connection):
        hashes = [await add(store, network, 5000 + i) for i in range(100)]
        began = network.loop.time()
        async with MemoryStore() as target:
            for hash in hashes:
                await blobs.get(connection, hash, into=target)
        assert network.loop.time() - began > 0.9 * 100 * 5000 / RATE


async def sip(stream, network, rate, seconds):
    """Reads so many bytes per second."""
    until = network.loop.time() + seconds
    while network.loop.time() < until:
        await stream.recv.read_exactly(rate)
        await asyncio.sleep(1)


@pytest.mark.parametrize(("rate", "is_kept"), [(500, False), (200_000, True)])
@simulated()
async def test_a_peer_that_takes_a_trickle_is_given_up(network, rate, is_kept):
    ended = []
    limits = Limits(minimum_rate=10_000, stall_time=20)

    def told(event):
        if isinstance(event, TransferAborted | TransferCompleted):
            ended.append(event)

    options = {"limits": limits, "on_transfer": told}
    async with serving(network, "a", **options) as (store, connection):
        hash = await add(store, network, 30_000_000)
        async with connection.open_bi() as stream:
            await stream.write(encode_request(GetRequest(hash, ChunkRangesSeq.blob())))
            await stream.finish()
            if is_kept:
                await sip(stream, network, rate, 60)
                assert not ended
            else:
                with pytest.raises(StreamResetError) as reset:
                    await sip(stream, network, rate, 120)
                    # What had arrived before is still there.
                    await stream.recv.read_all(limit=30_000_000)
                assert reset.value.code == 2
                (aborted,) = ended
                assert "too little" in aborted.reason
                assert aborted.stats.other_bytes_read == 39
                assert 0 < aborted.stats.payload_bytes < 30_000_000
        assert await blobs.get_size(connection, hash) == 30_000_000


@simulated()
async def test_a_peer_that_we_hold_back_is_not_given_up(network):
    limits = Limits(minimum_rate=10_000, stall_time=1, rate_per_peer=5_000)
    async with serving(network, "a", limits=limits) as (store, connection):
        hash = await add(store, network, 100_000)
        assert await fetch(network, connection, hash) > 15


@simulated()
async def test_observers_have_places_and_a_time(network):
    kinds = frozenset(RequestKind)
    limits = Limits(observers_per_peer=2, observers=3, observe_time=100)
    async with serving(network, "a", "b", serve=kinds, limits=limits) as (store, first, second):
        hash = await add(store, network)
        async with (
            blobs.observe(first, hash) as one,
            blobs.observe(first, Hash(b"x" * 32)) as two,
            blobs.observe(second, hash) as three,
        ):
            for states in (one, two, three):
                await anext(states)
            # One peer has as many as it may, then all together have.
            for connection in (first, second):
                with pytest.raises(ProviderBusyError):
                    async with blobs.observe(connection, hash) as refused:
                        await anext(refused)
            began = network.loop.time()
            with pytest.raises(ProviderBusyError):
                await anext(two)
            assert network.loop.time() - began == pytest.approx(100, abs=1)
            # What is complete says no more; the end is only the end.
            assert [status async for status in one] == []
        async with blobs.observe(second, hash) as states:
            assert (await states.until_complete()).size == SIZE


@simulated()
async def test_a_push_that_stalls_is_stopped(network):
    ended = []
    limits = Limits(stall_time=20, pushes_per_peer=1)
    options = {"serve": frozenset(RequestKind), "limits": limits, "on_transfer": ended.append}
    async with serving(network, "a", **options) as (store, connection), MemoryStore() as ours:
        hash = await add(ours, network)
        request = encode_request(PushRequest(hash, ChunkRangesSeq.blob()))
        async with connection.open_bi() as stream:
            await stream.write(request + SIZE.to_bytes(8, "little"))
            await asyncio.sleep(1)
            # It keeps the place of this peer as long as it lasts.
            with pytest.raises(ProviderBusyError):
                await blobs.push(connection, hash, store=ours)
            began = network.loop.time()
            assert await stream.send.stopped() == 2
            assert network.loop.time() - began < 45
            with pytest.raises(StreamResetError) as reset:
                await stream.recv.read()
            assert reset.value.code == 2
        assert isinstance(ended[-1], TransferAborted)
        pushed = await blobs.push(connection, hash, store=ours, confirm=True)
        assert pushed.sent == SIZE
        assert (await store.status(hash)).is_complete


@simulated()
async def test_a_pusher_that_leaves_keeps_nothing_waiting(network):
    pushed = []
    options = {"serve": frozenset(RequestKind), "on_push": pushed.append}
    async with serving(network, "a", **options) as (store, connection), MemoryStore() as ours:
        hash = await add(ours, network, 20_000_000)
        async with blobs.push(connection, hash, store=ours) as push:
            async for progress in push:
                if progress.bytes > 1 << 20:
                    break
        await asyncio.sleep(1)
        status = await store.status(hash)
        assert status.present and not status.is_complete
        assert not pushed
        # What arrived is kept as long as nobody tidies up.
        await blobs.push(connection, hash, store=ours, confirm=True)
        assert [push.content.hash for push in pushed] == [hash]
        assert await store.collect_garbage() == 1


@simulated()
async def test_a_push_that_is_refused_while_it_runs(network):
    options = {"serve": frozenset(RequestKind), "limits": Limits(push_size=2 << 20)}
    async with serving(network, "a", **options) as (store, connection), MemoryStore() as ours:
        hash = await add(ours, network, 20_000_000)
        with pytest.raises(blobs.ProviderError, match="code 3"):
            await blobs.push(connection, hash, store=ours)
        assert not (await store.status(hash)).is_complete
        async with connection.open_bi() as stream:
            await stream.write(encode_request(PushRequest(hash, ChunkRangesSeq.blob())))
            with pytest.raises(StreamStoppedError) as stopped:
                while True:
                    await stream.write(bytes(65536))
            assert stopped.value.code == 3
