"""A network that exists in memory."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from random import Random

from aioiroh.testing.host import Host
from aioiroh.testing.link import Link
from aioiroh.testing.log import PacketLog
from aioiroh.testing.nat import Nat
from aioiroh.testing.router import Router
from aioiroh.testing.segment import Segment
from aioiroh.testing.wire import Wire

__all__ = ["VirtualNetwork"]

HOME_NETWORK = "192.168.1.0/24"
HOME_NAT = Nat()


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
        self.internet = Segment("the internet", self.wire, self._public_addresses)
        self.hosts: dict[str, Host] = {}
        self.routers: dict[str, Router] = {}
        self._numbers = itertools.count(1)

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
        segment: Segment | None = None,
    ) -> Host:
        """A new host with one interface, `eth0`, on the internet or on another segment.

        Without `addresses` it gets one of each IP version that is wanted and that the segment has. `link`
        holds for both directions. Raises ValueError if the name or an address is taken.
        """
        if name is None:
            name = f"host{len(self.hosts) + 1}"
        if name in self.hosts:
            raise ValueError(f"there is a host {name} already")
        host = Host(self, name)
        host.add_interface(
            "eth0", addresses=addresses, ipv4=ipv4, ipv6=ipv6, link=link, segment=segment
        )
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

    def segment(self, name: str, *, ipv4: str | None = HOME_NETWORK, ipv6: bool = True) -> Segment:
        """A network of its own, which reaches others only through routers and hosts that are on both.

        It has addresses of the network `ipv4`, which others may use as well, and with `ipv6` of an IPv6
        network that nobody else has.
        """
        networks = [] if ipv4 is None else [ip_network(ipv4)]
        if ipv6:
            networks.append(ip_network(f"2a0a:102:0:{next(self._numbers):x}::/64"))
        numbers = itertools.count(1)

        def next_addresses() -> tuple[str, ...]:
            number = next(numbers)
            return tuple(str(network[number]) for network in networks)

        return Segment(name, self.wire, next_addresses, tuple(map(str, networks)))

    def router(
        self,
        name: str,
        *,
        nat: Nat | None = HOME_NAT,
        firewall: bool = True,
        behind: Router | None = None,
        ipv4: str | None = None,
        ipv6: bool = False,
        link: Link | None = None,
    ) -> Router:
        """A router on the internet, or `behind` another one, with a network `inside` for hosts.

        `nat` has the rules by which IPv4 addresses are translated; with None those inside are public.
        `firewall` lets only answers come in where nothing is translated. `ipv4` is the network inside:
        192.168.1.0/24 as in many homes, for a carrier better another one. With `ipv6` hosts inside have a
        public IPv6 address, too. `link` is how the router is attached outside. Raises ValueError if the
        name is taken.
        """
        if name in self.routers:
            raise ValueError(f"there is a router {name} already")
        if ipv4 is None:
            ipv4 = HOME_NETWORK if nat is not None else self._public_network()
        outside = self.internet if behind is None else behind.inside
        router = Router(
            self,
            name,
            nat=nat,
            firewall=firewall,
            behind=behind,
            inside=self.segment(f"inside {name}", ipv4=ipv4, ipv6=ipv6),
            outside=outside,
            addresses=outside.free_addresses(ipv6=ipv6),
            link=self.link if link is None else link,
        )
        self.routers[name] = router
        return router

    def _public_network(self) -> str:
        number = next(self._numbers)
        return f"101.{number >> 8 & 255}.{number & 255}.0/24"

    def _public_addresses(self) -> tuple[str, ...]:
        """Addresses nobody has, each in a network of its own. They look public, to code that cares."""
        number = next(self._numbers)
        return (f"101.{number >> 8 & 255}.{number & 255}.1", f"2a0a:101:0:{number:x}::1")
