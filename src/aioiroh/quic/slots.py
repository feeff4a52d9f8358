"""Where the datagrams of an engine come from and go to: the part of a driver that a network sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from aioiroh.net import UdpOptions, UdpSlot

if TYPE_CHECKING:
    from aioiroh import _native
    from aioiroh.quic.alarm import Alarm

__all__ = ["Slots"]


class Slots:
    """A base of the driver, and the `SlotHost` that a network binds sockets for."""

    engine: _native.Engine
    _alarm: Alarm

    def __init__(self) -> None:
        self._outputs: dict[int, Callable[[int], None]] = {}
        self._removals: dict[int, Callable[[int], None]] = {}
        self._injected = False

    def check(self) -> None:
        """Raise if this is the wrong loop or thread, or if there is no living engine."""
        raise NotImplementedError

    def touched(self) -> None:
        """Something was asked of the engine."""
        raise NotImplementedError

    def add_udp(self, host: str, port: int, options: UdpOptions) -> UdpSlot:
        self.check()
        index, (bound_host, bound_port), granted = self.engine.add_udp(
            host,
            port,
            recv_buffer=options.receive_buffer,
            send_buffer=options.send_buffer,
            gso=options.segmentation,
        )
        self._alarm.rearm()
        return UdpSlot(
            index=index,
            host=bound_host,
            port=bound_port,
            receive_buffer=granted["recv_buffer"],
            send_buffer=granted["send_buffer"],
            send_segments=granted["gso_segments"],
            receive_segments=granted["gro_segments"],
            may_fragment=bool(granted["may_fragment"]),
        )

    def add_virtual(
        self,
        host: str,
        port: int,
        on_output: Callable[[int], None],
        on_removed: Callable[[int], None] | None = None,
    ) -> int:
        self.check()
        slot = self.engine.add_virtual(host, port)
        self._outputs[slot] = on_output
        if on_removed is not None:
            self._removals[slot] = on_removed
        return slot

    def remove_slot(self, slot: int) -> None:
        """Close a socket or forget a virtual slot."""
        self.check()
        self.engine.remove_slot(slot)
        self._forget_slot(slot)
        self._alarm.rearm()

    def _forget_slot(self, slot: int) -> None:
        self._outputs.pop(slot, None)
        on_removed = self._removals.pop(slot, None)
        if on_removed is not None:
            on_removed(slot)

    def set_reach(self, slot: int, prefix: int | None, *, outward: bool) -> None:
        """Of several slots of one IP version, this one is best for what is in the network of its own address, which
        has that prefix in bits; `outward`: also for what is in no slot's network.
        """
        self.engine.set_reach(slot, prefix, outward)

    def rebind(self, slot: int) -> tuple[str, int]:
        """Close the socket and open it anew. Raises OSError: it is gone."""
        self.check()
        bound = self.engine.rebind(slot)
        self._alarm.rearm()
        return bound

    def take_output(
        self, slot: int, limit: int = 64
    ) -> Sequence[tuple[tuple[str, int], str | None, int, int | None, bytes]]:
        return self.engine.take_output(slot, limit)

    def inject(
        self,
        slot: int,
        source: tuple[str, int],
        data: bytes,
        *,
        destination: str | None = None,
        segment_size: int | None = None,
        ecn: int = 0,
    ) -> None:
        self.engine.inject(
            slot, source, data, destination=destination, segment_size=segment_size, ecn=ecn
        )
        self.injected()

    def injected(self) -> None:
        """Datagrams were put into the engine: tasks hear of them before acknowledgements leave."""
        self._injected = True
        self.touched()
