"""The core that steers all connections to one peer: which paths are opened, used and closed.

No I/O and no clock: the shell tells what there is, `decide` says what to do about it. Only the side that dialled
opens and closes paths, and only it begins to punch holes (endpoint reference, sections 3.5, 3.6 and 4.5).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias

from aioiroh.aio import TokenBucket
from aioiroh.paths.guessing.rules import Sight
from aioiroh.paths.selection import Address, PathSelector, PathView, Route

__all__ = [
    "GOOD_RTT",
    "Action",
    "ClosePath",
    "Detour",
    "MarkPath",
    "OfferAddress",
    "OpenPath",
    "Punch",
    "Remote",
    "WithdrawAddress",
]

MAX_CANDIDATES: Final = 32
"""Addresses that one side offers the other."""
GOOD_RTT: Final = 0.010
"""Seconds; a direct path as short as this needs no better one."""
PUNCH_INTERVAL: Final = 5.0
"""Seconds between attempts with the same addresses."""
MAX_PUNCHES: Final = 8
"""Attempts in a row with new addresses of the peer each time; then one in each `PUNCH_INTERVAL`. A peer that goes on
naming addresses must not make us send to all of them.
"""
PUNCH_RETRY: Final = 0.1
"""Seconds after an attempt that could not be made."""
UPGRADE_INTERVAL: Final = 60.0
"""Seconds after which a connection without a direct path tries again."""
OPEN_RETRY: Final = 0.333
"""Seconds after a path could not be opened for want of connection ids."""
MAX_RETRIES: Final = 10
"""Attempts that cannot be made, one after the other, before something new has to happen."""
MAX_STUCK: Final = 4096
"""Bytes that may be under way on a silent path; if there are more, it is closed, because they are sent again only then.
Less is what is sent to see whether it answers again.
"""
CLOSE_RETRY: Final = 0.1
"""Seconds after a silent path could not be closed, since nothing had been heard on the other one."""
DETOUR_TIME: Final = 1.0
"""Seconds from a detour to the end of the path. The peer needs some of them for its own detour."""
COMPARE_INTERVAL: Final = 5.0
"""Seconds after which paths are compared again, should their round-trip times have changed."""


@dataclass(frozen=True, slots=True)
class OfferAddress:
    """Tell the peer of an address of ours."""

    connection: int
    address: Address


@dataclass(frozen=True, slots=True)
class WithdrawAddress:
    """It is ours no more."""

    connection: int
    address: Address


@dataclass(frozen=True, slots=True)
class OpenPath:
    """Open a path, in reserve."""

    connection: int
    route: Route


@dataclass(frozen=True, slots=True)
class ClosePath:
    """It is not needed any more."""

    connection: int
    path: int


@dataclass(frozen=True, slots=True)
class MarkPath:
    """Use it for data, or keep it in reserve."""

    connection: int
    path: int
    available: bool


@dataclass(frozen=True, slots=True)
class Detour:
    """A path is dead, and data are stuck on it: ask by another one what has arrived, so that the rest is sent again."""

    connection: int
    path: int
    by: int


@dataclass(frozen=True, slots=True)
class Punch:
    """Send to all addresses of the peer while it sends to all of ours."""

    connection: int


Action: TypeAlias = (
    OfferAddress | WithdrawAddress | OpenPath | ClosePath | MarkPath | Detour | Punch
)


@dataclass(slots=True)
class _Connection:
    is_client: bool
    paths: tuple[PathView, ...] = ()
    offered: dict[Address, None] = field(default_factory=dict)
    # In the order in which the peer has named them.
    theirs: dict[Address, None] = field(default_factory=dict)
    # Since when paths are taken for dead. They may have a detour: what is answered on them says nothing then.
    dead: dict[int, float] = field(default_factory=dict)
    detours: set[int] = field(default_factory=set)

    def bury(self, now: float) -> None:
        """See paths that are taken for dead as silent, until they are heard."""
        quiet = {path.id: path.quiet for path in self.paths}
        self.dead = {
            id: since for id, since in self.dead.items() if quiet.get(id, 0.0) >= now - since
        }
        self.detours &= self.dead.keys()
        self.paths = tuple(
            replace(path, unanswered=max(path.unanswered, path.patience))
            if path.id in self.dead
            else path
            for path in self.paths
        )

    @property
    def direct(self) -> list[PathView]:
        return [path for path in self.paths if path.is_ip and path.is_open]

    @property
    def has_good_path(self) -> bool:
        return any(path.rtt <= GOOD_RTT for path in self.direct)

    @property
    def may_improve(self) -> bool:
        """Whether the peer's addresses promise more than the paths that there are."""
        direct = self.direct
        if not direct:
            return True
        return not self.has_good_path and not self.theirs.keys() <= {path.remote for path in direct}


class Remote:
    """One peer. Tell it what changed, then carry out what `decide` gives."""

    def __init__(self, selector: PathSelector, now: float) -> None:
        self._selector = selector
        self._connections: dict[int, _Connection] = {}
        self._own: tuple[Address, ...] = ()
        self._relays: tuple[Address, ...] = ()
        self._wants_punch = False
        self._own_is_new = False
        # After our network has changed the paths that there are may be dead.
        self._shaken = False
        self._last_punch: tuple[float, frozenset[Address], frozenset[Address]] | None = None
        self._punches = TokenBucket(1 / PUNCH_INTERVAL, MAX_PUNCHES, now=now)
        self._punch_at: float | None = None
        self._open_at: float | None = None
        self._close_at: float | None = None
        self._retries = 0
        self._upgrade_at = now + UPGRADE_INTERVAL
        # Shorter after a direct path was lost, which may soon be possible again.
        self._upgrade_delay = UPGRADE_INTERVAL
        self._compare_at = now + COMPARE_INTERVAL
        self.selected: Route | None = None
        """The route that carries data."""

    # --- what is the case

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> Iterator[int]:
        return iter(tuple(self._connections))

    def added(self, connection: int, *, is_client: bool) -> None:
        """A handshake is complete; `is_client`: we have dialled."""
        self._connections[connection] = _Connection(is_client)
        self._something_new()

    def removed(self, connection: int) -> None:
        """A connection is over."""
        self._connections.pop(connection, None)
        if not self._connections:
            self.selected = None

    def see(self, connection: int, paths: Sequence[PathView]) -> None:
        """These are the paths of a connection now."""
        known = self._connections[connection]
        had_direct = bool(known.direct)
        known.paths = tuple(paths)
        if had_direct and not known.direct:
            self._upgrade_delay = PUNCH_INTERVAL
            self._something_new()

    def offers(self, connection: int, address: Address, *, added: bool) -> None:
        """The peer has told of an address of its own, or taken it back; of too many, the latest count."""
        theirs = self._connections[connection].theirs
        theirs.pop(address, None)
        if added:
            theirs[address] = None
            if len(theirs) > MAX_CANDIDATES:
                del theirs[next(iter(theirs))]
        self._something_new()

    def own(self, addresses: Iterable[Address], relays: Iterable[Address]) -> None:
        """Where we can be reached ourselves; and where the peer is, behind relays."""
        own = tuple(dict.fromkeys(addresses))[:MAX_CANDIDATES]
        if own != self._own:
            self._own = own
            self._own_is_new = True
            self._something_new()
        self._relays = tuple(relays)

    @property
    def sight(self) -> Sight:
        """What is the case, for those who guess."""
        connections = self._connections.values()
        return Sight(
            tuple(dict.fromkeys(address for each in connections for address in each.theirs)),
            frozenset(path.remote for each in connections for path in each.direct),
        )

    def network_changed(self, now: float, live: Collection[str], *, major: bool) -> None:
        """Our machine has these addresses now. `major`: nothing that was found out before needs to hold."""
        for connection in self._connections.values():
            for path in connection.paths:
                if path.is_ip and path.local not in (*live, None):
                    connection.dead[path.id] = now
        if self.selected is not None and self.selected[1] not in (*live, None):
            self.selected = None
        if major:
            self._shaken = True
            self._last_punch = None
            self._something_new()

    def could_not_punch(self, now: float) -> None:
        """The last `Punch` was not possible (yet)."""
        self._last_punch = None
        self._punches.take(now, -1)
        self._punch_at = self._again(now, PUNCH_RETRY)

    def could_not_open(self, now: float) -> None:
        """The last `OpenPath` was not possible (yet)."""
        self._open_at = self._again(now, OPEN_RETRY)

    def _something_new(self) -> None:
        self._wants_punch = True
        self._retries = 0

    def _again(self, now: float, delay: float) -> float | None:
        self._retries += 1
        return now + delay if self._retries <= MAX_RETRIES else None

    # --- what to do about it

    @property
    def deadline(self) -> float:
        """When `decide` should be asked again if nothing happens."""
        times = [self._upgrade_at, self._punch_at, self._open_at, self._close_at]
        if any(len(connection.paths) > 1 for connection in self._connections.values()):
            times.append(self._compare_at)
        return min(time for time in times if time is not None)

    def decide(self, now: float) -> list[Action]:
        """What to do now."""
        if now >= self._upgrade_at or self._upgrade_at > now + self._upgrade_delay:
            self._upgrade_at = now + self._upgrade_delay
            self._upgrade_delay = min(2 * self._upgrade_delay, UPGRADE_INTERVAL)
            self._wants_punch |= any(not each.direct for each in self._connections.values())
        self._compare_at = now + COMPARE_INTERVAL
        actions: list[Action] = []
        for number, connection in self._connections.items():
            connection.bury(now)
            self._tell_addresses(number, connection, actions)
        views = [
            path
            for connection in self._connections.values()
            for path in connection.paths
            if path.is_open
        ]
        self.selected = self._selector(views, self.selected) or self.selected
        self._close_at = None
        for number, connection in self._connections.items():
            self._arrange(now, number, connection, actions)
        self._punch(now, actions)
        return actions

    def _tell_addresses(self, number: int, connection: _Connection, actions: list[Action]) -> None:
        # Who is reached well has no use for other addresses; once told, they are kept true.
        if connection.has_good_path and not (connection.offered or self._shaken):
            return
        for address in [one for one in connection.offered if one not in self._own]:
            del connection.offered[address]
            actions.append(WithdrawAddress(number, address))
        for address in self._own:
            if address not in connection.offered:
                connection.offered[address] = None
                actions.append(OfferAddress(number, address))

    def _arrange(
        self, now: float, number: int, connection: _Connection, actions: list[Action]
    ) -> None:
        routes = {path.route for path in connection.paths}
        if connection.is_client and (self._open_at is None or now >= self._open_at):
            self._open_at = None
            wanted: list[Route] = [(address, None) for address in self._relays]
            if self.selected is not None:
                wanted.insert(0, self.selected)
            remotes = {path.remote for path in connection.paths}
            actions += [
                OpenPath(number, route)
                for route in wanted
                if route not in routes and (route[1] is not None or route[0] not in remotes)
            ]
        chosen = next(
            (path for path in connection.paths if path.route == self.selected and path.is_open),
            None,
        )
        if chosen is None:
            return  # until that path works here, too, everything stays as it is
        for path in connection.paths:
            if path is chosen:
                if not path.is_available:
                    actions.append(MarkPath(number, path.id, True))
                continue
            if path.is_available:
                actions.append(MarkPath(number, path.id, False))
            if self._is_left(now, number, connection, path, chosen, actions):
                actions.append(ClosePath(number, path.id))

    def _is_left(
        self,
        now: float,
        number: int,
        connection: _Connection,
        path: PathView,
        chosen: PathView,
        actions: list[Action],
    ) -> bool:
        """Whether to close a path, for it is needless or dead. What is stuck on it gets a detour before."""
        since = connection.dead.get(path.id)
        stuck = path.is_silent and path.outstanding > MAX_STUCK
        # The peer of who has dialled follows a path to where its packets come from: that through a relay would be lost.
        may_turn = path.is_ip or not connection.is_client
        if since is None and stuck and may_turn and path.is_open and not chosen.is_silent:
            since = connection.dead[path.id] = now
        if since is None:
            return connection.is_client and path.is_ip and chosen.is_ip
        if path.id not in connection.detours and path.outstanding:
            connection.detours.add(path.id)
            actions.append(Detour(number, path.id, chosen.id))
        if now < since + DETOUR_TIME:
            self._close_by(since + DETOUR_TIME)
            return False
        # A relay may be back at any time; and who was dialled closes a path only if that through the relay is left.
        is_kept = not path.is_ip or (not connection.is_client and chosen.is_direct)
        if chosen.is_silent or is_kept:
            del connection.dead[path.id]
            return False
        if chosen.quiet >= path.unanswered:
            # It may be the whole network that is silent; then the chosen one is about to be, too.
            self._close_by(now + CLOSE_RETRY)
            return False
        return True

    def _close_by(self, time: float) -> None:
        self._close_at = time if self._close_at is None else min(self._close_at, time)

    def _punch(self, now: float, actions: list[Action]) -> None:
        due = self._punch_at is not None and now >= self._punch_at
        if not (self._wants_punch or due):
            return
        self._wants_punch = False
        self._punch_at = None
        client = next(
            (
                (number, connection)
                for number, connection in self._connections.items()
                if connection.is_client and (self._shaken or connection.may_improve)
            ),
            None,
        )
        if client is None or not self._own:
            return
        number, connection = client
        own, theirs = frozenset(self._own), frozenset(connection.theirs)
        if self._last_punch is not None:
            then, before, their_before = self._last_punch
            # Not as a difference: rounding must not make a moment due and too early at once.
            again_at = then + PUNCH_INTERVAL
            if own <= before and theirs <= their_before and now < again_at:
                self._punch_at = again_at
                return
        # New addresses of our own are nothing that a peer could have us try again and again.
        if not self._own_is_new:
            if self._punches.level(now) < 1:
                # A little later than to the moment, so that rounding leaves nothing to wait for.
                self._punch_at = now + self._punches.delay(now, 1) + PUNCH_RETRY
                return
            self._punches.take(now, 1)
        self._last_punch = now, own, theirs
        self._shaken = self._own_is_new = False
        actions.append(Punch(number))
