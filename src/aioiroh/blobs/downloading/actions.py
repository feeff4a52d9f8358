"""What the core of a download hears about requests, and what it tells the shell to do."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, TypeVar

from .backlog import Part
from .peers import PeerState

__all__ = ["Action", "Ask", "Complete", "Connect", "End", "Fail", "PeerReport", "Release", "Stop"]

P = TypeVar("P", bound=Hashable)


class End(Enum):
    """How a request ended."""

    DONE = auto()
    STOPPED = auto()
    """By us, as `Stop` said."""
    LACKS = auto()
    """The provider does not have what comes next."""
    BUSY = auto()
    """It will not answer now."""
    REFUSED = auto()
    """It will not answer ever."""
    LIED = auto()
    """What it sent does not belong to the hash."""
    LOST = auto()
    """The connection is over."""
    BROKEN = auto()
    """The answer broke off for another reason."""


@dataclass(frozen=True, slots=True)
class Connect(Generic[P]):
    """Connect to a provider; `connected` or `lost` follows."""

    provider: P


@dataclass(frozen=True, slots=True)
class Release(Generic[P]):
    """The connection to a provider is not needed once its requests have ended."""

    provider: P


@dataclass(frozen=True, slots=True)
class Ask(Generic[P]):
    """Ask a provider for parts: `arrived`, then `ended` follow."""

    number: int
    provider: P
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the answer to a request: nothing more of it is wanted. `ended` follows."""

    number: int


@dataclass(frozen=True, slots=True)
class Complete:
    """All that was wanted has been asked for and has come: see what is missing now.

    `want_whole` or `want` follow if anything is.
    """


@dataclass(frozen=True, slots=True)
class Fail:
    """The download cannot be completed. `reports` says why not, for each provider."""

    reason: str


Action = Connect[P] | Release[P] | Ask[P] | Stop | Complete | Fail


@dataclass(frozen=True, slots=True)
class PeerReport(Generic[P]):
    """What has become of a provider: bytes per second now, payload bytes in all, why it failed last."""

    provider: P
    state: PeerState
    rate: float
    received: int
    reason: str
