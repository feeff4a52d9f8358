"""Datagrams under way, in the time of an event loop."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import dataclass

from aioiroh.testing.link import Pipe
from aioiroh.testing.log import PacketEvent, PacketLog, PacketRecord
from aioiroh.testing.tcp.header import TcpHeader

__all__ = ["Packet", "Wire"]

IPV4_HEADER, IPV6_HEADER, UDP_HEADER, TCP_HEADER = 20, 40, 8, 20
EARLY = 1e-9
"""Loops run timers early by up to their clock's resolution."""


@dataclass(slots=True)
class Packet:
    """One UDP datagram, or with `tcp` one packet of a TCP connection."""

    source: tuple[str, int]
    destination: tuple[str, int]
    data: bytes
    ecn: int = 0
    tcp: TcpHeader | None = None

    @property
    def wire_size(self) -> int:
        """Bytes including the headers."""
        size = len(self.data) + (UDP_HEADER if self.tcp is None else TCP_HEADER)
        return size + (IPV6_HEADER if ":" in self.source[0] else IPV4_HEADER)


class Wire:
    """Carries datagrams through pipes and notes what becomes of them.

    What arrives at the same moment keeps its order, which timers of a loop would not.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, log: PacketLog) -> None:
        self.loop = loop
        self.log = log
        self._under_way: list[tuple[float, int, Callable[[Packet], None], Packet]] = []
        self._sent = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0

    def record(self, packet: Packet, event: PacketEvent) -> None:
        """Note an event of a datagram."""
        self.log.add(
            PacketRecord(
                self.loop.time(),
                packet.source,
                packet.destination,
                len(packet.data),
                event,
                "udp" if packet.tcp is None else "tcp",
            )
        )

    def carry(self, pipe: Pipe, packet: Packet, arrive: Callable[[Packet], None]) -> None:
        """Send through one direction of a link; `arrive` gets what comes out."""
        sent = pipe.send(self.loop.time(), packet.wire_size, packet.ecn)
        if isinstance(sent, str):
            self.record(packet, sent)
            return
        arrivals, packet.ecn = sent
        for when in arrivals:
            self.schedule(when, arrive, packet)

    def schedule(self, when: float, arrive: Callable[[Packet], None], packet: Packet) -> None:
        """Hand over at a moment."""
        self._sent += 1
        heapq.heappush(self._under_way, (when, self._sent, arrive, packet))
        self._rearm()

    def _rearm(self) -> None:
        when = self._under_way[0][0]
        if self._timer is not None:
            if self._timer_due <= when:
                return
            self._timer.cancel()
        self._timer_due = when
        self._timer = self.loop.call_at(when, self._due)

    def _due(self) -> None:
        self._timer = None
        due = self.loop.time() + EARLY
        under_way = self._under_way
        while under_way and under_way[0][0] <= due:
            _, _, arrive, packet = heapq.heappop(under_way)
            arrive(packet)
        if under_way:
            self._rearm()
