"""The port through which aioiroh sees the outside world."""

from __future__ import annotations

from asyncio import BaseProtocol, DatagramProtocol
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol, TypeVar

from aioiroh.net.interfaces import LocalAddress

P = TypeVar("P", bound=BaseProtocol)
D = TypeVar("D", bound=DatagramProtocol)

__all__ = ["Network", "SlotHost", "TcpListener", "UdpOptions", "UdpSlot"]

SOCKET_BUFFER = 7 << 20
"""Bytes asked for in each direction: a loop that is blocked for some milliseconds loses nothing."""


@dataclass(frozen=True, slots=True)
class UdpOptions:
    """How a UDP socket is opened.

    `receive_buffer` and `send_buffer` in bytes are what the kernel is asked for (it may grant
    less); `segmentation` allows sending several datagrams in one system call (GSO).
    """

    receive_buffer: int = SOCKET_BUFFER
    send_buffer: int = SOCKET_BUFFER
    segmentation: bool = True


@dataclass(frozen=True, slots=True)
class UdpSlot:
    """A place of the engine where datagrams leave and arrive, and what the kernel granted.

    `index` names the slot in the engine. `send_segments` and `receive_segments`: datagrams per
    system call (1: no offload). `may_fragment`: the path MTU cannot be probed from here.
    """

    index: int
    host: str
    port: int
    receive_buffer: int = 0
    send_buffer: int = 0
    send_segments: int = 1
    receive_segments: int = 1
    may_fragment: bool = False


class SlotHost(Protocol):
    """What a network needs from the engine that datagrams belong to; the driver implements it."""

    def add_udp(self, host: str, port: int, options: UdpOptions) -> UdpSlot:
        """Open a UDP socket that the engine reads and writes itself. Raises OSError."""

    def rebind(self, slot: int) -> tuple[str, int]:
        """Close the slot's socket and open it anew, at the same port if it can be had. Raises OSError: it is gone."""

    def add_virtual(
        self,
        host: str,
        port: int,
        on_output: Callable[[int], None],
        on_removed: Callable[[int], None] | None = None,
    ) -> int:
        """A slot without a socket. `on_output(slot)`: datagrams wait to be taken; `on_removed(slot)`:
        the slot is gone, because it was removed or the engine has ended.
        """

    def take_output(
        self, slot: int, limit: int = 64
    ) -> Sequence[tuple[tuple[str, int], str | None, int, int | None, bytes]]:
        """Up to `limit` waiting batches: destination, source ip, ECN bits, segment size, bytes."""

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
        """Datagrams that arrived at a virtual slot, at the local ip `destination`."""


class TcpListener(Protocol):
    """A TCP port that takes connections, until it is closed."""

    @property
    def address(self) -> tuple[str, int]:
        """IP address and port."""

    def close(self) -> None:
        """Take no more connections. Those that are open stay."""

    async def wait_closed(self) -> None:
        """Until the port is free."""


class Network(Protocol):
    """Clock, chance, datagrams and byte streams. All times are seconds."""

    @property
    def random(self) -> Random:
        """Chance for jitter and choice, never for secrets. Seeded in simulations."""

    @property
    def engine_clock(self) -> Callable[[], float] | None:
        """The clock an engine on this network runs by; None: the machine's monotonic clock."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never jumps."""

    def wall_clock(self) -> float:
        """Seconds since 1970-01-01 UTC."""

    def secret(self, size: int) -> bytes:
        """`size` bytes for keys and seeds."""

    def bind_udp(self, host: SlotHost, address: tuple[str, int], options: UdpOptions) -> UdpSlot:
        """Give `host` a slot that is bound to `address` (port 0: any). Raises OSError."""

    async def open_udp(self, protocol_factory: Callable[[], D], host: str, port: int) -> D:
        """A UDP socket at an IP address and port (0: any) for what is no engine's, as asyncio makes it: gives the
        protocol. Raises OSError.
        """

    async def resolve(self, host: str) -> Sequence[str]:
        """The IP addresses of a host name, best first; an IP address is its own. Raises OSError."""

    def rebind_udp(self, host: SlotHost, slot: UdpSlot) -> UdpSlot:
        """After a change of the network, open the socket anew if sockets here do not survive that. Raises OSError:
        it is gone.
        """

    async def connect_tcp(self, protocol_factory: Callable[[], P], host: str, port: int) -> P:
        """A TCP connection to a host name or IP address, as asyncio makes it: gives the protocol.

        Addresses of both families are tried (RFC 8305). Raises OSError.
        """

    async def listen_tcp(
        self, protocol_factory: Callable[[], BaseProtocol], host: str, port: int
    ) -> TcpListener:
        """Take TCP connections at an IP address and port (0: any); each gets a protocol of its own.

        `::` takes those over IPv4, too, and on a machine without IPv6 only those.
        Raises OSError.
        """

    def local_addresses(self) -> Sequence[LocalAddress]:
        """The addresses of this machine's interfaces that are up, in the system's order."""

    def outward_addresses(self) -> Sequence[str]:
        """The local addresses from which datagrams to the internet leave: at most one of each IP version, none
        without a default route.
        """

    def gateway(self) -> str | None:
        """The IPv4 address of the router through which datagrams to the internet leave; None: there is none, or
        the system does not tell.
        """

    def watch(self, on_change: Callable[[], None]) -> Callable[[], None]:
        """Call `on_change` in the running loop whenever interfaces, addresses or routes may have changed.

        Many calls may come of one change, and some of none. Gives the function that ends this.
        """
