"""The network paths of a connection, as the engine sees them (multipath extension of QUIC)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakValueDictionary

from aioiroh import _native
from aioiroh.address import CustomAddr, RelayAddr
from aioiroh.aio import Watch
from aioiroh.quic.causes import loss_copy

if TYPE_CHECKING:
    from aioiroh.quic.state import ConnectionState

__all__ = [
    "AddressObserved",
    "Lagged",
    "PathBoard",
    "PathClosed",
    "PathEvent",
    "PathInfo",
    "PathOpened",
    "PathSelected",
    "PathStatus",
    "PathStatusChanged",
    "PeerCandidate",
]

Address = tuple[str, int]
"""IP address and UDP port."""
PathStatus = Literal["available", "backup"]

EVENT_BACKLOG = 64
"""Events kept for a subscriber that does not look; the oldest go first, and it is told."""


@dataclass(frozen=True, slots=True)
class PathInfo:
    """One path at one moment. Two are equal if they are the same path in the same state; the
    measurements do not count.
    """

    id: int
    """Path id; 0 is the path of the handshake."""
    remote: Address
    """Where the peer is."""
    local: str | None
    """Our address, if the system told it."""
    status: PathStatus
    """How we ask the peer to use the path: `backup` only when no other works."""
    remote_status: PathStatus | None
    """The same from the peer; None: it has not said."""
    relay: str | None
    """URL of the relay through which the path goes; `remote` then means something to the engine only."""
    custom: CustomAddr | None
    """Where the peer is on a custom transport; `remote` then means something to the engine only, too."""
    rtt: float = field(compare=False)
    """Smoothed round-trip time in seconds."""
    measurements: Mapping[str, Any] = field(compare=False, repr=False)
    """Counters of the engine: congestion window and MTU in bytes, packets and bytes sent,
    received and lost, MTU probes, congestion events."""


@dataclass(frozen=True, slots=True)
class PathOpened:
    """A path was validated and can carry data."""

    id: int
    remote: Address
    local: str | None


@dataclass(frozen=True, slots=True)
class PathClosed:
    """A path is gone, with the reason, the error code if the peer gave one, and last counters."""

    id: int
    reason: str
    code: int | None
    measurements: Mapping[str, Any] = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class PathStatusChanged:
    """The peer asks to use a path in another way."""

    id: int
    status: PathStatus


@dataclass(frozen=True, slots=True)
class PathSelected:
    """Data go this way from now on."""

    id: int


@dataclass(frozen=True, slots=True)
class AddressObserved:
    """The peer says at which address it sees us on this path."""

    id: int
    address: Address


@dataclass(frozen=True, slots=True)
class PeerCandidate:
    """The peer offers an address for hole punching, or takes it back."""

    address: Address
    added: bool


@dataclass(frozen=True, slots=True)
class Lagged:
    """`missed` events were dropped because nobody took them; `paths` is how things stand now."""

    missed: int
    paths: tuple[PathInfo, ...]


PathEvent = (
    PathOpened
    | PathClosed
    | PathSelected
    | PathStatusChanged
    | AddressObserved
    | PeerCandidate
    | Lagged
)


class PathBoard:
    """Keeps the watch and the event subscribers of one connection; made when first asked for."""

    def __init__(self, state: ConnectionState) -> None:
        self._state = state
        # In the order in which they came, unlike a set: simulations must repeat.
        self._subscribers: WeakValueDictionary[int, _Subscriber] = WeakValueDictionary()
        self._subscriptions = 0
        self._abandoned: dict[int, tuple[str, int | None]] = {}
        self.watch: Watch[tuple[PathInfo, ...]] = Watch(self.snapshot())
        if state.lost is not None:
            self.end()

    def snapshot(self) -> tuple[PathInfo, ...]:
        """The paths now, in ascending order of their ids."""
        try:
            return tuple(map(self._info, self._state.native.paths()))
        except _native.NativeError:
            return ()

    def _info(self, path: Mapping[str, Any]) -> PathInfo:
        facts = dict(path)
        remote = facts.pop("remote")
        observer = self._state.observer
        stands_for = None if observer is None else observer.stands_for(remote[0])
        return PathInfo(
            id=facts.pop("id"),
            remote=remote,
            local=facts.pop("local"),
            status=facts.pop("status"),
            remote_status=facts.pop("remote_status"),
            relay=stands_for.url if isinstance(stands_for, RelayAddr) else None,
            custom=stands_for if isinstance(stands_for, CustomAddr) else None,
            rtt=facts.pop("rtt"),
            measurements=facts,
        )

    def refresh(self) -> None:
        """Something may have changed."""
        self.watch.set(self.snapshot())

    async def events(self) -> AsyncIterator[PathEvent]:
        """What happens from now on, until the connection ends."""
        subscriber = _Subscriber(self._state.loop)
        self._subscriptions += 1
        self._subscribers[self._subscriptions] = subscriber
        if self._state.lost is not None:
            subscriber.end()
        while await subscriber.ready():
            if subscriber.missed:
                missed, subscriber.missed = subscriber.missed, 0
                yield Lagged(missed, self.snapshot())
            else:
                yield subscriber.events.popleft()

    def end(self) -> None:
        """The connection is over."""
        lost = self._state.lost
        self.watch.close(None if lost is None else loss_copy(lost))
        for subscriber in tuple(self._subscribers.values()):
            subscriber.end()

    def _tell(self, event: PathEvent) -> None:
        for subscriber in tuple(self._subscribers.values()):
            subscriber.put(event)

    # --- events of the engine

    def on_established(self, path: int, remote: Address, local: str | None) -> None:
        self._tell(PathOpened(path, remote, local))
        self.refresh()

    def on_abandoned(self, path: int, reason: str, code: int | None) -> None:
        self._abandoned[path] = (reason, code)
        self.refresh()

    def on_discarded(self, path: int, measurements: Mapping[str, Any]) -> None:
        # Only now the last counters are known; both events together are one for the application.
        reason, code = self._abandoned.pop(path, ("", None))
        self._tell(PathClosed(path, reason, code, measurements))
        self.refresh()

    def on_local_status(self, path: int, status: PathStatus) -> None:
        if status == "available":
            self._tell(PathSelected(path))
        self.refresh()

    def on_remote_status(self, path: int, status: PathStatus) -> None:
        self._tell(PathStatusChanged(path, status))
        self.refresh()

    def on_observed(self, path: int, address: Address) -> None:
        self._tell(AddressObserved(path, address))

    def on_candidate(self, added: bool, address: Address) -> None:
        self._tell(PeerCandidate(address, added))


class _Subscriber:
    """The bounded backlog of one event iterator."""

    __slots__ = ("__weakref__", "_ended", "_loop", "_waiter", "events", "missed")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self.events: deque[PathEvent] = deque()
        self.missed = 0

    def put(self, event: PathEvent) -> None:
        # A later word on the same thing replaces an earlier one that nobody has seen.
        if self.events:
            last = self.events[-1]
            match event:
                case PathSelected() if isinstance(last, PathSelected):
                    self.events.pop()
                case PathStatusChanged() | AddressObserved() if type(last) is type(event):
                    if last.id == event.id:
                        self.events.pop()
        if len(self.events) == EVENT_BACKLOG:
            self.events.popleft()
            self.missed += 1
        self.events.append(event)
        self._wake()

    def end(self) -> None:
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def ready(self) -> bool:
        """Wait for an event; false: there will be none."""
        while not self.events and not self._ended:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return bool(self.events)
