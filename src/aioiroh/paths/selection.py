"""Which path to a peer carries the data: rules without state, to be replaced by an application's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

__all__ = ["PathSelector", "PathView", "Route", "select_by_rtt"]

SWITCH_MARGIN: Final = 0.005
"""Seconds of round-trip time that a path must be better than the selected one to take its place."""
IPV6_BIAS: Final = 0.003
"""Seconds that a path over IPv6 is given in advance."""

Address: TypeAlias = tuple[str, int]
Route: TypeAlias = tuple[Address, str | None]
"""Where the peer is, and from which local IP address it is reached if that is known. Connections to the
same peer may have the same route, each as a path of its own.
"""


@dataclass(frozen=True, slots=True)
class PathView:
    """One open path of one connection, as it is now.

    `remote` and `local` as in `Route`; `relay`: URL of the relay through which it goes, None if it is direct;
    `rtt`: smoothed round-trip time in seconds; `is_open`: whether it has been found to work; `is_available`:
    whether data may use it now; `unanswered`: for how many seconds something has been waiting for an answer, 0.0 if
    nothing is, and `outstanding` how many bytes; `patience`: for how long it may; `quiet`: seconds since anything was
    heard on it. `is_custom`: it goes over a custom transport.
    """

    id: int
    remote: Address
    local: str | None
    relay: str | None
    rtt: float
    is_open: bool
    is_available: bool
    unanswered: float = 0.0
    patience: float = 1.0
    outstanding: int = 0
    quiet: float = 0.0
    is_custom: bool = False

    @property
    def is_silent(self) -> bool:
        """Whether the peer should have answered, and has not."""
        return self.unanswered >= self.patience

    @property
    def route(self) -> Route:
        return self.remote, self.local

    @property
    def is_direct(self) -> bool:
        return self.relay is None

    @property
    def is_ip(self) -> bool:
        """Whether it goes neither through a relay nor over a custom transport."""
        return self.is_direct and not self.is_custom


PathSelector: TypeAlias = Callable[[Sequence[PathView], Route | None], Route | None]
"""Chooses among the open paths of all connections to a peer, given the route selected so far. None: keep it."""


def select_by_rtt(paths: Sequence[PathView], selected: Route | None) -> Route | None:
    """What answers, direct before relayed, then the shortest round trip; a change must be worth it."""
    heard = [path for path in paths if not path.is_silent]
    # Nothing answers: answers may come by the path that is dead, until the peer hears that it is left.
    paths = heard or [path for path in paths if not path.is_direct] or paths
    current = [path for path in paths if path.route == selected]
    if not heard and current:
        return selected
    if not paths:
        return None
    best = min(paths, key=_rank)
    if not current:
        return best.route
    have, found = _rank(min(current, key=_rank)), _rank(best)
    if found[0] < have[0] or found[1] + SWITCH_MARGIN <= have[1]:
        return best.route
    return selected


def _rank(path: PathView) -> tuple[int, float]:
    ipv6 = path.is_ip and ":" in path.remote[0]
    return (0 if path.is_direct else 1), path.rtt - (IPV6_BIAS if ipv6 else 0.0)
