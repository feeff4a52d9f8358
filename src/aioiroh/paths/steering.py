"""The shell around `Remote`: feeds it what the engine says of the connections, and carries out what it decides."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any, Final

from aioiroh import _native, events
from aioiroh.address import CustomAddr, RelayAddr
from aioiroh.paths.remote import (
    GOOD_RTT,
    Action,
    ClosePath,
    Detour,
    MarkPath,
    OfferAddress,
    OpenPath,
    Punch,
    Remote,
    WithdrawAddress,
)
from aioiroh.paths.selection import Address, PathSelector, PathView, Route

if TYPE_CHECKING:
    from aioiroh.metrics import SocketMetrics
    from aioiroh.paths.guessing import Guessing
    from aioiroh.quic.driver import Driver
    from aioiroh.quic.paths import PathStatus
    from aioiroh.quic.state import ConnectionState

__all__ = ["Steering"]

logger = logging.getLogger("aioiroh.paths")

SETTLE_TIME: Final = 0.25
"""Seconds that a connection has to end again before a better path is looked for, if it has a direct one."""
RELAY_IDLE_TIMEOUT: Final = 30.0
"""Seconds of silence for which a path through a relay is kept: a relay may have to be dialled again."""
KEEP_ALIVE: Final = 5.0
MAX_STEERED: Final = 64
"""Connections to one peer that are steered; further ones stay on the path that they began with."""
TICK: Final = 0.001
QUIET: Final = 0.5
"""Seconds for which nothing was heard on a path, after which the peer is believed that it is of no use."""
RTTS: Final = 6
"""Round-trip times that are remembered of a path: those of half a minute."""
APPLICATION_ABANDON: Final = 0x3E
"""Code for a path that is not needed (multipath extension)."""


class _Steered:
    """A connection, which of its paths have been found to work, and their latest round-trip times. `doubted`: those of
    which the peer has heard as little as we have.
    """

    __slots__ = ("doubted", "open", "remote", "rtts", "state")

    def __init__(self, state: ConnectionState, remote: Remote, rtt: float | None) -> None:
        self.state = state
        self.remote = remote
        self.open = {0}
        self.doubted: set[int] = set()
        self.rtts: dict[int, deque[float]] = {}
        if rtt is not None:
            self.shortest(0, rtt)

    def shortest(self, path: int, rtt: float) -> float:
        """The shortest of the last round-trip times. Data of our own that wait in a queue on the way make
        them longer, and must not make another path look better.
        """
        rtts = self.rtts.setdefault(path, deque(maxlen=RTTS))
        rtts.append(rtt)
        return min(rtts)


def _guarded(selector: PathSelector) -> PathSelector:
    """A policy whose mistakes end nothing: the engine's events are being dispatched when it is asked."""

    def select(paths: Sequence[PathView], selected: Route | None) -> Route | None:
        try:
            return selector(paths, selected)
        except Exception:
            logger.exception("path_selector failed; the path stays the same")
            return selected

    return select


class Steering:
    """Steers the connections of one endpoint.

    `stands_for(ip)`: what the address of a peer stands for; None: it is a real one.
    """

    def __init__(
        self,
        driver: Driver,
        clock: Callable[[], float],
        selector: PathSelector,
        stands_for: Callable[[str], RelayAddr | CustomAddr | None],
        metrics: SocketMetrics,
    ) -> None:
        self._driver = driver
        self._clock = clock
        self._selector = _guarded(selector)
        self._stands_for = stands_for
        self._metrics = metrics
        self._own: tuple[Address, ...] = ()
        self._remotes: dict[bytes, Remote] = {}
        self._connections: dict[int, _Steered] = {}
        self._fresh: list[tuple[ConnectionState, float | None]] = []
        self._relays: dict[bytes, tuple[Address, ...]] = {}
        self._timers: dict[bytes, asyncio.TimerHandle] = {}
        self._told: set[bytes] = set()
        self._guessing: Guessing | None = None
        self._closed = False

    def use_guessing(self, make: Callable[[Callable[[bytes], None]], Guessing]) -> None:
        """Guess where hole punching alone does not help; `make` gets what to call when that has news."""
        self._guessing = make(self._run)

    # --- what happens

    def own_addresses(self, addresses: Sequence[Address]) -> None:
        """Where this endpoint can be reached directly."""
        if tuple(addresses) != self._own:
            self._own = tuple(addresses)
            for peer in tuple(self._remotes):
                self._run(peer)

    def network_changed(self, live: Collection[str], *, major: bool) -> None:
        """The machine has these addresses now. The engine must not have heard of it: it forgets where paths came from."""
        if major:
            # Also those that had a good path from the start.
            for state in self._driver.established():
                self._take_on(state)
        for peer, remote in tuple(self._remotes.items()):
            for number in remote:
                remote.see(number, self._paths(self._connections[number]))
            remote.network_changed(self._clock(), live, major=major)
            self._run(peer)

    def mapping_changed(self) -> None:
        """It is better known now what NATs make of our addresses."""
        for peer in tuple(self._remotes):
            self._run(peer)

    def relays_of(self, state: ConnectionState, addresses: Sequence[Address]) -> None:
        """Where the peer of a connection is behind relays: paths in reserve."""
        if state.peer is None or state.lost is not None:
            return
        self._relays[state.peer] = tuple(addresses)
        if state.peer in self._remotes:
            self._run(state.peer)

    def connected(self, state: ConnectionState, *, through_relay: bool) -> None:
        """A handshake is complete."""
        if through_relay:
            self._keep_longer(state, 0)
            self._take_on(state)
            return
        # Most connections have a good path from the start, and many are short.
        if not self._fresh:
            self._driver.loop.call_later(SETTLE_TIME, self._look_at_fresh)
        self._fresh.append((state, state.native.rtt()))

    def path_opened(self, state: ConnectionState, path: int) -> None:
        """A path has been found to work."""
        self._keep_longer(state, path)
        self._take_on(state)
        steered = self._connections.get(state.native.id)
        if steered is not None and state.peer is not None:
            steered.open.add(path)
            self._run(state.peer)

    def path_closed(self, state: ConnectionState, path: int) -> None:
        """A path is gone."""
        steered = self._connections.get(state.native.id)
        if steered is not None and state.peer is not None:
            steered.open.discard(path)
            steered.doubted.discard(path)
            steered.rtts.pop(path, None)
            self._run(state.peer)

    def path_silent(self, state: ConnectionState) -> None:
        """A path does not answer, or does so again."""
        if state.native.id in self._connections and state.peer is not None:
            self._run(state.peer)

    def path_doubted(self, state: ConnectionState, path: int) -> None:
        """The peer wants no data on a path from now on. If we have heard nothing on it for a while either, it is dead.

        To wait until that is certain would cost the answers to what the peer sends on another path meanwhile.
        """
        steered = self._connections.get(state.native.id)
        if steered is None or state.peer is None:
            return
        try:
            state.native.ping_path(path)
        except (ValueError, _native.NativeError):
            return  # it is gone
        if any(view.id == path and view.quiet >= QUIET for view in self._paths(steered)):
            steered.doubted.add(path)
        self._run(state.peer)

    def candidate(self, state: ConnectionState, address: Address, *, added: bool) -> None:
        """The peer has told of an address, or taken it back."""
        self._take_on(state)
        steered = self._connections.get(state.native.id)
        if steered is not None and state.peer is not None:
            steered.remote.offers(state.native.id, address, added=added)
            # Several come in one datagram: one attempt for all of them.
            if not self._told:
                self._driver.loop.call_soon(self._look_at_told)
            self._told.add(state.peer)

    def lost(self, state: ConnectionState) -> None:
        """A connection is over."""
        if state.peer is None:
            return
        steered = self._connections.pop(state.native.id, None)
        if steered is not None:
            steered.remote.removed(state.native.id)
            if not steered.remote:
                del self._remotes[state.peer]
                self._disarm(state.peer)
                if self._guessing is not None:
                    self._guessing.forget(state.peer)
        if state.peer not in self._remotes:
            self._relays.pop(state.peer, None)

    def close(self) -> None:
        """The endpoint closes: nothing is steered any more."""
        self._closed = True
        self._fresh.clear()
        self._connections.clear()
        for peer in tuple(self._remotes):
            self._disarm(peer)
            if self._guessing is not None:
                self._guessing.forget(peer)
        self._remotes.clear()

    # --- what is done about it

    def _look_at_fresh(self) -> None:
        fresh, self._fresh = self._fresh, []
        for state, rtt in fresh:
            # A short direct path is as good as it gets, unless a relay is wanted in reserve.
            if rtt is None or rtt > GOOD_RTT or state.peer in self._relays:
                self._take_on(state, rtt)

    def _look_at_told(self) -> None:
        told, self._told = self._told, set()
        for peer in [peer for peer in self._remotes if peer in told]:
            self._run(peer)

    def _take_on(self, state: ConnectionState, rtt: float | None = None) -> None:
        number = state.native.id
        if self._closed or state.lost is not None or state.peer is None:
            return
        if number in self._connections:
            return
        remote = self._remotes.get(state.peer)
        if remote is None:
            remote = self._remotes[state.peer] = Remote(self._selector, self._clock())
        elif len(remote) >= MAX_STEERED:
            return
        remote.added(number, is_client=state.native.side == "client")
        self._connections[number] = _Steered(state, remote, rtt)
        self._run(state.peer)

    def _run(self, peer: bytes) -> None:
        remote = self._remotes[peer]
        for number in remote:
            remote.see(number, self._paths(self._connections[number]))
        more = () if self._guessing is None else self._guessing.see(peer, remote.sight)
        remote.own((*self._own, *more), self._relays.get(peer, ()))
        now, before = self._clock(), remote.selected
        actions = remote.decide(now)
        if remote.selected != before and events.path_selected.enabled:
            events.path_selected(remote_id=peer.hex(), remote_addr=remote.selected, previous=before)
        for action in actions:
            state = self._connections[action.connection].state
            try:
                self._carry_out(action, state)
            except (ValueError, _native.NativeError) as problem:
                logger.debug("%s: %s", action, problem)
                if isinstance(action, Punch):
                    remote.could_not_punch(now)
                elif isinstance(action, OpenPath):
                    remote.could_not_open(now)
        self._driver.touched()
        self._disarm(peer)
        # A loop may call a little early; without this it would go round and round until it is time.
        delay = max(remote.deadline - now, TICK)
        self._timers[peer] = self._driver.loop.call_later(delay, self._run, peer)

    def _disarm(self, peer: bytes) -> None:
        timer = self._timers.pop(peer, None)
        if timer is not None:
            timer.cancel()

    def _paths(self, steered: _Steered) -> list[PathView]:
        try:
            found = steered.state.native.paths()
        except _native.NativeError:
            return []
        return [self._view(steered, path) for path in found]

    def _view(self, steered: _Steered, path: dict[str, Any]) -> PathView:
        id, unanswered = path["id"], path["unanswered"]
        stands_for = self._stands_for(path["remote"][0])
        if id in steered.doubted:
            if path["quiet"] < QUIET:
                steered.doubted.remove(id)
            else:
                unanswered = max(unanswered, path["patience"])
        return PathView(
            id=id,
            remote=path["remote"],
            local=path["local"],
            relay=stands_for.url if isinstance(stands_for, RelayAddr) else None,
            is_custom=isinstance(stands_for, CustomAddr),
            rtt=steered.shortest(id, path["rtt"]),
            is_open=id in steered.open,
            is_available=path["status"] == "available",
            unanswered=unanswered,
            patience=path["patience"],
            outstanding=path["outstanding"],
            quiet=path["quiet"],
        )

    def _carry_out(self, action: Action, state: ConnectionState) -> None:
        native = state.native
        match action:
            case OfferAddress(_, address):
                native.nat_add(address)
            case WithdrawAddress(_, address):
                native.nat_remove(address)
            case OpenPath(_, (remote, local)):
                native.open_path(remote, local, "backup")
            case ClosePath(_, path):
                native.close_path(path, APPLICATION_ABANDON)
            case Detour(_, path, by):
                native.detour(path, by)
            case MarkPath(_, path, available):
                status: PathStatus = "available" if available else "backup"
                native.set_path_status(path, status)
                if state.paths is not None:
                    state.paths.on_local_status(path, status)
                if events.path_set_status.enabled:
                    events.path_set_status(
                        conn_id=native.id, remote_id=_hex(state), path_id=path, status=status
                    )
            case Punch():
                self._metrics.holepunch_attempts += 1
                targets = native.nat_round()
                if events.qnt_init.enabled:
                    events.qnt_init(
                        conn_id=native.id,
                        remote_id=_hex(state),
                        local_addrs=self._own,
                        remote_addrs=targets,
                    )

    def _keep_longer(self, state: ConnectionState, path: int) -> None:
        """A relay may have to be dialled again before what goes through it is answered."""
        if isinstance(state.open_paths.get(path), RelayAddr):
            with contextlib.suppress(ValueError, _native.NativeError):
                state.native.set_path_timeouts(path, RELAY_IDLE_TIMEOUT, KEEP_ALIVE)


def _hex(state: ConnectionState) -> str:
    return "" if state.peer is None else state.peer.hex()
