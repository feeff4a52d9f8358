"""One request that is being answered: which parts it is to bring, and how far it is. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from ..ranges import CHUNK_SIZE, ChunkRanges, chunk_count
from .backlog import Part

__all__ = ["Fetch"]


P = TypeVar("P")


class Fetch(Generic[P]):
    """A request to one provider. Its parts come in order; the end of them may be cut off later."""

    def __init__(self, number: int, provider: P, parts: Sequence[Part], now: float) -> None:
        self.number = number
        self.provider = provider
        self.parts = list(parts)
        self.began = now
        self.last = now
        """When bytes came last, or it began."""
        self.at = 0
        """The part that is coming."""
        self.verified = 0
        """Payload bytes of it that have come."""
        self.received = 0
        self.size: int | None = None
        """Of the blob that is coming, in bytes, as the provider says."""
        self.is_cut = False
        """Whether the answer holds more than the parts that are left of it."""
        self.twin: int | None = None
        """Another request that brings all that this one still has to bring."""

    @property
    def is_begun(self) -> bool:
        return self.received > 0

    def arrived(self, now: float, at: int, size: int | None, verified: int) -> int:
        """Takes note of progress; how many bytes more."""
        more = verified if at > self.at else verified - self.verified
        if at < self.at or more < 0:
            return 0
        if at > self.at:
            self.size = None
        self.at, self.verified = at, verified
        if size is not None:
            self.size = size
        if more:
            self.last = now
            self.received += more
        return more

    @property
    def remaining(self) -> tuple[Part, ...]:
        """The parts that are still to come; of one that is coming, the chunks that are."""
        if self.at >= len(self.parts):
            return ()
        first = self.parts[self.at]
        rest = first.ranges.split(-(-self.verified // CHUNK_SIZE))[1] if self.verified else None
        if rest is None:
            return tuple(self.parts[self.at :])
        begun = (Part(first.index, rest),) if rest else ()
        return (*begun, *self.parts[self.at + 1 :])

    @property
    def is_over(self) -> bool:
        """Whether all that is left of a cut request has come."""
        return self.is_cut and not self.remaining

    def bytes_left(self, sizes: float) -> float:
        """About how many bytes are to come. `sizes`: what a blob of unknown size may have."""
        total = 0.0
        for number, part in enumerate(self.remaining):
            ranges = part.ranges
            if part.is_proof:
                total += CHUNK_SIZE
            elif number == 0 and self.size is not None:
                whole = self.parts[self.at].ranges.selected_bytes(self.size)
                total += max(whole - self.verified, 0)
            elif not ranges.is_infinite:
                total += sum((end or 0) - start for start, end in ranges.spans()) * CHUNK_SIZE
            else:
                total += sizes
        return total

    def proved(self, index: int, size: int) -> None:
        """The size of a blob is known: nothing comes of it from behind its end."""
        inside = ChunkRanges.chunks(0, chunk_count(size))
        for number, part in enumerate(self.parts):
            if part.index == index and not part.is_proof and not part.is_whole:
                self.parts[number] = Part(index, part.ranges & inside)

    # --- cutting ----------------------------------------------------------------------------------

    def cut_blobs(self, keep: int) -> tuple[Part, ...]:
        """Gives away the parts after the `keep` next ones."""
        end = self.at + keep
        given = tuple(self.parts[end:])
        if given:
            del self.parts[end:]
            self.is_cut = True
        return given

    def cut_ranges(self, keep: int) -> tuple[Part, ...]:
        """Gives away the chunks of the part that is coming after the `keep` next ones.

        Cuts where a chunk group ends. Only the last part can be cut.
        """
        rest = self.remaining
        if len(rest) != 1:
            return ()
        kept, given = rest[0].ranges.split(max(keep, 1))
        if given:
            # A group that is torn apart costs both sides more hashes.
            whole = kept.whole_groups() & rest[0].ranges
            kept, given = whole, rest[0].ranges - whole
        if not given:
            return ()
        part = self.parts[self.at]
        self.parts[self.at] = Part(part.index, part.ranges - given)
        self.is_cut = True
        return (Part(part.index, given),)
