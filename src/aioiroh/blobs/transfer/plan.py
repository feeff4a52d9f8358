"""The core of a get: what to ask a provider for, and which items its answer holds in which order.

No I/O: the shell tells what is in the store and what has arrived.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final

from ..hash import BlobFormat, Hash, HashAndFormat
from ..hashseq import HashSeq
from ..messages import GetManyRequest, GetRequest
from ..ranges import ChunkRanges
from ..rangeseq import ChunkRangesSeq

__all__ = ["Item", "Response", "missing", "missing_of_many", "wanted_ranges"]

MAX_ENTRIES: Final = 16384
"""Entries in one request; what does not fit is asked for in the next one."""
MAX_BOUNDARIES: Final = 32768
"""Chunk boundaries in one request, likewise."""
MAX_HASHES: Final = 16384
"""Blobs in one request for many, likewise."""


def wanted_ranges(content: HashAndFormat) -> ChunkRangesSeq:
    """All of the content: the blob, or the hash sequence with its children."""
    if content.format is BlobFormat.HASH_SEQ:
        return ChunkRangesSeq.all()
    return ChunkRangesSeq.blob()


def missing(
    wanted: ChunkRangesSeq,
    root: ChunkRanges,
    children: HashSeq | None = None,
    present: Sequence[ChunkRanges] = (),
) -> ChunkRangesSeq:
    """What of `wanted` is to be asked for, given that chunks `root` of the root are there.

    `children`, if the root is known, and for each of them the chunks that are `present`. Without
    children the part of `wanted` behind the root stays as it is, maybe without end. A child that
    comes twice is asked for once. Empty: nothing is missing. A very long list is cut off: ask
    again when its blobs have arrived.
    """
    entries = [(0, wanted[0] - root)]
    if children is None:
        entries.append((1, wanted[1]))
        entries += [entry for entry in wanted.entries if entry[0] > 1]
        return ChunkRangesSeq(entries)
    asked: dict[Hash, ChunkRanges] = {}
    nothing = previous = ChunkRanges.empty()
    used = 0
    end = 1  # behind the last child that lacks something
    for index, ranges in wanted.items(1 + len(children)):
        if index == 0:
            continue
        hash = children[index - 1]
        lacking = ranges - present[index - 1]
        if lacking and hash in asked:
            lacking = lacking - asked[hash]
        if not lacking:
            continue
        asked[hash] = asked[hash] | lacking if hash in asked else lacking
        if index != end:
            entries.append((end, nothing))
            previous = nothing
        if lacking != previous:
            if len(entries) >= MAX_ENTRIES or used >= MAX_BOUNDARIES:
                break
            entries.append((index, lacking))
            used += len(lacking.boundaries)
            previous = lacking
        end = index + 1
    entries.append((end, nothing))
    return ChunkRangesSeq(entries)


def missing_of_many(
    wanted: Mapping[Hash, ChunkRanges], present: Sequence[ChunkRanges]
) -> GetManyRequest:
    """What of several blobs is to be asked for, given the chunks that are `present` of each.

    Without hashes: nothing is missing. What is too long is cut off, as in `missing`.
    """
    hashes: list[Hash] = []
    sets: list[ChunkRanges] = []
    used = 0
    for (hash, ranges), here in zip(wanted.items(), present, strict=True):
        lacking = ranges - here
        if not lacking:
            continue
        used += len(lacking.boundaries)
        if len(hashes) >= MAX_HASHES or (hashes and used > MAX_BOUNDARIES):
            break
        hashes.append(hash)
        sets.append(lacking)
    return GetManyRequest(tuple(hashes), ChunkRangesSeq.from_sets(sets))


@dataclass(slots=True)
class Item:
    """One blob's part of an answer: `index` in the request, and which chunks of which blob."""

    index: int
    hash: Hash
    ranges: ChunkRanges


class Response:
    """The items in the answer to a request, as far as they are known.

    The children of a hash sequence become known when its root has arrived (`learn`).
    """

    def __init__(
        self, request: GetRequest | GetManyRequest, children: HashSeq | None = None
    ) -> None:
        self._request = request
        self._children = children
        self._items: Iterator[Item]
        if isinstance(request, GetManyRequest):
            self._items = (
                Item(index, request.hashes[index], ranges)
                for index, ranges in request.ranges.items(len(request.hashes))
            )
        else:
            root = Item(0, request.hash, request.ranges[0])
            self._items = iter((root,) if root.ranges else ())
            if children is not None:
                self._items = chain(self._items, self._child_items(request, children))

    @staticmethod
    def _child_items(request: GetRequest, children: HashSeq) -> Iterator[Item]:
        for index, ranges in request.ranges.items(1 + len(children)):
            if index:
                yield Item(index, children[index - 1], ranges)

    @property
    def needs_children(self) -> bool:
        """True if children are asked for and the root's content is not known yet."""
        if isinstance(self._request, GetManyRequest) or self._children is not None:
            return False
        return any(end is None or end > 1 for _, end, _ in self._request.ranges.runs())

    def learn(self, children: HashSeq) -> None:
        """The root has arrived, and this is what it holds."""
        if not self.needs_children:
            raise ValueError("the children are known already, or none were asked for")
        assert isinstance(self._request, GetRequest)
        self._children = children
        self._items = chain(self._items, self._child_items(self._request, children))

    def take(self, limit: int) -> list[Item]:
        """The next items, at most `limit` of them; fewer if the children are still unknown."""
        return list(islice(self._items, limit))

    def take_all(self) -> list[Item]:
        """All that are left."""
        return list(self._items)
