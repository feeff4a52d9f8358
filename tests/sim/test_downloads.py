"""Downloads from several providers over virtual networks: speed, failures, resuming."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from aioiroh import Endpoint, Router, blobs
from aioiroh._native import encode_blob
from aioiroh.blobs import Downloader, HashAndFormat, MemoryStore, Provider
from aioiroh.blobs.serving.requests import read_request
from aioiroh.testing import Host, Link, VirtualNetwork, simulated

MBIT = 1_000_000


@dataclass
class Serving:
    """A provider on a host of its own."""

    host: Host
    endpoint: Endpoint
    store: MemoryStore
    router: Router

    @property
    def addr(self) -> Any:
        return self.endpoint.addr


@dataclass
class World:
    """Providers, and one who downloads."""

    network: VirtualNetwork
    getter: Endpoint
    store: MemoryStore
    stack: AsyncExitStack
    providers: list[Serving] = field(default_factory=list)

    async def provider(self, link: Link, handler: Any = None, **options: Any) -> Serving:
        number = len(self.providers)
        host = self.network.host(f"provider{number}", link=link)
        endpoint = await self.stack.enter_async_context(Endpoint.bind(network=host))
        store = await self.stack.enter_async_context(MemoryStore())
        router = Router(endpoint, {blobs.ALPN: handler or Provider(store, **options)})
        await self.stack.enter_async_context(router)
        serving = Serving(host, endpoint, store, router)
        self.providers.append(serving)
        return serving

    @property
    def addrs(self) -> list[Any]:
        return [provider.addr for provider in self.providers]


@asynccontextmanager
async def world(network: VirtualNetwork, link: Link) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        host = network.host("getter", link=link)
        getter = await stack.enter_async_context(Endpoint.bind(network=host))
        store = await stack.enter_async_context(MemoryStore())
        yield World(network, getter, store, stack)


def content(network: VirtualNetwork, size: int) -> bytes:
    return network.chance("content").randbytes(size)


SLOW, USUAL = Link(latency=0.01, bandwidth=1 * MBIT), Link(latency=0.01, bandwidth=20 * MBIT)


async def share(providers: Sequence[Serving], data: bytes) -> blobs.Hash:
    """The blob is at all of them."""
    for provider in providers:
        hash = (await provider.store.add_bytes(data)).hash
    return hash


def liar(data: bytes) -> Any:
    """A provider that sends what it is asked for, but for the last bit."""

    async def answer(stream: Any) -> None:
        request, _ = await read_request(stream.recv)
        encoded = bytearray(encode_blob(data, request.ranges[0].boundaries))
        encoded[-1] ^= 1
        await stream.write(bytes(encoded))
        await stream.finish()

    async def serve(connection: Any) -> None:
        await connection.serve(answer)

    return serve


def by_reason(download: blobs.Download) -> dict[Any, str]:
    return {provider.id: provider.reason for provider in download.progress.providers}


# --- speed ----------------------------------------------------------------------------------------


@simulated()
async def test_four_quarters_make_a_link(network):
    link = Link(latency=0.002, bandwidth=80 * MBIT)
    data = content(network, 48 << 20)
    async with world(network, link) as here:
        for _ in range(4):
            await here.provider(link.replace(bandwidth=20 * MBIT))
        hash = await share(here.providers, data)
        async with Downloader(here.getter, here.store) as downloader:
            begun = network.loop.time()
            got = await downloader.download(hash, providers=here.addrs)
            took = network.loop.time() - begun
        assert await here.store.read_bytes(hash, limit=len(data)) == data
    assert len(data) * 8 / took > 0.9 * 80 * MBIT
    # All but nothing came twice.
    assert got.received < 1.01 * len(data)


# --- providers of all kinds -----------------------------------------------------------------------


@simulated(seeds=3)
async def test_one_slow_one_lying_one_dying_one_joining_later(network):
    data = content(network, 12 << 20)
    async with world(network, USUAL.replace(bandwidth=None)) as here:
        slow = await here.provider(SLOW)
        lying = await here.provider(USUAL, handler=liar(data))
        dying = await here.provider(USUAL)
        late = await here.provider(USUAL)
        hash = await share([slow, dying, late], data)
        async with Downloader(here.getter, here.store) as downloader:
            download = downloader.download(hash, providers=[p.addr for p in here.providers[:3]])
            async for progress in download:
                if dying.host.up and progress.bytes > 2 << 20:
                    dying.host.up = False
                    download.add_provider(late.addr)
            got = await download
        assert await here.store.read_bytes(hash, limit=len(data)) == data
        assert "do not belong" in by_reason(download)[lying.endpoint.id]
        received = {p.id: p.received for p in download.progress.providers}
        assert received[late.endpoint.id] > 4 << 20
        assert 0 < received[slow.endpoint.id] < 3 << 20
        assert got.received < 1.4 * len(data)
        # At 20 Mbit/s the rest takes 4 s; the slow one alone would take 100.
        assert network.loop.time() < 20


@simulated(seeds=3)
async def test_a_bad_network(network):
    data = content(network, 3 << 20)
    link = Link(latency=0.03, loss=0.03, reorder=0.02, jitter=0.02, bandwidth=20 * MBIT)
    async with world(network, link) as here:
        for _ in range(3):
            await here.provider(link)
        hash = await share(here.providers, data)
        async with Downloader(here.getter, here.store) as downloader:
            await downloader.download(hash, providers=here.addrs)
        assert await here.store.read_bytes(hash, limit=len(data)) == data


@simulated()
async def test_who_is_busy_is_asked_later_and_who_refuses_never(network):
    data = content(network, 4 << 20)
    asked: list[str] = []

    def busy(request: blobs.IncomingRequest) -> blobs.Verdict:
        asked.append("busy")
        late = network.loop.time() > 3
        return blobs.Verdict.ALLOW if late else blobs.Verdict.LATER

    def refuse(request: blobs.IncomingRequest) -> blobs.Verdict:
        asked.append("refused")
        return blobs.Verdict.DENY

    async with world(network, USUAL) as here:
        await here.provider(USUAL, authorize=busy)
        refusing = await here.provider(USUAL, authorize=refuse)
        hash = await share(here.providers, data)
        async with Downloader(here.getter, here.store) as downloader:
            download = downloader.download(hash, providers=here.addrs)
            await download
        assert 3 < network.loop.time() < 9
        assert asked.count("refused") <= 2
        assert asked.count("busy") < 20
        assert "refuses" in by_reason(download)[refusing.endpoint.id]


@pytest.mark.parametrize("tell", [False, True])
@simulated()
async def test_providers_that_each_have_a_part(network, tell):
    """Two downloads in the middle of things serve a third what they have."""
    data = content(network, 8 << 20)
    asked: list[blobs.RequestKind] = []

    def note(request: blobs.IncomingRequest) -> bool:
        asked.append(request.kind)
        return True

    kinds = {blobs.RequestKind.GET, *([blobs.RequestKind.OBSERVE] if tell else [])}
    async with world(network, USUAL) as here:
        halves = [await here.provider(USUAL, serve=kinds, authorize=note) for _ in range(2)]
        whole = await here.provider(USUAL)
        hash = await share([whole], data)
        middle = blobs.ChunkRanges.chunks(0, 4000)
        for half, ranges in zip(halves, (middle, ~middle), strict=True):
            got = blobs.ChunkRangesSeq.blob(ranges | blobs.ChunkRanges.last_chunk())
            await blobs.get(half.endpoint, hash, provider=whole.addr, into=half.store, ranges=got)
        begun = network.loop.time()
        async with Downloader(here.getter, here.store) as downloader:
            await downloader.download(hash, providers=[half.addr for half in halves])
        assert await here.store.read_bytes(hash, limit=len(data)) == data
    if tell:
        # Who says what it has is not asked for anything else, and nobody has to wait.
        assert network.loop.time() - begun < 6
        assert len(asked) < 24
    assert len(asked) < 100


# --- sizes and collections ------------------------------------------------------------------------


@simulated()
async def test_all_sizes(network):
    async with world(network, Link(latency=0.01)) as here:
        for _ in range(2):
            await here.provider(Link(latency=0.01))
        async with Downloader(here.getter, here.store) as downloader:
            for size in (0, 1, 1024, 1025, 16_384, 16_385, (1 << 20) - 1, 1 << 20, 2_500_000):
                data = content(network, size)
                hash = await share(here.providers, data)
                download = downloader.download(hash, providers=here.addrs)
                got = await download
                assert await here.store.read_bytes(hash, limit=size) == data
                # A cut piece brings a little more than what is left of it.
                assert size <= got.received <= 1.1 * size + 2048
                last = download.progress
                assert (last.bytes, last.total, last.blobs, last.total_blobs) == (size, size, 1, 1)
                again = await downloader.download(hash, providers=here.addrs)
                assert again.received == 0


@simulated()
async def test_the_root_is_here_and_the_children_elsewhere(network):
    random = network.chance("files")
    files = [random.randbytes(random.randrange(1, 60_000)) for _ in range(40)]
    files += [random.randbytes(6 << 20), b"", files[3]]
    async with world(network, USUAL.replace(bandwidth=None)) as here:
        root, odd, even = [await here.provider(USUAL) for _ in range(3)]
        hashes = []
        for number, data in enumerate(files):
            hashes.append((await (odd, even)[number % 2].store.add_bytes(data)).hash)
        sequence = bytes(blobs.HashSeq(hashes))
        added = await root.store.add_bytes(sequence, blobs.BlobFormat.HASH_SEQ)
        ticket = blobs.BlobTicket(root.addr, added.hash, blobs.BlobFormat.HASH_SEQ)
        async with Downloader(here.getter, here.store) as downloader:
            download = downloader.download(str(ticket), providers=[odd.addr, even.addr])
            got = await download
        for data, hash in zip(files, hashes, strict=True):
            assert await here.store.read_bytes(hash, limit=len(data)) == data
        total = len(sequence) + sum(map(len, files)) - len(files[3])
        assert download.progress.bytes == download.progress.total == total
        assert download.progress.blobs == download.progress.total_blobs == 1 + len(set(hashes))
        assert got.received < 1.1 * total


@simulated()
async def test_many_small_files_from_several(network):
    random = network.chance("files")
    files = [random.randbytes(random.randrange(1, 3000)) for _ in range(1500)]
    requests: list[blobs.IncomingRequest] = []

    def note(request: blobs.IncomingRequest) -> bool:
        requests.append(request)
        return True

    async with world(network, USUAL.replace(bandwidth=None)) as here:
        for _ in range(3):
            provider = await here.provider(USUAL, authorize=note)
            hashes = [(await provider.store.add_bytes(data)).hash for data in files]
            sequence = bytes(blobs.HashSeq(hashes))
            root = (await provider.store.add_bytes(sequence, blobs.BlobFormat.HASH_SEQ)).hash
        content = HashAndFormat(root, blobs.BlobFormat.HASH_SEQ)
        async with Downloader(here.getter, here.store) as downloader:
            await downloader.download(content, providers=here.addrs)
        statuses = await here.store.statuses(hashes)
        assert all(status.is_complete for status in statuses)
        assert len(requests) < 60


# --- stopping and going on ------------------------------------------------------------------------


@simulated(seeds=3)
async def test_it_goes_on_where_it_was(network):
    data = content(network, 10 << 20)
    stop = network.chance("stop").randrange(1 << 20, 8 << 20)
    async with world(network, USUAL) as here:
        for _ in range(2):
            await here.provider(USUAL)
        hash = await share(here.providers, data)
        async with Downloader(here.getter, here.store) as downloader:
            async with downloader.download(hash, providers=here.addrs) as download:
                async for progress in download:
                    if progress.bytes > stop:
                        break
            first = download.progress.received
            assert not (await here.store.status(hash)).is_complete
        async with Downloader(here.getter, here.store) as downloader:
            rest = await downloader.download(hash, providers=here.addrs)
        assert await here.store.read_bytes(hash, limit=len(data)) == data
        # What is told lags a little behind what was verified, and groups that were half here are lost.
        assert abs(first + rest.received - len(data)) < 1 << 20


@simulated()
async def test_cancelling_who_waits_cancels_the_download_and_closing_all(network):
    data = content(network, 10 << 20)
    async with world(network, USUAL) as here:
        await here.provider(USUAL)
        hash = await share(here.providers, data)
        downloader = Downloader(here.getter, here.store)
        waiting = asyncio.ensure_future(wait_for(downloader.download(hash, providers=here.addrs)))
        other = downloader.download(hash, providers=here.addrs)
        await asyncio.sleep(1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await downloader.aclose()
        with pytest.raises(asyncio.CancelledError):
            await other
        assert len(downloader._shared.shares) == 0
        with pytest.raises(ConnectionError):
            downloader.download(hash)


async def wait_for(download: blobs.Download) -> None:
    await download


# --- errors ---------------------------------------------------------------------------------------


@simulated()
async def test_the_error_says_why_for_each_provider(network):
    data = content(network, 3 << 20)
    async with world(network, USUAL) as here:
        lying = await here.provider(USUAL, handler=liar(data))
        refusing = await here.provider(USUAL, authorize=lambda request: False)
        lacking = await here.provider(USUAL)
        dead = await here.provider(USUAL)
        hash = await share([refusing, dead], data)
        addrs = here.addrs
        dead.host.up = False
        async with Downloader(here.getter, here.store) as downloader:
            with pytest.raises(blobs.DownloadError) as failed:
                await downloader.download(hash, providers=addrs)
        reasons = {failure.id: failure.reason for failure in failed.value.failures}
        assert "do not belong" in reasons[lying.endpoint.id]
        assert "refuses" in reasons[refusing.endpoint.id]
        assert "lacks" in reasons[lacking.endpoint.id]
        assert "no answer" in reasons[dead.endpoint.id]
        for provider in here.providers:
            assert provider.endpoint.id.short() in str(failed.value)


@simulated()
async def test_no_provider(network):
    async with world(network, USUAL) as here, Downloader(here.getter, here.store) as downloader:
        with pytest.raises(blobs.DownloadError, match="no provider is known"):
            await downloader.download(blobs.Hash.of(b"x"))
        with pytest.raises(blobs.DownloadError, match="no provider is known"):
            await downloader.download(blobs.Hash.of(b"x"), providers=[here.getter.addr])
        with pytest.raises(ValueError, match="positive"):
            downloader.download(blobs.Hash.of(b"x"), limit=0)


@simulated()
async def test_what_is_too_large_is_not_taken(network):
    async with world(network, USUAL) as here:
        await here.provider(USUAL)
        hash = await share(here.providers, bytes(1 << 20))
        async with Downloader(here.getter, here.store) as downloader:
            with pytest.raises(blobs.DownloadError, match="larger than the limit"):
                await downloader.download(hash, providers=here.addrs, max_blob_size=1000)


@simulated()
async def test_what_is_no_hash_sequence(network):
    async with world(network, USUAL) as here:
        await here.provider(USUAL)
        hash = await share(here.providers, b"x" * 33)
        content = HashAndFormat(hash, blobs.BlobFormat.HASH_SEQ)
        async with Downloader(here.getter, here.store) as downloader:
            with pytest.raises(ValueError, match="hash sequence"):
                await downloader.download(content, providers=here.addrs)


# --- finding providers ----------------------------------------------------------------------------


class Found:
    """Finds these providers, one each second, and then fails or goes on for ever."""

    def __init__(self, addrs: Sequence[Any], error: Exception | None = None) -> None:
        self.addrs, self.error = addrs, error
        self.asked: list[HashAndFormat] = []
        self.ended = False

    async def find(self, content: HashAndFormat) -> AsyncIterator[Any]:
        self.asked.append(content)
        try:
            for addr in self.addrs:
                await asyncio.sleep(1)
                yield addr
            if self.error is not None:
                raise self.error
            await asyncio.get_running_loop().create_future()
        finally:
            self.ended = True


@simulated()
async def test_providers_are_found_meanwhile(network):
    data = content(network, 5 << 20)
    async with world(network, USUAL) as here:
        first, second = await here.provider(USUAL), await here.provider(USUAL)
        hash = await share([second], data)
        failing = Found([first.addr], OSError("the tracker is down"))
        endless = Found([here.getter.addr, second.addr, second.addr])
        async with Downloader(here.getter, here.store, discovery=[failing, endless]) as downloader:
            await downloader.download(hash)
        assert failing.asked == endless.asked == [HashAndFormat(hash)]
        assert failing.ended and endless.ended
        retries = blobs.Retries(patience=5)
        async with Downloader(
            here.getter, here.store, discovery=[failing], retries=retries
        ) as downloader:
            with pytest.raises(blobs.DownloadError, match="the tracker is down"):
                await downloader.download(blobs.Hash.of(b"nobody has it"))


# --- sharing --------------------------------------------------------------------------------------


@simulated()
async def test_downloads_share_connections(network):
    async with world(network, USUAL) as here:
        for _ in range(2):
            await here.provider(USUAL)
        contents = [content(network, size) for size in range(300_000, 300_020)]
        hashes = [await share(here.providers, data) for data in contents]
        async with Downloader(here.getter, here.store, max_requests=6) as downloader:
            downloads = [downloader.download(hash, providers=here.addrs) for hash in hashes]
            peak = 0
            for download in downloads:
                async for _ in download:
                    assert len(downloader._shared.pool) <= 2
                    running = sum(len(d._requests) for d in downloads)
                    peak = max(peak, running)
        assert 2 <= peak <= 6
        for data, hash in zip(contents, hashes, strict=True):
            assert await here.store.read_bytes(hash, limit=len(data)) == data


@simulated()
async def test_so_many_downloads_at_once(network):
    async with world(network, USUAL) as here:
        await here.provider(USUAL)
        hashes = [await share(here.providers, content(network, size)) for size in range(50, 60)]
        done: list[int] = []
        async with Downloader(here.getter, here.store, max_downloads=1) as downloader:
            for number, hash in enumerate(hashes):
                download = downloader.download(hash, providers=here.addrs, priority=number // 5)
                download.start().add_done_callback(lambda _, number=number: done.append(number))
            await asyncio.wait([download.start() for download in downloader._downloads])
        # The first was alone when it came.
        assert done == [0, 5, 6, 7, 8, 9, 1, 2, 3, 4]


@simulated()
async def test_rates_are_kept(network):
    data, more = content(network, 2_000_000), content(network, 1_000_000)
    async with world(network, USUAL) as here:
        for _ in range(2):
            await here.provider(USUAL)
        first, second = await share(here.providers, data), await share(here.providers, more)
        loop = network.loop
        async with Downloader(here.getter, here.store, limit=300_000) as downloader:
            one = downloader.download(first, providers=here.addrs)
            two = downloader.download(second, providers=here.addrs, limit=100_000)
            begun = loop.time()
            await one
            assert loop.time() - begun == pytest.approx(10, rel=0.1)
            await two
            assert loop.time() - begun == pytest.approx(10, rel=0.1)


@simulated()
async def test_the_higher_priority_goes_first(network):
    data = content(network, 8_000_000)
    async with world(network, USUAL) as here:
        await here.provider(USUAL)
        low, high = await share(here.providers, data), await share(here.providers, data[1:])
        loop = network.loop
        async with Downloader(here.getter, here.store) as downloader:
            later = downloader.download(low, providers=here.addrs)
            await asyncio.sleep(0.5)
            first = downloader.download(high, providers=here.addrs, priority=1)
            done = {}
            for name, download in (("high", first), ("low", later)):
                task = download.start()
                task.add_done_callback(lambda _, name=name: done.setdefault(name, loop.time()))
            await asyncio.gather(first, later)
        assert done["high"] < 0.5 + 1.5 * len(data) * 8 / (20 * MBIT)
        assert done["low"] > done["high"] + 1.5
