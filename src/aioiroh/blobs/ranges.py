"""Sets of chunks of one blob (a chunk is 1024 bytes), as sorted boundaries that toggle membership."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

__all__ = ["CHUNK_SIZE", "GROUP_CHUNKS", "GROUP_SIZE", "MAX_CHUNK", "ChunkRanges"]

CHUNK_SIZE: Final = 1024
"""Bytes in a BLAKE3 leaf; the unit of every range on the wire."""
GROUP_CHUNKS: Final = 16
GROUP_SIZE: Final = GROUP_CHUNKS * CHUNK_SIZE
"""Bytes in a chunk group: the unit in which stores keep hash pairs."""
MAX_CHUNK: Final = 2**64 - 1


class ChunkRanges:
    """An immutable set of chunk numbers between 0 and 2**64 - 1.

    Kept as boundaries, strictly increasing: `()` is empty, `(0,)` everything, `(a, b)` is `a..b`
    (b excluded), `(a,)` is `a..` without end. Supports `|`, `&`, `-`, `^`, `~`, `<=` (subset),
    `in` and truth (not empty).
    """

    __slots__ = ("_boundaries",)
    _boundaries: tuple[int, ...]

    def __init__(self, boundaries: Iterable[int] = ()) -> None:
        """Raises ValueError unless `boundaries` are strictly increasing and fit in 64 bits."""
        values = tuple(boundaries)
        last = -1
        for value in values:
            if value <= last or value > MAX_CHUNK:
                raise ValueError(
                    f"chunk boundaries must be strictly increasing 64-bit numbers, not {values!r}"
                )
            last = value
        self._boundaries = values

    # --- making them -----------------------------------------------------------------------------

    @classmethod
    def empty(cls) -> ChunkRanges:
        """No chunk at all."""
        return _EMPTY

    @classmethod
    def all(cls) -> ChunkRanges:
        """Every chunk, whatever the size of the blob."""
        return _ALL

    @classmethod
    def last_chunk(cls) -> ChunkRanges:
        """The last chunk, whatever the size of the blob: receiving it proves the size."""
        return _LAST

    @classmethod
    def chunks(cls, start: int, end: int | None = None) -> ChunkRanges:
        """Chunks `start` up to and without `end`; without end if `end` is None."""
        if end is None:
            return cls((start,))
        return cls((start, end)) if start < end else _EMPTY

    @classmethod
    def bytes(cls, start: int, end: int | None = None) -> ChunkRanges:
        """The chunks that hold bytes `start` up to and without `end` (None: to the end)."""
        if start < 0 or (end is not None and end < 0):
            raise ValueError("byte offsets must not be negative")
        if end is None:
            return cls((start // CHUNK_SIZE,))
        if start >= end:
            return _EMPTY
        return cls((start // CHUNK_SIZE, -(-end // CHUNK_SIZE)))

    # --- looking at them -------------------------------------------------------------------------

    @property
    def boundaries(self) -> tuple[int, ...]:
        """The canonical boundaries; the form that the native module takes."""
        return self._boundaries

    @property
    def is_all(self) -> bool:
        return self._boundaries == (0,)

    @property
    def is_infinite(self) -> bool:
        """True if there is no upper end."""
        return len(self._boundaries) % 2 == 1

    def __bool__(self) -> bool:
        return bool(self._boundaries)

    def __contains__(self, chunk: int) -> bool:
        # The number of boundaries at or below `chunk` is odd inside a span.
        low, high = 0, len(self._boundaries)
        while low < high:
            middle = (low + high) // 2
            if self._boundaries[middle] <= chunk:
                low = middle + 1
            else:
                high = middle
        return low % 2 == 1

    def spans(self) -> Iterator[tuple[int, int | None]]:
        """`(start, end)` of each span in ascending order; the last end is None if infinite."""
        bounds = self._boundaries
        for at in range(0, len(bounds), 2):
            yield bounds[at], bounds[at + 1] if at + 1 < len(bounds) else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ChunkRanges) and self._boundaries == other._boundaries

    def __hash__(self) -> int:
        return hash(self._boundaries)

    def __repr__(self) -> str:
        spans = ", ".join(f"{a}..{'' if b is None else b}" for a, b in self.spans())
        return f"ChunkRanges({spans})"

    # --- algebra ---------------------------------------------------------------------------------

    def __or__(self, other: ChunkRanges) -> ChunkRanges:
        return _merge(self, other, lambda a, b: a or b)

    def __and__(self, other: ChunkRanges) -> ChunkRanges:
        if other.is_all:
            return self
        return other if self.is_all else _merge(self, other, lambda a, b: a and b)

    def __sub__(self, other: ChunkRanges) -> ChunkRanges:
        return _merge(self, other, lambda a, b: a and not b)

    def __xor__(self, other: ChunkRanges) -> ChunkRanges:
        return _merge(self, other, lambda a, b: a != b)

    def __invert__(self) -> ChunkRanges:
        return self ^ _ALL

    def __le__(self, other: ChunkRanges) -> bool:
        return other.is_all or not self - other

    def isdisjoint(self, other: ChunkRanges) -> bool:
        return not self & other

    def split(self, count: int) -> tuple[ChunkRanges, ChunkRanges]:
        """The first `count` chunks, and the rest."""
        for start, end in self.spans():
            length = (MAX_CHUNK if end is None else end) - start
            if count < length:
                first = ChunkRanges.chunks(0, start + count)
                return self & first, self - first
            count -= length
        return self, _EMPTY

    # --- with a blob of known size ---------------------------------------------------------------

    def select(self, size: int) -> ChunkRanges:
        """The chunks that a response really carries for a blob of `size` bytes.

        A query that reaches the last chunk or past it returns the last chunk (iroh wire format).
        """
        if not self._boundaries:
            return _EMPTY
        count = chunk_count(size)
        if self.is_all:
            return ChunkRanges.chunks(0, count)
        inside = self & ChunkRanges.chunks(0, count)
        if self.is_infinite or self._boundaries[-1] >= count:
            inside = inside | ChunkRanges.chunks(count - 1, count)
        return inside

    def byte_count(self, size: int) -> int:
        """How many bytes of a blob of `size` bytes lie in these chunks."""
        total = 0
        for start, end in self.spans():
            if start * CHUNK_SIZE >= size:
                break
            last = size if end is None else min(end * CHUNK_SIZE, size)
            total += last - start * CHUNK_SIZE
        return total

    def selected_bytes(self, size: int) -> int:
        """How many bytes a response carries for a blob of `size` bytes."""
        return size if self.is_all else self.select(size).byte_count(size)

    def whole_groups(self) -> ChunkRanges:
        """Widened to the chunk groups that these chunks touch."""
        toggles: list[int] = []
        for start, end in self.spans():
            low = start // GROUP_CHUNKS * GROUP_CHUNKS
            if toggles and low <= toggles[-1]:
                toggles.pop()
            else:
                toggles.append(low)
            if end is None or end > MAX_CHUNK - GROUP_CHUNKS:
                break
            toggles.append(-(-end // GROUP_CHUNKS) * GROUP_CHUNKS)
        return _make(tuple(toggles))


def chunk_count(size: int) -> int:
    """Number of chunks of a blob of `size` bytes; an empty blob has one, empty, chunk."""
    return max(1, -(-size // CHUNK_SIZE))


def _make(boundaries: tuple[int, ...]) -> ChunkRanges:
    ranges = ChunkRanges.__new__(ChunkRanges)
    ranges._boundaries = boundaries
    return ranges


def _merge(a: ChunkRanges, b: ChunkRanges, keep: Callable[[bool, bool], bool]) -> ChunkRanges:
    """Walks both boundary lists once; `keep` says whether a place is in the result."""
    left, right = a._boundaries, b._boundaries
    result: list[int] = []
    i = j = 0
    inside = False
    while i < len(left) or j < len(right):
        take_left = j == len(right) or (i < len(left) and left[i] <= right[j])
        at = left[i] if take_left else right[j]
        i += i < len(left) and left[i] == at
        j += j < len(right) and right[j] == at
        if keep(i % 2 == 1, j % 2 == 1) != inside:
            inside = not inside
            result.append(at)
    return _make(tuple(result))


_EMPTY: Final = _make(())
_ALL: Final = _make((0,))
_LAST: Final = _make((MAX_CHUNK,))
