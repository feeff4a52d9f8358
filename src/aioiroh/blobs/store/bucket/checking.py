"""Whether the objects in a bucket are what their names say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from aioiroh import _native

from ...hash import Hash
from ..file.store import FileStore
from ..interface import BlobStatus, Finding
from .objects import Bucket

__all__ = ["look_through"]


async def look_through(
    bucket: Bucket, local: FileStore, hashes: Iterable[Hash] | None
) -> AsyncIterator[Finding]:
    """Reads all data of the blobs (None: of all) that are in the bucket, and hashes them.

    What a damaged one leaves is what `local` has of it.
    """
    if hashes is None:
        hashes = [hash async for hash, _ in bucket.blobs()]
    for hash in hashes:
        size = await bucket.size(hash)
        if size is None:
            continue
        hasher = _native.Blake3()
        async for piece in bucket.read(hash):
            hasher.update(piece)
            await asyncio.sleep(0)
        before = BlobStatus.complete(size)
        if hasher.digest() == bytes(hash):
            yield Finding(hash, before, before)
        else:
            after = await local.status(hash)
            yield Finding(hash, before, after, "the object in the bucket is not that of the hash")
