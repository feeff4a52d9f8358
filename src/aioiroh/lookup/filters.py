"""Filters for what is published: functions from addresses in order to addresses in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from aioiroh.address import RelayAddr, TransportAddr

__all__ = ["AddrFilter", "ip_only", "relay_only"]

AddrFilter: TypeAlias = Callable[[Sequence[TransportAddr]], Iterable[TransportAddr]]
"""May drop and reorder addresses; should not invent any."""


def relay_only(addrs: Sequence[TransportAddr]) -> Iterable[TransportAddr]:
    """Only relays: what may be told to everybody without telling where one is."""
    return [addr for addr in addrs if isinstance(addr, RelayAddr)]


def ip_only(addrs: Sequence[TransportAddr]) -> Iterable[TransportAddr]:
    """Everything except relays; custom addresses stay, as they do upstream."""
    return [addr for addr in addrs if not isinstance(addr, RelayAddr)]
