"""Ways to peers: which addresses are known, and how they are tried."""

from __future__ import annotations

from aioiroh.paths.dial import Dial
from aioiroh.paths.direct import OwnAddresses, direct_addresses
from aioiroh.paths.remotes import Remotes
from aioiroh.paths.roster import Roster

__all__ = ["Dial", "OwnAddresses", "Remotes", "Roster", "direct_addresses"]
