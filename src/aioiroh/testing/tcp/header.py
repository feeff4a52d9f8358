"""What a TCP packet says besides its data."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["TcpHeader"]


@dataclass(frozen=True, slots=True)
class TcpHeader:
    """Positions count bytes and do not wrap; SYN and FIN take one each, as on the wire.

    `acknowledged`: everything before it has arrived, as have the ranges `selective` (RFC 2018).
    `unreachable` is what ICMP would say: the packet to which this answers found no way.
    """

    position: int
    acknowledged: int | None = None
    window: int = 0
    selective: tuple[tuple[int, int], ...] = ()
    syn: bool = False
    fin: bool = False
    reset: bool = False
    unreachable: bool = False
