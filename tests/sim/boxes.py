"""Something that sends and receives datagrams on a virtual host, without a QUIC engine."""

from __future__ import annotations

import asyncio

from aioiroh.net import UdpOptions


class Box:
    """The engine's side of some slots: sends what it is told, keeps what it gets."""

    def __init__(self, host):
        self.host = host
        self.received = []
        self._slots = []
        self._waiting = []

    def bind(self, ip="0.0.0.0", port=0):
        return self.host.bind_udp(self, (ip, port), UdpOptions())

    def add_udp(self, host, port, options):
        raise AssertionError("a virtual host has no sockets")

    def add_virtual(self, host, port, on_output, on_removed):
        self._slots.append((on_output, on_removed))
        return len(self._slots) - 1

    def send(self, destination, data, *, slot=0, source=None, ecn=0, segment_size=None):
        self._waiting.append((destination, source, ecn, segment_size, data))
        self._slots[slot][0](slot)

    def close(self, slot=0):
        self._slots[slot][1](slot)

    def take_output(self, slot, limit):
        taken, self._waiting = self._waiting[:limit], self._waiting[limit:]
        return taken

    def inject(self, slot, source, data, *, destination=None, segment_size=None, ecn=0):
        loop = asyncio.get_running_loop()
        self.received.append((loop.time(), slot, source, destination, data, ecn))

    @property
    def data(self):
        return [entry[4] for entry in self.received]

    @property
    def times(self):
        return [entry[0] for entry in self.received]
