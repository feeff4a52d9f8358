"""Clients of a relay that do nothing but send and count: frames are made and masked beforehand.

What they cost is not the relay's cost, so it is left out; what the relay costs depends on how much comes at once,
so every sender keeps the same amount on its way whatever the relay.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import time
from base64 import b64encode
from dataclasses import dataclass
from itertools import cycle

from blake3 import blake3

from aioiroh.keys import SecretKey

CONTEXT = "iroh-relay handshake v1 challenge signature"


@dataclass(frozen=True)
class Load:
    """What one sender sends: frames with `content` bytes in segments of `segment` (0: one datagram), of
    which at most `ahead` are on their way, written `at_once`.
    """

    content: int
    segment: int
    ahead: int
    at_once: int


SINGLE = Load(content=100, segment=0, ahead=1, at_once=1)
SMALL = Load(content=100, segment=0, ahead=256, at_once=32)
FULL = Load(content=14_520, segment=1452, ahead=32, at_once=4)


class RelayClient:
    """A connection to a relay, let in."""

    def __init__(self, address: tuple[str, int], key: SecretKey | None = None) -> None:
        self.key = key or SecretKey.generate()
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(
            b"GET /relay HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: %b\r\nSec-WebSocket-Version: 13\r\n"
            b"sec-websocket-protocol: iroh-relay-v2\r\n\r\n" % b64encode(os.urandom(16))
        )
        received = b""
        while b"\r\n\r\n" not in received or len(received.partition(b"\r\n\r\n")[2]) < 19:
            received += self._some()
        challenge = received.partition(b"\r\n\r\n")[2][3:19]
        message = blake3(challenge, derive_key_context=CONTEXT).digest()
        proof = b"\x01" + bytes(self.key.public) + b"\x40" + bytes(self.key.sign(message))
        self.socket.sendall(masked(proof))
        confirmed = b""
        while len(confirmed) < 3:
            confirmed += self._some()
        assert confirmed == b"\x82\x01\x02", confirmed

    def close(self) -> None:
        self.socket.close()

    def _some(self) -> bytes:
        data = self.socket.recv(4096)
        if not data:
            raise OSError("the relay closed the connection")
        return data


def masked(message: bytes) -> bytes:
    """A WebSocket message with a mask of its own."""
    mask = os.urandom(4)
    size = len(message)
    if size < 126:
        head = bytes((0x82, 0x80 | size))
    else:
        head = bytes((0x82, 0x80 | 126)) + struct.pack(">H", size)
    pad = int.from_bytes(mask * (size // 4 + 1), "big") >> 8 * (4 - size % 4)
    return head + mask + (int.from_bytes(message, "big") ^ pad).to_bytes(size, "big")


def frames(to: bytes, load: Load, count: int) -> bytes:
    """So many frames, each masked with a key of its own."""
    if load.segment:
        head = b"\x05" + to + b"\x00" + struct.pack(">H", load.segment)
    else:
        head = b"\x04" + to + b"\x00"
    return b"".join(masked(head + os.urandom(load.content)) for _ in range(count))


class Flow:
    """A sender, a receiver, and what is on its way between them."""

    def __init__(self, address: tuple[str, int], load: Load) -> None:
        self.load = load
        self.sender, self.receiver = RelayClient(address), RelayClient(address)
        pieces = [frames(bytes(self.receiver.key.public), load, load.at_once) for _ in range(16)]
        self._pieces = cycle(pieces)
        # The relay leaves out the mask.
        self.frame_size = len(pieces[0]) // load.at_once - 4
        self.sent = self.received = 0
        """Frames and bytes."""

    @property
    def arrived(self) -> int:
        """Whole frames."""
        return self.received // self.frame_size

    def send(self, most: int) -> None:
        """What may be sent now."""
        while self.sent < most and self.sent + self.load.at_once - self.arrived <= self.load.ahead:
            self.sender.socket.sendall(next(self._pieces))
            self.sent += self.load.at_once

    def close(self) -> None:
        self.sender.close()
        self.receiver.close()


def run(address: tuple[str, int], load: Load, flows: int, count: int, seconds: float) -> int:
    """Sends `count` frames over each of so many flows; gives how many arrived. OSError: some were lost."""
    running = [Flow(address, load) for _ in range(flows)]
    room = bytearray(1 << 20)
    ends = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for flow in running:
            flow.receiver.socket.setblocking(False)
            selector.register(flow.receiver.socket, selectors.EVENT_READ, flow)
            flow.send(count)
        while any(flow.arrived < flow.sent for flow in running):
            if time.monotonic() > ends:
                raise OSError("the relay lost frames, or was too slow")
            for key, _ in selector.select(1):
                flow = key.data
                flow.received += flow.receiver.socket.recv_into(room)
                flow.send(count)
    for flow in running:
        flow.close()
    return sum(flow.arrived for flow in running)
