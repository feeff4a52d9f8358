"""What an endpoint knows of one of its relays."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from aioiroh.address import RelayUrl

__all__ = ["RelayState", "RelayStatus"]


class RelayState(Enum):
    """Whether a relay can be used."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"


@dataclass(frozen=True, slots=True)
class RelayStatus:
    """The relay at `url` at one moment.

    `problem`: why the last connection failed or ended, or what the relay says is wrong.
    `latency`: seconds that the last ping took, if one was answered.
    """

    url: RelayUrl
    state: RelayState
    problem: str | None = None
    latency: float | None = field(default=None, compare=False)

    @property
    def is_connected(self) -> bool:
        return self.state is RelayState.CONNECTED
