"""What lies in the bucket, and how it gets there.

    <prefix>aioiroh.json             format, and which staging folder keeps the bucket
    <prefix>outboard/<xx>/<hash>     outboard of a blob of more than one chunk group
    <prefix>data/<xx>/<hash>         the blob; written last, so a blob whose data are there is complete

`xx` are the first two digits of the hash. Objects appear whole, so nobody ever sees a part of a blob.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from aioiroh.errors import DecodeError

from ...errors import StorageError, StoreFormatError
from ...hash import Hash
from ...ranges import GROUP_SIZE
from .proof import PAIR, groups_of, pairs_for, verified

if TYPE_CHECKING:
    from obstore.store import ObjectStore

__all__ = ["Bucket", "Groups", "owner_of"]

FORMAT: Final = 1
MARKER: Final = "aioiroh.json"
SMALL: Final = 8 * 1024 * 1024
"""Blobs up to this many bytes are written in one request."""
KNOWN: Final = 65_536
"""Blobs whose sizes are remembered, so that they are asked for once."""
STREAM_PIECE: Final = 1024 * 1024
PATIENCE: Final[dict[str, Any]] = {"max_retries": 5, "retry_timeout": timedelta(seconds=30)}
"""How long one request is tried again, for buckets that are given by URL."""


@dataclass(frozen=True, slots=True)
class Groups:
    """Chunk groups of a blob that lie side by side, and what proves them."""

    data: bytes
    pairs: tuple[tuple[int, bytes], ...]
    """Parts of the outboard, and where in it they begin."""


class Bucket:
    """The objects of one store. Methods raise StorageError if the storage fails."""

    def __init__(self, objects: ObjectStore, prefix: str) -> None:
        import obstore

        self._api: Any = obstore
        self._objects = objects
        self._sizes: dict[Hash, int] = {}
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    @classmethod
    def open(cls, target: str | ObjectStore, prefix: str, options: dict[str, Any]) -> Self:
        """From a URL (`s3://bucket/prefix`) with obstore's options, or one of obstore's stores.

        ImportError: obstore is not installed.
        """
        try:
            import obstore.store
        except ImportError as error:
            raise ImportError("obstore is missing; install aioiroh[s3]") from error
        if not isinstance(target, str):
            return cls(target, prefix)
        options = {"retry_config": PATIENCE, **options}
        return cls(obstore.store.from_url(target, **options), prefix)

    async def claim(self, owner: str) -> bool:
        """Notes whose the bucket is if nobody's; whether it is `owner`'s.

        StoreFormatError: it holds something else.
        """
        path = f"{self._prefix}{MARKER}"
        with self._failing("open the bucket"):
            try:
                found = await self._api.get_async(self._objects, path)
            except FileNotFoundError:
                marker = json.dumps({"format": FORMAT, "owner": owner}).encode()
                await self._api.put_async(self._objects, path, marker)
                return True
            text = bytes(await found.bytes_async())
        try:
            marker = json.loads(text)
            format, keeper = marker["format"], marker["owner"]
        except (ValueError, TypeError, KeyError):
            raise StoreFormatError(
                f"{path} in the bucket is not a store's; take a prefix"
            ) from None
        if format != FORMAT:
            raise StoreFormatError(f"the bucket has format {format}, this version knows {FORMAT}")
        return bool(keeper == owner)

    # --- reading

    async def size(self, hash: Hash) -> int | None:
        """Size of a blob in bytes; None: it is not there."""
        size = self._sizes.get(hash)
        if size is None:
            with self._failing(f"look for blob {hash}"):
                try:
                    meta = await self._api.head_async(self._objects, self._data(hash))
                except FileNotFoundError:
                    return None
            size = int(meta["size"])
            if len(self._sizes) >= KNOWN:
                del self._sizes[next(iter(self._sizes))]
            self._sizes[hash] = size
        return size

    def forget(self, hash: Hash) -> None:
        """It may be there no more."""
        self._sizes.pop(hash, None)

    async def read(self, hash: Hash) -> AsyncIterator[bytes]:
        """All of a blob, in pieces, not verified."""
        with self._failing(f"read blob {hash}"):
            found = await self._api.get_async(self._objects, self._data(hash))
            async for piece in found.stream(min_chunk_size=STREAM_PIECE):
                yield bytes(piece)

    async def groups(self, hash: Hash, size: int, first: int, end: int) -> Groups:
        """Chunk groups `first` up to and without `end` of a blob of `size` bytes, verified."""
        with self._failing(f"read blob {hash}"):
            stop = min(end * GROUP_SIZE, size)
            data = await self._api.get_range_async(
                self._objects, self._data(hash), start=first * GROUP_SIZE, end=stop
            )
            runs = pairs_for(groups_of(size), first, end)
            pairs: list[bytes] = []
            if runs:
                found = await self._api.get_ranges_async(
                    self._objects,
                    self._outboard(hash),
                    starts=[start * PAIR for start, _ in runs],
                    ends=[end * PAIR for _, end in runs],
                )
                pairs = [bytes(run) for run in found]
        try:
            content = verified(hash, size, first, end, bytes(data), pairs)
        except ValueError as error:
            raise StorageError(
                f"the bucket's objects of blob {hash} are damaged ({error}); repair the store"
            ) from None
        starts = [start * PAIR for start, _ in runs]
        return Groups(content, tuple(zip(starts, pairs, strict=True)))

    async def blobs(self) -> AsyncIterator[tuple[Hash, int]]:
        """Hash and size of every blob."""
        with self._failing("list the bucket"):
            async for page in self._api.list(self._objects, prefix=f"{self._prefix}data"):
                for meta in page:
                    name = meta["path"].rpartition("/")[2]
                    try:
                        hash = Hash.parse(name)
                    except DecodeError:
                        continue  # not ours
                    yield hash, int(meta["size"])

    # --- writing

    async def write(
        self, hash: Hash, size: int, pieces: AsyncIterable[bytes], outboard: bytes
    ) -> None:
        """Makes a blob of verified data part of the bucket."""
        with self._failing(f"write blob {hash}"):
            if groups_of(size) > 1:
                await self._api.put_async(self._objects, self._outboard(hash), outboard)
            data: Any = pieces
            if size <= SMALL:
                data = b"".join([piece async for piece in pieces])
            await self._api.put_async(
                self._objects, self._data(hash), data, use_multipart=size > SMALL
            )

    async def delete(self, hash: Hash) -> None:
        """Takes a blob away. That it is not there is no error."""
        with self._failing(f"delete blob {hash}"):
            for path in (self._data(hash), self._outboard(hash)):
                try:
                    await self._api.delete_async(self._objects, path)
                except FileNotFoundError:
                    continue
                finally:
                    self.forget(hash)

    # --- names and failures

    def _data(self, hash: Hash) -> str:
        return f"{self._prefix}data/{hash.hex()[:2]}/{hash.hex()}"

    def _outboard(self, hash: Hash) -> str:
        return f"{self._prefix}outboard/{hash.hex()[:2]}/{hash.hex()}"

    @contextmanager
    def _failing(self, what: str) -> Iterator[None]:
        try:
            yield
        except (self._api.exceptions.BaseError, OSError) as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(f"the object storage failed to {what}: {error}") from error


def owner_of(path: Path) -> str:
    """Who a staging folder is, for a bucket: what is noted at `path`, now if need be."""
    if not path.exists():
        path.write_text(secrets.token_hex(16), encoding="ascii")
    return path.read_text(encoding="ascii")
