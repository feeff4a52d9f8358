"""A port that a router forwards to this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aioiroh.address import IpAddr

__all__ = ["LIFETIME", "Mapping", "Refused"]

LIFETIME: Final = 7200
"""Seconds that we ask for, as RFC 6886 section 3.3 recommends."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """UDP datagrams to `external` come to `port` of this machine, for `lifetime` seconds from when it was granted."""

    external: IpAddr
    port: int
    lifetime: float


class Refused(Exception):
    """A router answers, but does not do what it was asked for; the text says why."""
