"""An internet with hosts in it: a bridge, and on it routers with hosts behind them.

    internet = Internet()
    host = internet.host("alice")
    uplink = host.plug(Nat.STRICT)          # a router of its own
    uplink.rate(20); host.lose(5); uplink.forget(); ...
    internet.close()

Public addresses are from 11.18.0.0/15 and 2a00:18::/32, which pass for any of the internet's.
Who sends to a private address of somebody else hears nothing, as in the real internet.
"""

from __future__ import annotations

import itertools
from typing import Self

from namespaces import Namespace
from nat import Nat, forget_rules, loss_rules, router_rules

PREFIX6 = "2a00:18"
"""The first 32 bits of IPv6 addresses."""


class Internet:
    """The bridge, and all that was built on it. Closing it closes everything."""

    def __init__(self) -> None:
        """Raises LabError, OSError."""
        self._built: list[Namespace] = []
        self._numbers = itertools.count(1)
        self._bridge = self.namespace("internet")
        self._bridge.ip("link add name net type bridge", "link set dev net up")

    def namespace(self, name: str) -> Namespace:
        made = Namespace(name)
        self._built.append(made)
        return made

    def number(self) -> int:
        """A number that nobody else has: the last part of addresses."""
        return next(self._numbers)

    def host(self, name: str) -> Host:
        return Host(self, name)

    def cable(self, to: Namespace, name: str, number: int) -> None:
        """Connects the namespace to the bridge; there the interface is called `name`."""
        self._bridge.ip(
            f"link add name port{number} type veth peer name {name} netns {to.path}",
            f"link set dev port{number} master net up",
        )

    def slow(self, number: int, megabits: float) -> None:
        """What the bridge sends down this cable goes at no more than this."""
        self._bridge.tc(_shape(f"port{number}", megabits))

    def close(self) -> None:
        for namespace in reversed(self._built):
            namespace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Host:
    """A machine with one uplink, or several of which one is in use."""

    def __init__(self, internet: Internet, name: str) -> None:
        self.name = name
        self.namespace = internet.namespace(name)
        self._internet = internet
        self.uplinks: list[Uplink] = []

    def plug(self, nat: Nat, *, ipv6: bool = False) -> Uplink:
        """One more way to the internet. The first is in use, the others are down."""
        uplink = Uplink(self._internet, self, nat, f"eth{len(self.uplinks)}", ipv6)
        self.uplinks.append(uplink)
        if len(self.uplinks) == 1:
            uplink.up()
        return uplink

    def switch(self, to: Uplink) -> None:
        """From one moment to the next, this uplink and no other."""
        for uplink in self.uplinks:
            if uplink is not to:
                uplink.down()
        to.up()

    def prefer(self, to: Uplink) -> None:
        """This uplink as well: new things leave by it, and what has the address of another still leaves by that."""
        for uplink in self.uplinks:
            if uplink is not to:
                uplink.pin()
        to.up()

    def lose(self, percent: float) -> None:
        """Of the UDP datagrams that arrive."""
        self.namespace.nft(loss_rules(percent))


class Uplink:
    """An interface of a host, and maybe a router between it and the internet."""

    def __init__(
        self, internet: Internet, host: Host, nat: Nat, interface: str, ipv6: bool
    ) -> None:
        self.nat = nat
        self.interface = interface
        self._internet = internet
        self._host = host.namespace
        self._number = number = internet.number()
        high, low = divmod(number, 256)
        self.public = f"11.18.{high}.{low}"
        """The address that others see."""
        self.router: Namespace | None = None
        if nat is Nat.NONE:
            self.address, self._prefix, self._gateway = self.public, 15, None
            internet.cable(self._host, interface, number)
        else:
            self.router = internet.namespace(f"router of {host.name}")
            self.address, self._prefix, self._gateway = (
                f"10.{high}.{low}.2",
                24,
                f"10.{high}.{low}.1",
            )
            self._build_router(self.router)
        self._ipv6 = ipv6
        """There is no NAT with IPv6, but a router still lets nothing in that was not asked for."""
        self.address6 = f"{PREFIX6}::{number:x}"
        if self.router is not None:
            self.address6 = f"{PREFIX6}:{number:x}::2"
            if ipv6:
                self._build_router6(self.router)

    def _build_router6(self, router: Namespace) -> None:
        router.ip(
            f"address add {PREFIX6}:{self._number:x}::1/64 dev lan nodad",
            f"address add {PREFIX6}::{self._number:x}/32 dev wan nodad",
            # The others take the whole prefix for one network, so the router answers for the host.
            f"neigh add proxy {self.address6} dev wan",
        )
        router.sysctl("ipv6/conf/all/forwarding", 1)
        router.sysctl("ipv6/conf/wan/proxy_ndp", 1)

    def _build_router(self, router: Namespace) -> None:
        self._internet.cable(router, "wan", self._number)
        router.ip(
            f"link add name lan type veth peer name {self.interface} netns {self._host.path}",
            f"address add {self._gateway}/24 dev lan",
            f"address add {self.public}/15 dev wan",
            "link set dev lan up",
            "link set dev wan up",
            "route add blackhole default",
        )
        router.sysctl("ipv4/ip_forward", 1)
        router.nft(router_rules(self.nat, self.public))

    def up(self) -> None:
        lines = [
            f"address replace {self.address}/{self._prefix} dev {self.interface}",
            f"link set dev {self.interface} up",
        ]
        if self._ipv6:
            prefix = 32 if self.router is None else 64
            lines.append(f"address replace {self.address6}/{prefix} dev {self.interface} nodad")
            router = f"via {PREFIX6}:{self._number:x}::1 " if self.router is not None else ""
            lines.append(f"route replace ::/0 {router}dev {self.interface}")
        self._host.ip(*lines, f"route replace default {self._way}")

    @property
    def _way(self) -> str:
        return f"via {self._gateway}" if self._gateway else f"dev {self.interface}"

    def pin(self) -> None:
        """Whatever has this uplink's address leaves by it, also when another one is preferred."""
        self._host.ip(
            f"route add default {self._way} table {self._number}",
            f"rule add from {self.address} lookup {self._number}",
        )

    def down(self) -> None:
        self._host.ip(f"link set dev {self.interface} down")

    def readdress(self) -> None:
        """The host gets another address, as from a DHCP server that has forgotten it."""
        old = self.address
        if self._gateway:
            self.address = f"{old.rpartition('.')[0]}.{int(old.rpartition('.')[2]) + 1}"
        else:
            high, low = divmod(self._internet.number(), 256)
            self.address = self.public = f"11.18.{high}.{low}"
        self._host.ip(f"address delete {old}/{self._prefix} dev {self.interface}")
        self.up()

    def rate(self, megabits: float) -> None:
        """The line gives no more than this, in each direction."""
        self._internet.slow(self._number, megabits)
        if self.router is None:
            self._host.tc(_shape(self.interface, megabits))
        else:
            self.router.tc(_shape("wan", megabits))

    def forget(self) -> None:
        """The router starts again: all mappings are gone."""
        if self.router is not None:
            self.router.nft(forget_rules(self.nat))
            self.router.forget_connections()


def _shape(interface: str, megabits: float) -> str:
    return f"qdisc replace dev {interface} root tbf rate {megabits}mbit burst 64k latency 50ms"
