"""Whether the data behind a handle are what the handle says."""

from __future__ import annotations

import asyncio

from aioiroh import _native

from ..hash import Hash
from .interface import BlobStatus, Finding
from .local import handle_status
from .reader import PIECE

__all__ = ["check_handle"]


async def check_handle(hash: Hash, handle: _native.Blob) -> Finding:
    """Reads a complete blob and hashes it; parts of one are taken for what they are."""
    before = handle_status(handle)
    if not before.is_complete or before.size is None:
        return Finding(hash, before, before)
    hasher = _native.Blake3()
    try:
        for offset in range(0, before.size, PIECE):
            hasher.update(handle.read(offset, PIECE))
            await asyncio.sleep(0)
    except (OSError, ValueError) as error:
        return Finding(hash, before, BlobStatus.missing(), f"the data cannot be read: {error}")
    if hasher.digest() == bytes(hash):
        return Finding(hash, before, before)
    return Finding(hash, before, BlobStatus.missing(), "the data are not those of the hash")
