"""The store in a bucket against a real S3 server, also while that fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import aioiroh
from aioiroh import blobs, presets, serve
from aioiroh.blobs import BlobFormat, BucketStore, Hash, HashAndFormat
from aioiroh.endpoint import Endpoint
from s3_server import Proxy, S3Server

NO_PATIENCE = {"retry_config": {"max_retries": 0, "retry_timeout": timedelta(seconds=5)}}
LARGE = 24 * 1024 * 1024
"""Bytes that take several parts of a multipart upload."""


@pytest.fixture
def opened(s3_server: S3Server, tmp_path: Path) -> Callable[..., Any]:
    def make(staging: str = "staging", *, port: int | None = None, **options: Any) -> Any:
        bucket = s3_server.bucket(port, **{**NO_PATIENCE, **options.pop("s3", {})})
        folder = tmp_path / staging
        return BucketStore.open(bucket, staging=folder, prefix=tmp_path.name, **options)

    return make


async def test_everything_over_s3(opened, tmp_path):
    large, small = os.urandom(LARGE), os.urandom(20_000)
    async with (
        blobs.MemoryStore() as source,
        Endpoint.bind(preset=presets.loopback) as endpoint,
        serve({blobs.ALPN: blobs.Provider(source)}, preset=presets.loopback) as router,
    ):
        parts = [await source.add_bytes(large), await source.add_bytes(small)]
        root = await source.add_bytes(
            b"".join(bytes(part.hash) for part in parts), BlobFormat.HASH_SEQ
        )
        tree = HashAndFormat(root.hash, BlobFormat.HASH_SEQ)
        async with await opened() as store:
            await blobs.get(endpoint, tree, provider=router.endpoint.addr, into=store)
            store.tags.set(b"tree", tree)
            unwanted = await store.add_bytes(b"unwanted")
            unwanted.tag.release()
            await store.flush()
            assert await store.collect_garbage() == 1
            assert {hash async for hash, _ in store.blobs()} == {
                root.hash,
                *(part.hash for part in parts),
            }
            assert all([finding.is_good async for finding in store.verify()])
    # Elsewhere, with nothing but the bucket: ranges, and serving.
    async with (
        await opened("elsewhere") as store,
        Endpoint.bind(preset=presets.loopback) as endpoint,
        serve({blobs.ALPN: blobs.Provider(store)}, preset=presets.loopback) as router,
        blobs.MemoryStore() as target,
    ):
        async with store.reader(parts[0].hash) as reader:
            assert (
                await reader.read_at(LARGE // 2 + 7, 100_000) == large[LARGE // 2 + 7 :][:100_000]
            )
        await blobs.get(endpoint, tree, provider=router.endpoint.addr, into=target)
        assert await target.read_bytes(parts[0].hash, limit=LARGE) == large


async def test_the_server_is_killed_and_comes_back(opened, s3_server):
    data = os.urandom(LARGE)
    async with await opened() as store:
        s3_server.kill()
        added = await store.add_bytes(data)
        with pytest.raises(blobs.StorageError):
            await store.flush()
        assert store.pending == 1
        s3_server.start()
        await store.flush()
        assert store.pending == 0
    async with await opened("elsewhere") as store:
        assert await store.read_bytes(added.hash, limit=LARGE) == data


@pytest.mark.parametrize("passed", [100, 1_000_000, LARGE // 2, LARGE])
async def test_an_upload_that_is_cut_anywhere(opened, s3_server, passed):
    data = os.urandom(LARGE)
    proxy = Proxy(s3_server.port)
    async with proxy.running(), await opened(port=proxy.port) as store:
        proxy.left = passed
        added = await store.add_bytes(data)
        with pytest.raises(blobs.StorageError):
            await store.flush()
        assert proxy.cut and store.pending == 1
        async with await opened("elsewhere") as other:
            assert not (await other.status(added.hash)).is_complete
        proxy.left = None
        await store.flush()
    async with await opened("elsewhere") as other:
        assert await other.read_bytes(added.hash, limit=LARGE) == data


async def test_a_download_that_is_cut(opened, s3_server):
    data = os.urandom(LARGE)
    async with await opened() as store:
        added = await store.add_bytes(data)
    proxy = Proxy(s3_server.port)
    async with proxy.running(), await opened("elsewhere", port=proxy.port) as store:
        assert (await store.status(added.hash)).is_complete
        proxy.left = LARGE // 2
        with pytest.raises(blobs.StorageError):
            await store.handle(added.hash)
        proxy.left = None
        handle = await store.handle(added.hash)
        assert handle is not None and handle.is_complete


async def test_503_is_tried_again(opened, s3_server):
    proxy = Proxy(s3_server.port)
    patient = {"retry_config": {"max_retries": 5, "retry_timeout": timedelta(seconds=60)}}
    async with proxy.running():
        async with await opened(port=proxy.port, s3=patient) as store:
            await store.flush()
        proxy.refusing = 3
        async with await opened(port=proxy.port, s3=patient) as store:
            added = await store.add_bytes(b"patience")
            await store.flush()
            assert (proxy.refused, store.pending) == (3, 0)
            assert (await store.status(added.hash)).is_complete


async def test_a_server_that_hangs(opened, s3_server):
    proxy = Proxy(s3_server.port)
    hurried = {"client_options": {"allow_http": True, "timeout": "1s"}}
    async with proxy.running(), await opened(port=proxy.port, s3=hurried) as store:
        proxy.stalled = True
        added = await store.add_bytes(b"slow")
        with pytest.raises(blobs.StorageError):
            await store.flush()
        assert await store.read_bytes(added.hash, limit=4) == b"slow"
        proxy.stalled = False
        await store.flush()


ADDING = """
import asyncio, os, sys
from datetime import timedelta
import obstore.store
from aioiroh.blobs import BucketStore

async def main(port, prefix, staging):
    bucket = obstore.store.S3Store(
        "blobs", endpoint=f"http://127.0.0.1:{port}", region="us-east-1",
        access_key_id="access", secret_access_key="secret", client_options={"allow_http": True},
    )
    store = await BucketStore.open(bucket, staging=staging, prefix=prefix)
    while True:
        added = await store.add_bytes(os.urandom(200_000))
        print(added.hash, store.pending, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def add_until_killed(count: int, *arguments: object) -> list[Hash]:
    """The first blobs that a process said it had added, before it was killed."""
    command = [sys.executable, "-c", ADDING, *map(str, arguments)]
    source = str(Path(aioiroh.__file__).parent.parent)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": source}
    ) as process:
        assert process.stdout is not None
        hashes = [Hash.parse(process.stdout.readline().split()[0]) for _ in range(count)]
        process.kill()
        return hashes


@pytest.mark.parametrize("count", [1, 7, 30])
async def test_killed_while_it_moves_blobs(opened, s3_server, tmp_path, count):
    """What the process said it had is there after `kill -9`, and moves on to the bucket."""
    hashes = add_until_killed(count, s3_server.port, tmp_path.name, tmp_path / "staging")
    async with await opened() as store:
        assert all([(await store.status(hash)).is_complete for hash in hashes])
        await store.flush()
        moved = {hash async for hash, _ in store._bucket.blobs()}
        assert set(hashes) <= moved
        assert all([finding.is_good async for finding in store.verify()])
