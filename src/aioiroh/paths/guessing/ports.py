"""Which ports are tried, in which order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from random import Random

from aioiroh.paths.guessing.rules import ANNOUNCED, NAMES, PORTS, SWEEP, Mapping

__all__ = ["announced_ports", "sweep_order"]

WINDOW = 512
"""Ports above a known one in which a NAT that counts has those of sockets that were opened later; one that gives
each customer a block of ports has them all on both sides of it.
"""
KNOWN = 6
"""Ports whose neighbours are tried. The first that a peer has named are those that relays see."""
STRIDE = 5
"""Every so manieth port of a window is tried: odd, for NATs that count in twos."""
NEAR = 64
"""Two ports not further apart than this are of a NAT that counts."""


def sweep_order(near: Sequence[int], random: Random) -> tuple[int, ...]:
    """Different ports for one sweep: some above those in `near`, then some below, then any. For a NAT that draws ports
    at random one order is as good as another.
    """
    known = near[:KNOWN]
    above = (range(port + 1, port + 1 + WINDOW, STRIDE) for port in known)
    below = (range(port - 1, port - 1 - WINDOW, -STRIDE) for port in known)
    first = [port for port in chain(*above, *below) if port in PORTS]
    order = dict.fromkeys(first[:SWEEP])
    for port in random.sample(PORTS, SWEEP):
        if len(order) == SWEEP:
            break
        order.setdefault(port)
    return tuple(order)


def announced_ports(mapping: Mapping, random: Random) -> Iterator[tuple[int, ...]]:
    """Ports to name, different ones each time: first those that a NAT that counts has given to sockets of ours, if
    it seems to be one, then any.
    """
    yield from _predicted(mapping)
    names = random.sample(PORTS, NAMES * ANNOUNCED)
    for start in range(0, len(names), ANNOUNCED):
        yield tuple(names[start : start + ANNOUNCED])


def _predicted(mapping: Mapping) -> Iterator[tuple[int, ...]]:
    ports = sorted(port for _, port in mapping.seen)
    if len(ports) > 1 and all(b - a <= NEAR for a, b in pairwise(ports)):
        first = ports[-1] + 1
        predicted = tuple(port for port in range(first, first + 8 * ANNOUNCED, 8) if port in PORTS)
        if len(predicted) == ANNOUNCED:
            yield predicted
