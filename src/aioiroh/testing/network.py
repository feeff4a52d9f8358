"""A network that exists in memory."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from random import Random

from aioiroh.testing.host import Host
from aioiroh.testing.link import Link
from aioiroh.testing.log import PacketLog
from aioiroh.testing.segment import Segment
from aioiroh.testing.wire import Wire

__all__ = ["VirtualNetwork"]


class VirtualNetwork:
    """Hosts on a common internet, in the time of the running event loop.

    On a `VirtualLoop` time is virtual; on any other loop the same network runs in real time.

    All chance comes from `seed`: the same program on a VirtualLoop with the same seed sends the same
    packets at the same times. `link` is how hosts are attached unless they ask for another one. A
    datagram passes the sender's uplink and the receiver's downlink, so it is under way for the
    latencies of both.
    """

    def __init__(
        self, *, seed: int = 0, link: Link | None = None, log_limit: int = 100_000
    ) -> None:
        self.seed = seed
        self.link = Link() if link is None else link
        self.loop = asyncio.get_running_loop()
        self.log = PacketLog(log_limit)
        self.wire = Wire(self.loop, self.log)
        self.internet = Segment("the internet", self.wire)
        self.hosts: dict[str, Host] = {}
        self._addresses_given = 0

    def chance(self, purpose: str) -> Random:
        """A generator of its own for one purpose, so that purposes do not disturb each other."""
        return Random(f"{self.seed} {purpose}")

    def host(
        self,
        name: str | None = None,
        *,
        addresses: Sequence[str] | None = None,
        ipv4: bool = True,
        ipv6: bool = True,
        link: Link | None = None,
    ) -> Host:
        """A new host with one interface, `eth0`, on the internet.

        Without `addresses` it gets one of each IP version that is wanted. `link` holds for both
        directions. Raises ValueError if the name or an address is taken.
        """
        if name is None:
            name = f"host{len(self.hosts) + 1}"
        if name in self.hosts:
            raise ValueError(f"there is a host {name} already")
        host = Host(self, name)
        host.add_interface("eth0", addresses=addresses, ipv4=ipv4, ipv6=ipv6, link=link)
        self.hosts[name] = host
        return host

    def resolve(self, name: str) -> tuple[str, ...]:
        """The IP addresses of a host by its name (also with the dot of the root, in any case), or the
        address that it is already. Raises OSError (`socket.gaierror`): there is no such host.
        """
        try:
            return (str(ip_address(name)),)
        except ValueError:
            pass
        plain = name.lower().removesuffix(".")
        if plain == "localhost":
            return ("::1", "127.0.0.1")
        for host in self.hosts.values():
            if host.name.lower() == plain:
                return tuple(sorted(host.addresses, key=lambda ip: ":" not in ip))
        raise socket.gaierror(socket.EAI_NONAME, f"there is no host {name}")

    def segment(self, name: str) -> Segment:
        """A network of its own, which reaches the internet only through hosts that are on both."""
        return Segment(name, self.wire)

    def free_addresses(self, *, ipv4: bool, ipv6: bool) -> tuple[str, ...]:
        """Addresses nobody has, each in a network of its own. They look public, to code that cares."""
        self._addresses_given += 1
        number = self._addresses_given
        found = []
        if ipv4:
            found.append(f"101.{number >> 8 & 255}.{number & 255}.1")
        if ipv6:
            found.append(f"2a0a:101:0:{number:x}::1")
        return tuple(found)
