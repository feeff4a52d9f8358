"""Hash sequences that a store holds, in memory once each."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aioiroh.errors import DecodeError

from ..errors import IncompleteBlobError, NotFoundError
from ..hash import HASH_SIZE, Hash
from ..hashseq import MAX_HASH_SEQ_SIZE, HashSeq
from ..ranges import CHUNK_SIZE, ChunkRanges
from ..rangeseq import ChunkRangesSeq
from .reader import read_slowly

if TYPE_CHECKING:
    from .interface import Store

__all__ = ["KnownChildren", "read_hash_seq", "read_known_children"]

_HASH_SEQS: weakref.WeakValueDictionary[Hash, HashSeq] = weakref.WeakValueDictionary()
"""Those in use, so that a hundred requests for a large one keep it in memory once."""


async def read_hash_seq(store: Store, hash: Hash) -> HashSeq:
    """The hash sequence in a store.

    NotFoundError or IncompleteBlobError: it is not all there. DecodeError: it is none.
    BlobTooLargeError: it is over 32 MiB.
    """
    if not (await store.status(hash)).is_complete:
        raise IncompleteBlobError(f"the hash sequence {hash} is not complete; ask for all of it")
    sequence = _HASH_SEQS.get(hash)
    if sequence is None:
        sequence = HashSeq.from_bytes(await store.read_bytes(hash, limit=MAX_HASH_SEQ_SIZE))
        _HASH_SEQS[hash] = sequence
    return sequence


@dataclass(frozen=True, slots=True)
class KnownChildren:
    """As much of a hash sequence as is here.

    `hashes` reaches to the last chunk that is `present`, with zeros where one is missing; if `is_end`,
    nothing follows.
    """

    hashes: HashSeq
    present: ChunkRanges
    is_end: bool

    def knows(self, child: int) -> bool:
        """Whether the hash of this child is here."""
        return child * HASH_SIZE // CHUNK_SIZE in self.present

    def reaches(self, ranges: ChunkRangesSeq) -> bool:
        """Whether nothing is asked for behind what is here; the end counts as here."""
        if self.is_end:
            return True
        known = 1 + len(self.hashes)
        return all(end is not None and end <= known for _, end, _ in ranges.runs())

    def knows_all(self, ranges: ChunkRangesSeq) -> bool:
        """Whether the hashes of all children that are asked for are here."""
        asked = ranges.items(1 + len(self.hashes))
        return self.reaches(ranges) and all(
            index == 0 or self.knows(index - 1) for index, _ in asked
        )


async def read_known_children(store: Store, hash: Hash) -> KnownChildren:
    """The hash sequence in a store, or the chunks of it that are here.

    NotFoundError: nothing of it is. Others as `read_hash_seq`.
    """
    status = await store.status(hash)
    if status.is_complete:
        return KnownChildren(await read_hash_seq(store, hash), ChunkRanges.all(), True)
    handle = await store.handle(hash)
    if handle is None or status.size is None or not status.present:
        raise NotFoundError(f"the store has nothing of the hash sequence {hash}; ask for it")
    if status.size_verified and status.size % HASH_SIZE:
        raise DecodeError(
            f"not a hash sequence: {status.size} bytes are no multiple of {HASH_SIZE}"
        )
    limit = min(status.size, MAX_HASH_SEQ_SIZE)
    data = bytearray()
    for start, end in status.present.spans():
        begin = start * CHUNK_SIZE
        stop = limit if end is None else min(end * CHUNK_SIZE, limit)
        if begin >= stop:
            break
        data.extend(bytes(begin - len(data)))
        data += await read_slowly(handle, begin, stop - begin)
    # A size that is not proved may be no multiple.
    del data[len(data) - len(data) % HASH_SIZE :]
    is_end = status.size_verified and len(data) == status.size
    return KnownChildren(HashSeq.from_bytes(data), status.present, is_end)
