"""What a provider spends on its peers."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits", "Places"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a provider spends on its peers. Times in seconds, sizes in bytes, rates in bytes per second.

    `requests_per_connection` are answered at once, further ones wait. Over `connections`, `requests` in
    all or `requests_per_peer` of one peer, and likewise for `observers` and `pushes`, which are
    requests, too, peers are told to come later (code 2).

    A request must arrive within `request_time`. A peer that moves nothing for `stall_time`, or less than
    `minimum_rate` on the whole (after a first `stall_time`), is given up (code 2); time in which we hold it back does not
    count. An observer is sent away after `observe_time` (code 2) and may come back.

    `rate` is for everything that is sent to all peers together, `rate_per_peer` for what is sent to
    each; None: as fast as it goes.

    A push may bring `push_blobs` blobs of `push_blob_size` each, and `push_size` in all. One of more blobs
    ends when their number is known; a blob that is over the sizes breaks it off, and nothing of it is kept
    (code 3).
    """

    connections: int = 4096
    requests_per_connection: int = 100
    requests_per_peer: int = 256
    requests: int = 1024
    request_time: float = 10.0
    stall_time: float = 60.0
    minimum_rate: float = 1024.0
    observers_per_peer: int = 16
    observers: int = 256
    observe_time: float = 3600.0
    rate: float | None = None
    rate_per_peer: float | None = None
    pushes_per_peer: int = 4
    pushes: int = 64
    push_blobs: int = 100_000
    push_blob_size: int = 1 << 32
    push_size: int = 1 << 34


class Places:
    """Places that peers share: a share for each, so that one peer cannot keep out all others.

    Peers are named by the bytes of their ids.
    """

    def __init__(self, in_all: int, per_peer: int) -> None:
        self._free = in_all
        self._per_peer = per_peer
        self._taken: dict[bytes, int] = {}

    def take(self, peer: bytes) -> bool:
        """Gives the peer a place if there is one; it has to `leave` it."""
        taken = self._taken.get(peer, 0)
        if not self._free or taken >= self._per_peer:
            return False
        self._free -= 1
        self._taken[peer] = taken + 1
        return True

    def leave(self, peer: bytes) -> None:
        """The peer needs a place no more."""
        self._free += 1
        taken = self._taken.pop(peer) - 1
        if taken:
            self._taken[peer] = taken
