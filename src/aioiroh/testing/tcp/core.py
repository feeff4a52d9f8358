"""One end of a TCP connection, without I/O: calls and packets go in, packets come out."""

from __future__ import annotations

import errno
import os
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass

from aioiroh.testing.tcp.header import TcpHeader

__all__ = ["TcpCore"]

RECEIVE_WINDOW = 4 << 20
"""Bytes that a receiver holds for a program that does not read (what Linux grows to)."""
FIRST_WINDOW = 10
"""Full packets that a sender begins with (RFC 6928)."""
FIRST_TIMEOUT, MIN_TIMEOUT, MAX_TIMEOUT = 1.0, 0.2, 120.0
"""Seconds until what is not acknowledged is sent again (RFC 6298; the least is that of Linux)."""
SYN_RETRIES, RETRIES = 6, 15
REORDERING = 3
"""Packets sent later that arrive before one counts as lost."""
SLOWER = 0.7
"""By how much a loss shrinks the congestion window (RFC 9438)."""


@dataclass(slots=True, eq=False)
class _Sent:
    """A packet that is not acknowledged yet. `number` counts transmissions."""

    position: int
    end: int
    data: bytes
    syn: bool = False
    fin: bool = False
    number: int = 0
    at: float = 0.0
    again: bool = False
    lost: bool = False
    arrived: bool = False


class TcpCore:
    """Handshake, order, acknowledgements, retransmission, windows, half close and reset.

    After each call: `outbox` has packets to send, `deadline` says when to call `timeout`, and the other
    attributes how the connection stands. `first` is the position of the SYN; `packet_size` the most data
    in a packet. With `peer`, the header of a SYN, it answers that one, else it calls.
    """

    def __init__(
        self, now: float, first: int, packet_size: int, peer: TcpHeader | None = None
    ) -> None:
        self.outbox: list[tuple[TcpHeader, bytes]] = []
        self.deadline: float | None = None
        self.connected = False
        self.error: OSError | None = None
        self.peer_finished = False
        self.finished = False
        self.ack_due = False
        self._packet_size = packet_size
        # Sending.
        self._flight: deque[_Sent] = deque()
        self._waiting = bytearray()
        self._next = first
        self._acknowledged = first
        self._peer_window = 0
        self._finishing = False
        self._transmissions = 0
        self._in_flight = 0
        self._window = float(FIRST_WINDOW * packet_size)
        self._slow_start_until = float("inf")
        self._held_back = False
        self._recovering_until = first
        self._rtt: float | None = None
        self._rtt_variation = 0.0
        self._timeouts = 0
        # Receiving.
        self._expected: int | None = None if peer is None else peer.position + 1
        self._received = bytearray()
        self._early: dict[int, tuple[bytes, bool]] = {}
        self._ranges: list[list[int]] = []
        self._window_told = RECEIVE_WINDOW
        if peer is not None:
            self._peer_window = peer.window
        self._add(_Sent(first, first + 1, b"", syn=True))
        self._transmit(self._flight[-1], now)

    # --- the program's calls

    def write(self, data: bytes | bytearray | memoryview, now: float) -> None:
        """Send bytes, when there is room."""
        self._waiting += data
        self._push(now)

    def finish(self, now: float) -> None:
        """No more bytes will be written."""
        self._finishing = True
        self._push(now)

    def reset(self) -> None:
        """End it at once, and tell the peer."""
        if self.error is None and not self.is_over:
            header = TcpHeader(self._next, self._expected, reset=True)
            self.outbox.append((header, b""))
        self._end(errno.ECONNABORTED)

    def abandon(self) -> None:
        """Expect nothing more of the peer, and do not tell it."""
        self._end(errno.ETIMEDOUT)

    def take(self, limit: int) -> bytes:
        """Up to `limit` bytes that arrived."""
        taken = bytes(self._received[:limit])
        del self._received[:limit]
        if self._room - self._window_told >= min(RECEIVE_WINDOW // 2, 2 * self._packet_size):
            self.ack_due = True
        return taken

    @property
    def readable(self) -> int:
        """Bytes that arrived and were not taken."""
        return len(self._received)

    @property
    def unsent(self) -> int:
        """Bytes written beyond what a system holds for a connection of this speed."""
        under_way = self._next - self._acknowledged
        held = max(2 * int(self._window), 2 * FIRST_WINDOW * self._packet_size)
        return max(len(self._waiting) + under_way - held, 0)

    @property
    def is_over(self) -> bool:
        """Nothing will ever be sent or received again."""
        return self.error is not None or (self.finished and self.peer_finished)

    # --- the network's

    def receive(self, header: TcpHeader, data: bytes, now: float) -> None:
        """A packet of this connection has arrived."""
        if self.is_over:
            return
        acknowledged = header.acknowledged
        if acknowledged is not None and acknowledged > self._next:
            return  # of an earlier connection between these ports
        if header.unreachable:
            # A connection that stands takes this for a trouble that passes.
            if not self.connected:
                self._end(errno.EHOSTUNREACH)
            return
        if header.reset:
            self._end(errno.ECONNRESET if self.connected else errno.ECONNREFUSED)
            return
        if header.syn:
            if self._expected is None and acknowledged is not None:
                self._expected = header.position + 1
            self.ack_due = True
        if self._expected is None:
            return
        if acknowledged is not None and acknowledged >= self._acknowledged:
            self._heard(acknowledged, header, now)
        if data or header.fin:
            self._take_in(header.position, data, header.fin)
        elif header.position < self._expected and not header.syn:
            self.ack_due = True  # it asks whether there is room
        self._push(now)

    def timeout(self, now: float) -> None:
        """The deadline has come."""
        self.deadline = None
        self._timeouts += 1
        if self._timeouts > (RETRIES if self.connected else SYN_RETRIES):
            self._end(errno.ETIMEDOUT)
            return
        for sent in self._flight:
            sent.lost = not sent.arrived
        self._in_flight = 0
        if self.connected and self._flight:
            if self._recovering_until <= self._acknowledged:
                self._slow_start_until = max(self._window / 2, 2.0 * self._packet_size)
                self._recovering_until = self._next
            self._window = float(self._packet_size)
        if not self._flight and self._waiting:
            # The peer had no room, and may have said so in vain that it has.
            self.outbox.append((self._header(self._acknowledged - 1), b""))
        self._push(now)

    def acknowledge(self) -> None:
        """Send what `ack_due` asks for, unless it has gone out with data."""
        if self.ack_due and self.error is None:
            self.outbox.append((self._header(self._next), b""))

    # --- sending

    def _push(self, now: float) -> None:
        self._held_back = False
        for sent in self._flight:
            if sent.lost and not self._is_full(sent.end - sent.position):
                self._transmit(sent, now)
        while self.connected and self._waiting:
            window = self._acknowledged + self._peer_window - self._next
            size = min(len(self._waiting), self._packet_size, window)
            if size <= 0 or self._is_full(size):
                break
            data = bytes(self._waiting[:size])
            del self._waiting[:size]
            self._add(_Sent(self._next, self._next + size, data))
            self._transmit(self._flight[-1], now)
        if self.connected and self._finishing and not self._waiting:
            self._finishing = False
            self._add(_Sent(self._next, self._next + 1, b"", fin=True))
            self._transmit(self._flight[-1], now)
        if self._flight or self._waiting:
            self._arm(now)
        else:
            self.deadline = None

    def _arm(self, now: float) -> None:
        if self.deadline is None:
            wait = FIRST_TIMEOUT
            if self._rtt is not None:
                wait = max(self._rtt + 4 * self._rtt_variation, MIN_TIMEOUT)
            self.deadline = now + min(wait * 2**self._timeouts, MAX_TIMEOUT)

    def _is_full(self, size: int) -> bool:
        full = self._in_flight > 0 and self._in_flight + size > self._window
        self._held_back |= full
        return full

    def _add(self, sent: _Sent) -> None:
        self._next = sent.end
        self._flight.append(sent)

    def _transmit(self, sent: _Sent, now: float) -> None:
        self._transmissions += 1
        sent.again = sent.number > 0
        sent.number, sent.at, sent.lost = self._transmissions, now, False
        self._in_flight += sent.end - sent.position
        header = self._header(sent.position, syn=sent.syn, fin=sent.fin)
        self.outbox.append((header, sent.data))
        self._arm(now)

    def _header(self, position: int, *, syn: bool = False, fin: bool = False) -> TcpHeader:
        self.ack_due = False
        self._window_told = self._room
        selective = tuple((start, end) for start, end in self._ranges)
        return TcpHeader(position, self._expected, self._window_told, selective, syn=syn, fin=fin)

    def _heard(self, acknowledged: int, header: TcpHeader, now: float) -> None:
        self._peer_window = header.window
        newest: _Sent | None = None
        amount = 0
        for sent in self._flight:
            if sent.arrived:
                continue
            if sent.end > acknowledged and not any(
                start <= sent.position and sent.end <= end for start, end in header.selective
            ):
                if not header.selective:
                    break
                continue
            sent.arrived = True
            amount += sent.end - sent.position
            if not sent.lost:
                self._in_flight -= sent.end - sent.position
            sent.lost = False
            if newest is None or sent.number > newest.number:
                newest = sent
        while self._flight and self._flight[0].end <= acknowledged:
            gone = self._flight.popleft()
            self.connected |= gone.syn
            self.finished |= gone.fin
        self._acknowledged = max(self._acknowledged, acknowledged)
        if newest is None:
            return
        self._timeouts = 0
        self.deadline = None
        if not newest.again:
            self._measured(now - newest.at)
        self._grow(amount)
        if header.selective:
            self._look_for_losses(newest.number)

    def _measured(self, rtt: float) -> None:
        if self._rtt is None:
            self._rtt, self._rtt_variation = rtt, rtt / 2
        else:
            self._rtt_variation += (abs(self._rtt - rtt) - self._rtt_variation) / 4
            self._rtt += (rtt - self._rtt) / 8

    def _grow(self, amount: int) -> None:
        if self._window < self._slow_start_until:
            if self._held_back:
                self._window += amount
        elif self._held_back:
            self._window += self._packet_size * amount / self._window

    def _look_for_losses(self, newest: int) -> None:
        for sent in self._flight:
            if sent.arrived or sent.lost or sent.number > newest - REORDERING:
                continue
            sent.lost = True
            self._in_flight -= sent.end - sent.position
            if sent.position >= self._recovering_until:
                self._window = max(self._window * SLOWER, 2.0 * self._packet_size)
                self._slow_start_until = self._window
                self._recovering_until = self._next

    # --- receiving

    @property
    def _room(self) -> int:
        return max(RECEIVE_WINDOW - len(self._received), 0)

    def _take_in(self, position: int, data: bytes, fin: bool) -> None:
        assert self._expected is not None
        self.ack_due = True
        end = position + len(data) + fin
        if end <= self._expected or end > self._expected + self._room + fin:
            return
        if position != self._expected:
            if position > self._expected and position not in self._early:
                self._early[position] = data, fin
                self._note_range(position, end)
            return
        while True:
            self._received += data
            self._expected += len(data) + fin
            self.peer_finished |= fin
            if self._expected not in self._early:
                break
            data, fin = self._early.pop(self._expected)
        self._ranges = [found for found in self._ranges if found[1] > self._expected]

    def _note_range(self, start: int, end: int) -> None:
        ranges = self._ranges
        at = bisect_left(ranges, [start, end])
        if at and ranges[at - 1][1] == start:
            at -= 1
            ranges[at][1] = end
        else:
            ranges.insert(at, [start, end])
        if at + 1 < len(ranges) and ranges[at + 1][0] == ranges[at][1]:
            ranges[at][1] = ranges.pop(at + 1)[1]

    def _end(self, number: int) -> None:
        if self.error is None:
            self.error = OSError(number, os.strerror(number))
        self.deadline = None
        self._flight.clear()
        self._waiting.clear()
