"""One peer, all its addresses at once: the first authenticated answer wins.

The handshake goes out to every known address (iroh does the same), those that a lookup finds later
included. When something answers that is not the peer, or that refuses, its address is struck off and the
rest are tried anew.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from ipaddress import IPv6Address

from aioiroh.address import CustomAddr, IpAddr, RelayAddr, TransportAddr
from aioiroh.errors import (
    Attempt,
    ConnectError,
    ConnectionLostError,
    ConnectionTimeoutError,
    ConnectTimeoutError,
    LocallyClosedError,
    LookupFailedError,
    NoAddressError,
    PeerTransportError,
    TransportError,
)
from aioiroh.keys import EndpointId
from aioiroh.lookup import LookupItem
from aioiroh.paths.remotes import Remotes
from aioiroh.quic import Connection, Driver, TransportConfig
from aioiroh.quic.mapped import MAPPED_PORT, Mapped, is_mapped, mapped_ip

__all__ = ["Dial"]

Address = tuple[str, int]
"""IP address and UDP port."""

MAX_TARGETS = 64
"""Addresses tried at once; the rest have their turn when one of these is struck off."""
MAX_KNOWN = 1024
"""Addresses of one peer that are looked at at all."""


# The system knows at once that nothing can be sent there; other errors may pass.
_HOPELESS = frozenset(
    {
        errno.EACCES,
        errno.EADDRNOTAVAIL,
        errno.EAFNOSUPPORT,
        errno.EHOSTUNREACH,
        errno.EINVAL,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.EPERM,
    }
)


class Dial:
    """The attempt to reach one peer.

    `unusable(address)` says why this endpoint cannot send there, or None. `way_to(address)`: slot and
    address by which the engine reaches the peer there, or why it does not. `secret(size)` gives random bytes. `searching`: more addresses may come, until `search` has ended.
    """

    __slots__ = (
        "__weakref__",
        "_alpns",
        "_connection",
        "_driver",
        "_early_data",
        "_known",
        "_lookup_error",
        "_news",
        "_open",
        "_peer",
        "_reason",
        "_remotes",
        "_route",
        "_searching",
        "_secret",
        "_slots",
        "_transport",
        "_unsendable",
        "_unusable",
        "_way_to",
    )

    def __init__(
        self,
        driver: Driver,
        peer: EndpointId,
        remotes: Remotes,
        alpns: Sequence[bytes],
        *,
        transport: TransportConfig | None,
        early_data: bool,
        searching: bool,
        unusable: Callable[[Address], str | None],
        way_to: Callable[[RelayAddr | CustomAddr], tuple[int, Address] | str],
        secret: Callable[[int], bytes],
    ) -> None:
        self._driver = driver
        self._peer = peer
        self._remotes = remotes
        self._alpns = alpns
        self._transport = transport
        self._early_data = early_data
        self._searching = searching
        self._unusable = unusable
        self._way_to = way_to
        self._secret = secret
        # Why each address failed; None while it has not.
        self._known: dict[TransportAddr, str | None] = {}
        self._open: dict[Address, TransportAddr] = {}
        # Where not a socket sends, but what carries datagrams to a relay.
        self._slots: dict[Address, int] = {}
        self._unsendable: dict[Address, str] = {}
        self._connection: Connection | None = None
        self._route: str | None = None
        self._news: asyncio.Future[None] | None = None
        self._reason: Exception | None = None
        self._lookup_error: LookupFailedError | None = None

    # --- what is known

    def offer(self, addresses: Collection[TransportAddr], source: str | None = None) -> None:
        """Try these too, from now on; `source` is new to the remotes."""
        if source is not None:
            self._remotes.told(bytes(self._peer), addresses, source)
        before = len(self._open)
        for address in addresses:
            if address in self._known or len(self._known) >= MAX_KNOWN:
                continue
            self._known[address] = self._take(address)
        if len(self._open) > before:
            if self._route is not None:
                self._set_route(self._route)
                self._driver.touched()
            self._tell()

    async def search(self, answers: AsyncGenerator[LookupItem, None]) -> None:
        """Offer what a lookup finds. Its failure is told by `run`, if nothing else works."""
        error: LookupFailedError | None = None
        try:
            async with aclosing(answers):
                async for answer in answers:
                    self.offer(answer.data.addrs, f"lookup {answer.provenance}")
        except LookupFailedError as failure:
            error = failure
        finally:
            self._searched(error)

    def _searched(self, error: LookupFailedError | None) -> None:
        self._searching = False
        self._lookup_error = error
        self._give_up_if_hopeless()
        self._tell()

    def on_socket_error(self, destination: Address, text: str, number: int) -> None:
        """A socket could not send to this address."""
        if number in _HOPELESS and destination in self._open:
            self._unsendable[destination] = text
            self._give_up_if_hopeless()

    def attempts(self, otherwise: str) -> tuple[Attempt, ...]:
        """Every address and why it failed; `otherwise` where nothing is known."""
        reasons = dict(self._known)
        for pair, text in self._unsendable.items():
            if pair in self._open:
                reasons[self._open[pair]] = f"cannot send there: {text}"
        return tuple(Attempt(address, reason or otherwise) for address, reason in reasons.items())

    def timed_out(self, after: str) -> ConnectTimeoutError:
        """What to raise when time is up."""
        return ConnectTimeoutError(
            f"no connection to {self._peer.short()} {after}; it may be offline or behind a firewall",
            self.attempts("no answer"),
        )

    def _take(self, address: TransportAddr) -> str | None:
        """Open an address, or say why not."""
        match address:
            case IpAddr(pair=pair):
                reason = self._why_not(address, pair)
                if reason is not None:
                    return reason
            case RelayAddr() | CustomAddr():
                way = self._way_to(address)
                if isinstance(way, str):
                    return way
                slot, pair = way
                self._slots[pair] = slot
        self._open[pair] = address
        return None

    def _why_not(self, address: IpAddr, pair: Address) -> str | None:
        if isinstance(address.ip, IPv6Address) and is_mapped(address.ip):
            return "reserved"
        if address.port == 0 or address.ip.is_unspecified or address.ip.is_multicast:
            return "not the address of a host"
        return self._unusable(pair)

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def _give_up_if_hopeless(self) -> None:
        if (
            self._connection is not None
            and not self._searching
            and self._open.keys() <= self._unsendable.keys()
        ):
            self._connection.close()

    # --- the attempt

    async def run(self) -> Connection:
        """The connection, its handshake complete unless early data may be sent on it.

        Raises ConnectError or a subclass; LocallyClosedError when the endpoint closed meanwhile.
        """
        try:
            while True:
                while not self._open:
                    if not self._searching:
                        raise self._failure()
                    self._news = self._driver.loop.create_future()
                    await self._news
                connection = self._begin()
                if connection.is_early:
                    return connection
                try:
                    await connection.handshake_completed()
                    return connection
                except ConnectionLostError as error:
                    self._judge(connection, error)
                except BaseException:
                    connection.close()
                    raise
                self._end()
        finally:
            if self._connection is None or not self._connection.is_early:
                self._end()

    async def finish(self, connection: Connection) -> None:
        """Go on with the handshake of a connection on which early data are sent."""
        try:
            await connection.handshake_completed()
        finally:
            self._end()

    def _begin(self) -> Connection:
        if len(self._open) == 1 and not self._searching:
            # Nothing to spread: the plain address needs no route.
            (address,) = self._open
        else:
            route = mapped_ip(Mapped.ANY_PATH, self._secret(8))
            self._set_route(route)
            self._route = route
            address = (route, MAPPED_PORT)
        self._connection = self._driver.connect(
            address,
            bytes(self._peer),
            self._alpns,
            transport=self._transport,
            early_data=self._early_data,
        )
        return self._connection

    def _set_route(self, route: str) -> None:
        targets = [(self._slots.get(pair), pair) for pair in self._open]
        self._driver.engine.set_route(route, targets[:MAX_TARGETS])

    def _end(self) -> None:
        self._connection = None
        if self._route is not None:
            self._driver.engine.drop_route(self._route)
            self._route = None

    # --- failure

    def _judge(self, connection: Connection, error: ConnectionLostError) -> None:
        """Strike off the addresses that this failure is about; raise if nothing else can be done."""
        self._reason = error
        if isinstance(error, ConnectionTimeoutError):
            self._remotes.failed(bytes(self._peer), self._open.values())
            raise self.timed_out("before the idle timeout of the transport") from error
        if isinstance(error, LocallyClosedError):
            if self._driver.closing or not self._open.keys() <= self._unsendable.keys():
                raise error
            for pair, address in self._open.items():
                self._known[address] = f"cannot send there: {self._unsendable[pair]}"
            self._open.clear()
            return
        answered = connection.state.native.remote()
        blamed = [answered] if answered in self._open else list(self._open)
        struck = [self._open.pop(pair) for pair in blamed]
        self._known.update(dict.fromkeys(struck, _meaning(error)))
        self._remotes.failed(bytes(self._peer), struck)

    def _failure(self) -> ConnectError:
        peer = self._peer.short()
        if not self._known:
            failure: ConnectError = NoAddressError(
                str(self._lookup_error)
                if self._lookup_error
                else f"nothing is known of where {peer} is; give an address or a ticket"
            )
            failure.__cause__ = self._lookup_error
            return failure
        failure = ConnectError(f"no connection to {peer}", self.attempts("not tried"))
        failure.__cause__ = self._reason or self._lookup_error
        return failure


def _meaning(error: ConnectionLostError) -> str:
    match error:
        case TransportError(code=0x130):
            return "another key answers there"
        case PeerTransportError(code=0x178):
            return "it does not serve the protocol (ALPN) that was asked for"
        case PeerTransportError(code=0x02):
            return "it refused the connection"
    return str(error)
