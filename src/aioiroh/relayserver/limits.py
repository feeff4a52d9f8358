"""What a relay allows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

from aioiroh.aio import TokenBucket

__all__ = ["AcceptLimit", "Limits", "RateLimit"]

PERIODS_PER_SECOND = 10
"""How often a client is given what its rate lets it send."""
OTHER_FILES = 128
"""Files that a relay has open besides the connections of its clients, at most."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What one client may send: bytes per second, and at most `max_burst_bytes` at once.

    Without the second it is a tenth of the first. Who sends more is read from later, and told so once
    (relay protocol, section 4.5). ValueError: less than 10 bytes per second, a burst of 0, or 4 GiB and more.
    """

    bytes_per_second: int
    max_burst_bytes: int | None = None

    def __post_init__(self) -> None:
        if self.bytes_per_second < PERIODS_PER_SECOND:
            raise ValueError(f"bytes_per_second must be at least {PERIODS_PER_SECOND}")
        if self.max_burst_bytes is not None and self.max_burst_bytes < 1:
            raise ValueError("max_burst_bytes must be at least 1")
        if max(self.bytes_per_second, self.burst) >= 1 << 32:
            raise ValueError("bytes_per_second and max_burst_bytes must be below 4 GiB")

    @property
    def burst(self) -> int:
        """`max_burst_bytes`, or what stands in for it."""
        return self.max_burst_bytes or self.bytes_per_second // PERIODS_PER_SECOND


@dataclass(frozen=True, slots=True)
class AcceptLimit:
    """TCP connections that are taken: so many per second, and at most `burst` at once.

    Without the second it is what comes in one second. ValueError: not above 0.
    """

    per_second: float
    burst: int | None = None

    def __post_init__(self) -> None:
        if not (self.per_second > 0 and (self.burst is None or self.burst > 0)):
            raise ValueError("connections per second, and the burst, must be above 0")

    def bucket(self, now: float) -> TokenBucket:
        """What keeps it, from `now` on."""
        return TokenBucket(self.per_second, self.burst or max(1, ceil(self.per_second)), now=now)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a relay. Times are seconds."""

    connections: int = 65_536
    """TCP connections at once; more are closed as they come."""
    pending: int = 4_096
    """Of these, how many may not have been let in yet; from one address at most a sixteenth."""
    establish_timeout: float = 30.0
    """From the TCP connection to the end of the last HTTP answer, or to the upgrade."""
    handshake_timeout: float = 10.0
    """From the upgrade to the proof of the key."""
    access_timeout: float = 10.0
    """For the answer of `access`."""
    stuck_timeout: float = 15.0
    """For a client that takes no more bytes."""
    close_timeout: float = 2.0
    """For what waits to be written when a connection is closed."""
    queue_bytes: int = 1 << 20
    """That wait for a client whose connection is busy; further datagrams are dropped, and counted."""
    queue_total: int = 256 << 20
    """The same for all clients together; beyond it each has 128 KiB still."""
    rate: RateLimit | None = None
    """What each client may send; None: as much as it can."""
    accept: AcceptLimit | None = None
    """How many may come; more are closed as they come. None: as many as do."""

    def within(self, open_files: int) -> Limits:
        """The same for a process that may have so many files open: a connection is one, and some others are needed."""
        connections = min(self.connections, max(open_files - OTHER_FILES, 1))
        # Who is not let in yet may not take all places.
        return replace(
            self, connections=connections, pending=min(self.pending, -(-connections // 2))
        )
