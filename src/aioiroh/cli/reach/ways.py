"""The ways between two peers, and the time they take, in words and facts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aioiroh.address import IpAddr
from aioiroh.quic import PathInfo

from ..relays import shown

__all__ = ["Way", "milliseconds", "way_of"]


@dataclass(frozen=True, slots=True)
class Way:
    """Where the data go. `relay`: the relay's URL; else `address` is where the peer is."""

    relay: str | None
    address: str | None

    def __str__(self) -> str:
        return (
            f"through the relay {shown(self.relay)}"
            if self.relay
            else f"directly, at {self.address}"
        )

    @property
    def facts(self) -> dict[str, object]:
        """For programs."""
        return {"relay": self.relay, "address": self.address}


def way_of(paths: Sequence[PathInfo]) -> Way | None:
    """The way that data take over these paths of one connection; None if there is none."""
    if not paths:
        return None
    # Both may be available for a moment, while one takes over from the other.
    path = min(
        paths, key=lambda path: (path.status != "available", path.relay is not None, path.id)
    )
    if path.relay is not None:
        return Way(path.relay, None)
    return Way(None, IpAddr.from_pair(path.remote).text)


def milliseconds(seconds: float) -> str:
    """`0.21 ms`, `23.4 ms`, `812 ms`."""
    value = seconds * 1000
    return f"{value:.{max(0, 3 - len(str(int(value))))}f} ms"
