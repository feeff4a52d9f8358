"""The UDP ports of one host: the engines' slots, and sockets of other protocols."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import ref

from aioiroh.net import SlotHost, UdpSlot
from aioiroh.testing.ports import FreePorts, is_wildcard, takes
from aioiroh.testing.wire import Packet

if TYPE_CHECKING:
    from aioiroh.testing.host import Host

__all__ = ["UdpPorts"]

P = TypeVar("P", bound=asyncio.DatagramProtocol)

OUTPUT_BATCHES = 64


class UdpPorts:
    """Binds slots and sockets, sends what they have, and gives them what arrives."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._sockets: dict[int, list[_Slot | _Socket]] = {}
        self._ports = FreePorts()

    def bind(self, owner: SlotHost, ip: str, port: int) -> UdpSlot:
        """Give the engine a slot at this address. Raises OSError."""
        slot = _Slot(ref(owner), self._free(ip, port))
        ip, port = slot.address
        slot.index = owner.add_virtual(
            ip, port, lambda _: self._output(slot), lambda _: self._close(slot)
        )
        self._add(slot)
        return UdpSlot(index=slot.index, host=ip, port=port)

    def open(self, protocol_factory: Callable[[], P], ip: str, port: int) -> P:
        """Give the protocol that is made a socket at this address. Raises OSError."""
        address = self._free(ip, port)
        protocol = protocol_factory()
        socket = _Socket(protocol, address, self._send, self._close)
        self._add(socket)
        protocol.connection_made(socket)
        return protocol

    def arrived(self, packet: Packet) -> bool:
        """Take in a datagram; False: nobody is there for it."""
        for socket in self._sockets.get(packet.destination[1], ()):
            if takes(socket.address, packet.destination) and socket.is_open():
                self._host.network.wire.record(packet, "received")
                socket.take(packet)
                return True
        return False

    @property
    def taken(self) -> list[tuple[str, int]]:
        """The addresses that are bound."""
        return [
            socket.address
            for sockets in self._sockets.values()
            for socket in sockets
            if socket.is_open()
        ]

    def _free(self, ip: str, port: int) -> tuple[str, int]:
        ip = str(ip_address(ip))
        self._host.check_own(ip)
        return self._ports.choose((ip, port), self.taken)

    def _add(self, socket: _Slot | _Socket) -> None:
        port = socket.address[1]
        others = (other for other in self._sockets.get(port, ()) if other.is_open())
        self._sockets[port] = [*others, socket]

    def _close(self, socket: _Slot | _Socket) -> None:
        port = socket.address[1]
        sockets = self._sockets[port]
        sockets.remove(socket)
        if not sockets:
            del self._sockets[port]

    def _output(self, slot: _Slot) -> None:
        owner = slot.owner()
        while owner and (batches := owner.take_output(slot.index, OUTPUT_BATCHES)):
            for destination, source_ip, ecn, segment_size, data in batches:
                step = segment_size or len(data) or 1
                for start in range(0, len(data), step):
                    piece = data[start : start + step]
                    self._send(slot.address, destination, piece, source_ip, ecn)

    def _send(
        self,
        bound: tuple[str, int],
        destination: tuple[str, int],
        data: bytes,
        source_ip: str | None = None,
        ecn: int = 0,
    ) -> None:
        wanted = None if is_wildcard(bound[0]) else bound[0]
        source = wanted or source_ip or self._host.source_for(destination[0])
        if source is None:
            source = "::" if ":" in destination[0] else "0.0.0.0"
        self._host.send(Packet((source, bound[1]), destination, data, ecn))


class _Slot:
    """A slot of an engine."""

    def __init__(self, owner: ref[SlotHost], address: tuple[str, int]) -> None:
        # An endpoint that nobody holds any more goes away, as it would on the real network.
        self.owner = owner
        self.address = address
        self.index = -1

    def is_open(self) -> bool:
        return self.owner() is not None

    def take(self, packet: Packet) -> None:
        owner = self.owner()
        if owner is not None:
            owner.inject(
                self.index,
                packet.source,
                packet.data,
                destination=packet.destination[0],
                ecn=packet.ecn,
            )


class _Socket(asyncio.DatagramTransport):
    """A socket of a protocol of asyncio."""

    def __init__(
        self,
        protocol: asyncio.DatagramProtocol,
        address: tuple[str, int],
        send: Callable[[tuple[str, int], tuple[str, int], bytes], None],
        on_close: Callable[[_Socket], None],
    ) -> None:
        super().__init__({"sockname": address})
        self._protocol = protocol
        self.address = address
        self._send = send
        self._on_close = on_close
        self._open = True

    def is_open(self) -> bool:
        return self._open

    def take(self, packet: Packet) -> None:
        self._protocol.datagram_received(packet.data, packet.source)

    def sendto(self, data: Any, addr: Any = None) -> None:
        if self._open:
            self._send(self.address, addr, bytes(data))

    def close(self) -> None:
        if self._open:
            self._open = False
            self._on_close(self)
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    abort = close

    def is_closing(self) -> bool:
        return not self._open
