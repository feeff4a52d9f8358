"""The UDP ports of one host, and the engines' slots behind them."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING
from weakref import ref

from aioiroh.net import SlotHost, UdpSlot
from aioiroh.testing.ports import FreePorts, is_wildcard, takes
from aioiroh.testing.wire import Packet

if TYPE_CHECKING:
    from aioiroh.testing.host import Host

__all__ = ["UdpPorts"]

OUTPUT_BATCHES = 64


@dataclass(slots=True, eq=False)
class _Socket:
    # An endpoint that nobody holds any more goes away, as it would on the real network.
    owner: ref[SlotHost]
    address: tuple[str, int]
    slot: int = -1


class UdpPorts:
    """Binds slots, sends what they have, and gives them what arrives."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._sockets: dict[int, list[_Socket]] = {}
        self._ports = FreePorts()

    def bind(self, owner: SlotHost, ip: str, port: int) -> UdpSlot:
        """Give the engine a slot at this address. Raises OSError."""
        ip = str(ip_address(ip))
        self._host.check_own(ip)
        taken = [
            socket.address
            for sockets in self._sockets.values()
            for socket in sockets
            if socket.owner() is not None
        ]
        socket = _Socket(ref(owner), self._ports.choose((ip, port), taken))
        port = socket.address[1]
        socket.slot = owner.add_virtual(
            ip, port, lambda _: self._output(socket), lambda _: self._close(socket)
        )
        others = (other for other in self._sockets.get(port, ()) if other.owner())
        self._sockets[port] = [*others, socket]
        return UdpSlot(index=socket.slot, host=ip, port=port)

    def arrived(self, packet: Packet) -> bool:
        """Take in a datagram; False: nobody is there for it."""
        for socket in self._sockets.get(packet.destination[1], ()):
            owner = socket.owner()
            if owner and takes(socket.address, packet.destination):
                self._host.network.wire.record(packet, "received")
                owner.inject(
                    socket.slot,
                    packet.source,
                    packet.data,
                    destination=packet.destination[0],
                    ecn=packet.ecn,
                )
                return True
        return False

    def _close(self, socket: _Socket) -> None:
        port = socket.address[1]
        sockets = self._sockets[port]
        sockets.remove(socket)
        if not sockets:
            del self._sockets[port]

    def _output(self, socket: _Socket) -> None:
        owner = socket.owner()
        ip, port = socket.address
        wanted = None if is_wildcard(ip) else ip
        while owner and (batches := owner.take_output(socket.slot, OUTPUT_BATCHES)):
            for destination, source_ip, ecn, segment_size, data in batches:
                source = wanted or source_ip or self._host.source_for(destination[0])
                if source is None:
                    source = "::" if ":" in destination[0] else "0.0.0.0"
                step = segment_size or len(data) or 1
                for start in range(0, len(data), step):
                    piece = data[start : start + step]
                    self._host.send(Packet((source, port), destination, piece, ecn))
