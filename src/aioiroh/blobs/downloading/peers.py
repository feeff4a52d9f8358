"""What a download knows of one provider: how fast it is, what it lacks, when to ask it again. No I/O."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from aioiroh.aio import Backoff

from ..ranges import ChunkRanges
from .backlog import SMALLEST_PIECE, Part

__all__ = ["FIRST_GROUP", "LACKS", "Peer", "PeerState", "Rate", "Retries"]

LARGEST_PIECE: Final = 8 << 20
PIECE_TIME: Final = 0.5
"""Seconds that a piece should take."""
AHEAD_TIME: Final = 0.25
"""Seconds of a provider's rate, besides its latency, that are asked for ahead; twice that in all."""
FEWEST_REQUESTS: Final = 2
MOST_REQUESTS: Final = 8
"""Requests to one provider at once."""
MOST_LACKING: Final = 4096
"""Blobs of which a provider may lack something before it is given up."""
FIRST_GROUP: Final = 16
LARGEST_GROUP: Final = 1024
"""Small blobs in one request: before their sizes are known, and at most."""
LACKS: Final = "it lacks what is missing"
MOST_CAUTION: Final = 64
RATE_TIME: Final = 1.0
"""Seconds over which a rate is averaged."""
FINEST: Final = 6
"""Halvings from the smallest piece to a chunk group, of which nobody can send a part alone."""
MOST_MISSES: Final = 32
"""Requests in a row for what it lacks, after which a provider is left alone for a while."""
MOST_BEATEN: Final = 3
"""Times that others may be faster before a provider is left alone for a while."""
SAMPLE: Final = 64 << 10
"""Bytes that tell something about a rate within moments."""
USUAL_LATENCY: Final = 0.1


@dataclass(frozen=True, slots=True)
class Retries:
    """When a download asks again, and when it gives up. Times in seconds.

    A provider that fails is asked again after `first_delay`, then after twice that and so on up to
    `longest_delay`; what it lacks likewise. After `tries` failures without a byte between them it is
    given up. The download is given up after `patience` without a byte from anybody. A provider that
    sends nothing for `stall_time` has failed.
    """

    tries: int = 5
    first_delay: float = 0.5
    longest_delay: float = 30.0
    patience: float = 60.0
    stall_time: float = 10.0

    def __post_init__(self) -> None:
        """Raises ValueError when a value makes no sense."""
        if self.tries < 1 or not 0 < self.first_delay <= self.longest_delay:
            raise ValueError("wanted: at least one try, and 0 < first_delay <= longest_delay")
        if self.patience <= 0 or self.stall_time <= 0:
            raise ValueError("patience and stall_time must be positive")


class PeerState(Enum):
    """What is being done with a provider."""

    WAITING = "waiting"
    """Not connected: it is not needed now, or not to be asked yet."""
    CONNECTING = "connecting"
    READY = "ready"
    OUT = "out"
    """Not asked any more in this download."""


class Rate:
    """Bytes per second, averaged over the last second or so in which anything was to come."""

    __slots__ = ("_at", "_count", "_missing", "_sum")

    def __init__(self) -> None:
        self._sum = 0.0
        self._count = 0
        # The weight of the time before it was first measured.
        self._missing = 1.0
        self._at: float | None = None

    def resume(self, now: float) -> None:
        """From now on something is to come."""
        if self._at is None:
            self._at = now

    def pause(self, now: float) -> None:
        """Nothing is to come."""
        self._advance(now)
        self._at = None

    def add(self, now: float, count: int) -> None:
        """So many bytes have come."""
        self._advance(now)
        self._sum += count / RATE_TIME
        self._count += count

    def get(self, now: float) -> float:
        """The rate; 0 if too little has come in too little time to know it."""
        self._advance(now)
        if self._missing > (0.98 if self._count >= SAMPLE else 0.5):
            return 0.0
        return self._sum / (1.0 - self._missing)

    def _advance(self, now: float) -> None:
        if self._at is not None and now > self._at:
            decay = math.exp((self._at - now) / RATE_TIME)
            self._sum *= decay
            self._missing *= decay
            self._at = now


class Peer:
    """One provider of one download."""

    def __init__(self, retries: Retries, random: Callable[[], float]) -> None:
        self.state = PeerState.WAITING
        self.reason = ""
        """Why it failed last."""
        self.is_banned = False
        """Whether it may not come back when it is found again."""
        self.fetches: set[int] = set()
        self.rate = Rate()
        self.latency = USUAL_LATENCY
        """Seconds from a request to the first bytes."""
        self.received = 0
        self.until = 0.0
        """Not to be asked before this time."""
        self.failed_at = -math.inf
        self.allotted: int | None = None
        """Requests that it may be asked at once; None: as many as are useful."""
        self.tells = False
        """Whether it says what it has, when it lacks something."""
        self.group = FIRST_GROUP
        """Small blobs that it may be asked for in one request."""
        self._retries = retries
        self._backoff = Backoff(retries.first_delay, retries.longest_delay, random=random)
        self._failures = 0
        self._lacking: dict[int, ChunkRanges] = {}
        self._most_requests = MOST_REQUESTS
        self._largest_group = LARGEST_GROUP
        # Full groups that it has to answer before it is asked for larger ones.
        self._caution = 1
        self._full_groups = 0
        self._beaten = 0
        self._complied = 0
        self._misses = 0
        # How often the smallest piece is halved, for one that lacks parts of pieces.
        self._finer = 0

    # --- how much to ask --------------------------------------------------------------------------

    def piece(self, now: float) -> int:
        """Bytes of a piece for this provider: a power of two."""
        if self._finer:
            return SMALLEST_PIECE >> self._finer
        wanted = self.rate.get(now) * PIECE_TIME
        if wanted < 2 * SMALLEST_PIECE:
            return SMALLEST_PIECE
        return int(min(1 << (int(wanted).bit_length() - 1), LARGEST_PIECE))

    def room(self, now: float) -> int:
        """Requests that it can be asked now, besides those that it is answering."""
        if self.state is not PeerState.READY or now < self.until:
            return 0
        ahead = 2 * self.rate.get(now) * (self.latency + AHEAD_TIME)
        useful = max(math.ceil(ahead / self.piece(now)), FEWEST_REQUESTS)
        useful = min(useful, self._most_requests)
        if self.allotted is not None:
            useful = min(useful, self.allotted)
        return useful - len(self.fetches)

    # --- what happens -----------------------------------------------------------------------------

    def answered(self, latency: float) -> None:
        """The first bytes of an answer are here, so long after the request."""
        self.latency = min(latency, self.latency * 1.25)

    def delivered(self, now: float, count: int) -> None:
        """Verified bytes have come from it."""
        self.rate.add(now, count)
        self.received += count
        self.forgive()
        self._misses = 0
        self._backoff.reset()

    def forgive(self) -> None:
        """Its failures so far do not count."""
        self._failures = 0

    def failed(self, now: float, reason: str) -> None:
        """It is not to be asked for a while, and after too many failures not at all."""
        self.reason = reason
        if now < self.until:
            return  # the same failure, told of by another of its requests
        self.failed_at = now
        self._failures += 1
        if self._failures >= self._retries.tries:
            self.state = PeerState.OUT
            return
        self.until = now + self._backoff.next()

    def out(self, reason: str, *, banned: bool = False) -> None:
        """It is not to be asked any more."""
        self.state = PeerState.OUT
        self.reason = reason
        self.is_banned = banned

    def complied(self, parts: int) -> None:
        """It has answered a request for so many parts to the end."""
        self._beaten = 0
        self._complied += 1
        if self._finer and self._complied % 4 == 0:
            self._finer -= 1
        if parts >= self.group:
            self._full_groups += 1
            if self._full_groups >= self._caution:
                self._full_groups = 0
                self.group = min(2 * self.group, self._largest_group)

    def group_failed(self, parts: int) -> None:
        """Of so many parts it lacked one, or, being old, it knows no requests for several."""
        self.group = max(1, parts // 2)
        self._full_groups = 0
        self._caution = min(2 * self._caution, MOST_CAUTION)

    def refuses_groups(self) -> None:
        """It may be asked for one blob at a time only."""
        self.group = self._largest_group = 1

    def beaten(self, now: float) -> None:
        """Another provider was faster with what this one was asked for; too often: do without it."""
        self._beaten += 1
        if self._beaten >= MOST_BEATEN:
            self._beaten = 0
            self.reason = "it is slow"
            self.until = max(self.until, now + self._backoff.next())

    def overloaded(self) -> None:
        """It refused a request for being one too many."""
        self._most_requests = max(1, len(self.fetches))

    def again(self) -> None:
        """It has been found once more: what it did before, unless it lied, is forgiven."""
        if self.state is PeerState.OUT and not self.is_banned:
            self.state = PeerState.WAITING
            self.until = 0.0
            self._failures = 0
            self._backoff.reset()
            self._lacking.clear()

    # --- what it lacks ----------------------------------------------------------------------------

    def lacks(self, index: int) -> ChunkRanges:
        """The chunks of a blob that it is not to be asked for now."""
        return self._lacking.get(index, _NOTHING)

    @property
    def lacks_anything(self) -> bool:
        return bool(self._lacking)

    def lacked(self, now: float, part: Part) -> None:
        """It did not have a part."""
        self._lacking[part.index] = self.lacks(part.index) | part.ranges
        self.reason = LACKS
        self._misses += 1
        if self._misses % MOST_MISSES == 0:
            self.until = max(self.until, now + self._backoff.next())
        if len(self._lacking) > MOST_LACKING:
            self.out("it lacks too much of it")

    @property
    def may_have_parts(self) -> bool:
        """Whether it is worth a try to ask for a part of what it lacked as a whole."""
        return self._finer > 0

    def ask_again(self) -> None:
        """Maybe it has meanwhile got what it lacked, or it lacked only a part of a piece."""
        if self._lacking and not self.tells:
            self._finer = min(self._finer + 1, FINEST)
        self._lacking.clear()


_NOTHING: Final = ChunkRanges.empty()
