"""Hash sequences that a store holds, in memory once each."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from ..errors import IncompleteBlobError
from ..hash import Hash
from ..hashseq import MAX_HASH_SEQ_SIZE, HashSeq

if TYPE_CHECKING:
    from .interface import Store

__all__ = ["read_hash_seq"]

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
