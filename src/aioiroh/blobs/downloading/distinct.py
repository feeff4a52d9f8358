"""Which hashes of a long list come for the first time."""

from __future__ import annotations

import asyncio

__all__ = ["Distinct"]

SHARDS = 256


class Distinct:
    """A set of hashes, as many small sets: one of a million would hold up the loop when it grows or goes."""

    def __init__(self) -> None:
        self._shards: list[set[bytes]] = [set() for _ in range(SHARDS)]
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, hash: bytes) -> bool:
        """Whether it was not there."""
        # Hashes are as good as chance, so the shards have the same size.
        shard = self._shards[hash[0] % SHARDS]
        if hash in shard:
            return False
        shard.add(hash)
        self._count += 1
        return True

    async def clear(self) -> None:
        """Forgets all, a little at a time."""
        for shard in self._shards:
            shard.clear()
            await asyncio.sleep(0)
