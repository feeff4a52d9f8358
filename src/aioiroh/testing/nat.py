"""What a router does with the addresses in packets, in the terms of RFC 4787."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from random import Random
from typing import Final, Literal, Self

__all__ = ["Firewall", "Nat", "NatTable"]

Address = tuple[str, int]
Protocol = Literal["udp", "tcp"]
Dependence = Literal["endpoint-independent", "address-dependent", "address-and-port-dependent"]

FIRST_PORT: Final = 1024
LAST_PORT: Final = 65_535
"""Ports given to mappings, unless an inner port below is kept."""
RANDOM_TRIES: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Nat:
    """The rules of a translator of IPv4 addresses. Times in seconds. Raises ValueError for a bad one.

    `Nat.kind` has the kinds that people name. The defaults are those of an ordinary home router.
    """

    mapping: Dependence = "endpoint-independent"
    """For which destinations packets from one inner address and port leave by the same outer port."""
    filtering: Dependence = "address-and-port-dependent"
    """Whose packets come in at that outer port: everybody's, those of addresses that a packet was sent to, or
    those of such addresses and ports."""
    ports: Literal["preserve", "random", "sequential"] = "preserve"
    """Which outer port is taken: that of the inner address if it is free (else any), any, or the next."""
    hairpin: bool = False
    """Whether hosts behind the router reach each other by outer addresses."""
    timeout: float = 120.0
    """How long a UDP mapping, and a permission to come in, stays without a packet in either direction."""
    tcp_timeout: float = 7440.0
    """The same for TCP."""
    inbound_refresh: bool = True
    """Whether packets that come in keep a mapping, too."""

    def __post_init__(self) -> None:
        if not 0 < self.timeout < math.inf or not 0 < self.tcp_timeout < math.inf:
            raise ValueError("a timeout must be positive")

    @classmethod
    def kind(cls, name: Literal["none", "open", "moderate", "strict"]) -> Nat | None:
        """`open`: a full cone. `moderate`: the usual home router. `strict`: another, random port for each
        destination. `none` is no translation.
        """
        return _KINDS[name]

    def replace(self, **changes: object) -> Self:
        """A copy with some rules changed."""
        return replace(self, **changes)  # type: ignore[arg-type]


_KINDS: Final[dict[str, Nat | None]] = {
    "none": None,
    "open": Nat(filtering="endpoint-independent"),
    "moderate": Nat(),
    "strict": Nat(mapping="address-and-port-dependent", ports="random"),
}


def _part(dependence: Dependence, peer: Address) -> Hashable:
    if dependence == "endpoint-independent":
        return None
    return peer[0] if dependence == "address-dependent" else peer


@dataclass(slots=True)
class _Mapping:
    key: Hashable
    inner: Address
    port: int
    forever: bool = False
    used: float = 0.0
    permits: dict[Hashable, float] = field(default_factory=dict)


class NatTable:
    """The mappings of one router. Pure: time is an argument, and chance is given."""

    def __init__(self, nat: Nat, random: Random) -> None:
        self.nat = nat
        self._random = random
        self._next_port = FIRST_PORT
        self._by_key: dict[Hashable, _Mapping] = {}
        self._by_port: dict[tuple[Protocol, int], _Mapping] = {}

    def outbound(
        self, now: float, protocol: Protocol, inner: Address, destination: Address
    ) -> int | None:
        """The outer port of a packet that leaves; None: there is none left."""
        key = protocol, inner, _part(self.nat.mapping, destination)
        mapping = self._by_key.get(key)
        if mapping is None or not self._lives(now, protocol, mapping):
            if mapping is not None:
                self._remove(protocol, mapping)
            port = self._choose_port(now, protocol, inner[1])
            if port is None:
                return None
            mapping = _Mapping(key, inner, port)
            self._by_key[key] = self._by_port[protocol, port] = mapping
        mapping.used = now
        mapping.permits[_part(self.nat.filtering, destination)] = now
        return mapping.port

    def inbound(self, now: float, protocol: Protocol, port: int, source: Address) -> Address | None:
        """Where a packet to that outer port goes; None: nowhere."""
        mapping = self._by_port.get((protocol, port))
        if mapping is None:
            return None
        if mapping.forever:
            return mapping.inner
        who = _part(self.nat.filtering, source)
        permitted = mapping.permits.get(who)
        if permitted is None or now - permitted >= self._timeout(protocol):
            return None
        if self.nat.inbound_refresh:
            mapping.permits[who] = mapping.used = now
        return mapping.inner

    def forward(self, protocol: Protocol, port: int, inner: Address) -> None:
        """Let everything that comes to an outer port in, until told otherwise."""
        previous = self._by_port.get((protocol, port))
        if previous is not None:
            self._remove(protocol, previous)
        key = protocol, inner, None
        mapping = _Mapping(key, inner, port, forever=True)
        self._by_port[protocol, port] = mapping
        if self.nat.mapping == "endpoint-independent":
            self._by_key[key] = mapping

    def flush(self) -> None:
        """Forget every mapping, as a router does that starts anew. Ports that are forwarded stay."""
        kept = [(key, mapping) for key, mapping in self._by_port.items() if mapping.forever]
        self._by_port = dict(kept)
        self._by_key = {
            mapping.key: mapping
            for _, mapping in kept
            if self.nat.mapping == "endpoint-independent"
        }

    def __len__(self) -> int:
        return len(self._by_port)

    def _timeout(self, protocol: Protocol) -> float:
        return self.nat.timeout if protocol == "udp" else self.nat.tcp_timeout

    def _lives(self, now: float, protocol: Protocol, mapping: _Mapping) -> bool:
        return mapping.forever or now - mapping.used < self._timeout(protocol)

    def _remove(self, protocol: Protocol, mapping: _Mapping) -> None:
        if self._by_key.get(mapping.key) is mapping:
            del self._by_key[mapping.key]
        del self._by_port[protocol, mapping.port]

    def _choose_port(self, now: float, protocol: Protocol, inner: int) -> int | None:
        for port in self._wanted_ports(inner):
            holder = self._by_port.get((protocol, port))
            if holder is not None and self._lives(now, protocol, holder):
                continue
            if holder is not None:
                self._remove(protocol, holder)
            self._next_port = port + 1 if port < LAST_PORT else FIRST_PORT
            return port
        return None

    def _wanted_ports(self, inner: int) -> Iterator[int]:
        start = self._next_port
        if self.nat.ports != "sequential":
            if self.nat.ports == "preserve":
                yield inner
            for _ in range(RANDOM_TRIES):
                yield self._random.randint(FIRST_PORT, LAST_PORT)
            start = self._random.randint(FIRST_PORT, LAST_PORT)
        yield from range(start, LAST_PORT + 1)
        yield from range(FIRST_PORT, start)


class Firewall:
    """Lets in what answers to something that went out, without changing addresses."""

    def __init__(self, timeout: float = 120.0, tcp_timeout: float = 7440.0) -> None:
        self._timeouts: dict[Protocol, float] = {"udp": timeout, "tcp": tcp_timeout}
        self._seen: dict[tuple[Protocol, Address, Address], float] = {}

    def outbound(self, now: float, protocol: Protocol, inner: Address, outer: Address) -> None:
        """A packet leaves."""
        self._seen[protocol, inner, outer] = now

    def inbound(self, now: float, protocol: Protocol, inner: Address, outer: Address) -> bool:
        """Whether a packet may come in."""
        key = protocol, inner, outer
        seen = self._seen.get(key)
        if seen is None or now - seen >= self._timeouts[protocol]:
            self._seen.pop(key, None)
            return False
        self._seen[key] = now
        return True

    def flush(self) -> None:
        """Forget what went out."""
        self._seen.clear()
