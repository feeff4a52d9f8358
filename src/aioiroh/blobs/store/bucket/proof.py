"""Verifying a range of a blob whose data and outboard lie elsewhere, and answering with it. No I/O.

What is fetched is put in the form of a response on the wire, which the native decoder verifies: the hash
pairs and chunk groups that a query touches, in the order of the tree (blobs specification, 1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from aioiroh import _native

from ...hash import Hash
from ...ranges import GROUP_SIZE, ChunkRanges

__all__ = ["CHUNKS", "PAIR", "answered", "groups_of", "pairs_for", "verified"]

PAIR: Final = 64
"""Bytes of a pair of hashes."""
CHUNKS: Final = GROUP_SIZE // 1024
"""Chunks in a chunk group."""


def groups_of(size: int) -> int:
    """Number of chunk groups of a blob of `size` bytes; an empty one has one."""
    return max(1, -(-size // GROUP_SIZE))


def walk(groups: int, first: int, end: int) -> Iterator[tuple[int | None, int]]:
    """What a response for groups `first` up to and without `end` consists of, in order.

    (n, start): pair n of the outboard, which is in pre-order, for groups from `start` on; (None, n): the
    data of group n.
    """
    nodes = [(0, groups, 0)]
    while nodes:
        start, count, slot = nodes.pop()
        if start >= end or start + count <= first:
            continue
        if count == 1:
            yield None, start
            continue
        yield slot, start
        # The left side is the largest power of two below the number of groups.
        left = 1 << ((count - 1).bit_length() - 1)
        nodes.append((start + left, count - left, slot + left))
        nodes.append((start, left, slot + 1))


def pairs_for(groups: int, first: int, end: int) -> list[tuple[int, int]]:
    """Runs of pairs of the outboard, from and to, that prove these groups, in order."""
    runs: list[tuple[int, int]] = []
    for slot, _ in walk(groups, first, end):
        if slot is None:
            continue
        if runs and runs[-1][1] == slot:
            runs[-1] = (runs[-1][0], slot + 1)
        else:
            runs.append((slot, slot + 1))
    return runs


def verified(
    hash: Hash, size: int, first: int, end: int, data: bytes, pairs: Sequence[bytes]
) -> bytes:
    """`data`, the content of groups `first` up to and without `end`, if it belongs to the blob.

    `pairs`: what the runs of `pairs_for` hold. ValueError: something does not match the hash.
    """
    encoded = size.to_bytes(8, "little") + answered(size, first, end, -1, data, pairs)
    query = ChunkRanges.chunks(first * CHUNKS, end * CHUNKS)
    leaves = _native.decode_blob(bytes(hash), query.boundaries, encoded)
    return b"".join(leaf for _, leaf in leaves)


def answered(
    size: int, first: int, end: int, before: int, data: bytes, pairs: Sequence[bytes]
) -> bytes:
    """What a response has of these groups, behind what it has of groups up to `before` (-1: none)."""
    view, proof = memoryview(data), memoryview(b"".join(pairs))
    parts: list[memoryview] = []
    at = 0
    for slot, start in walk(groups_of(size), first, end):
        if slot is None:
            offset = (start - first) * GROUP_SIZE
            parts.append(view[offset : offset + GROUP_SIZE])
        else:
            if start > before:
                parts.append(proof[at : at + PAIR])
            at += PAIR
    return b"".join(parts)
