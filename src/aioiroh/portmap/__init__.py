"""Port mapping: asks the router of the local network to forward a UDP port, by PCP, NAT-PMP or UPnP.

Nobody is asked but the default gateway, and by multicast whoever in the local network calls itself a
router; of the answers only those of the gateway count.
"""

from aioiroh.portmap.mapper import PortMapper, probe
from aioiroh.portmap.mapping import Mapping

__all__ = ["Mapping", "PortMapper", "probe"]
