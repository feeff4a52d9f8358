"""Ways to peers: which addresses are known, and how they are tried."""

from __future__ import annotations

from aioiroh.paths.dial import Dial
from aioiroh.paths.direct import OwnAddresses, direct_addresses
from aioiroh.paths.remotes import RemoteAddress, RemoteInfo, Remotes
from aioiroh.paths.roster import Roster
from aioiroh.paths.selection import PathSelector, PathView, Route, select_by_rtt
from aioiroh.paths.steering import Steering

__all__ = [
    "Dial",
    "OwnAddresses",
    "PathSelector",
    "PathView",
    "RemoteAddress",
    "RemoteInfo",
    "Remotes",
    "Roster",
    "Route",
    "Steering",
    "direct_addresses",
    "select_by_rtt",
]
