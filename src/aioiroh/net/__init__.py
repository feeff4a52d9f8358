"""The outside world behind one port: clock, chance, UDP and TCP, local addresses.

Everything above asks a `Network` and never the operating system, so that the same code runs on a
virtual network under a virtual clock.
"""

from aioiroh.net.boot import boot_id
from aioiroh.net.interfaces import LocalAddress
from aioiroh.net.monitor import NetworkMonitor, NetworkState
from aioiroh.net.port import Network, SlotHost, TcpListener, UdpOptions, UdpSlot
from aioiroh.net.proxy import Proxies
from aioiroh.net.system import SystemNetwork
from aioiroh.net.tcp import TcpDialler

__all__ = [
    "LocalAddress",
    "Network",
    "NetworkMonitor",
    "NetworkState",
    "Proxies",
    "SlotHost",
    "SystemNetwork",
    "TcpDialler",
    "TcpListener",
    "UdpOptions",
    "UdpSlot",
    "boot_id",
]
