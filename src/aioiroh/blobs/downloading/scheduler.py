"""The core of a download: which provider is asked for what, and what follows from the answers.

No I/O, no clock, no chance of its own: every event comes with the time, and gives the actions that
the shell is to carry out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Final, Generic, TypeVar

from ..ranges import CHUNK_SIZE, ChunkRanges
from .actions import Action, Ask, Complete, Connect, End, Fail, PeerReport, Release, Stop
from .backlog import Backlog, Part
from .fetch import Fetch
from .peers import FIRST_GROUP, LACKS, Peer, PeerState, Retries
from .stealing import Taken, steal

__all__ = ["Scheduler"]

MOST_PROVIDERS: Final = 256
"""Providers that are remembered; further ones are not taken."""
MOST_CONNECTED: Final = 16
"""Providers that are asked at once."""
LARGE: Final = 4 << 20
"""Bytes above which a blob is divided, also if it was asked for whole."""
STEAL_INTERVAL: Final = 0.25
"""Seconds until a provider without work looks again for what others are slow with."""

P = TypeVar("P", bound=Hashable)


class Scheduler(Generic[P]):
    """See the module. `wake` says when `tick` is due at the latest."""

    def __init__(self, retries: Retries, random: Callable[[], float], now: float) -> None:
        self._retries = retries
        self._random = random
        self._peers: dict[P, Peer] = {}
        self._fetches: dict[int, Fetch[P]] = {}
        self._backlog = Backlog()
        self._numbers = 0
        self._searching = True
        self._progress_at = now
        self._decided_at = now
        self._whole_bytes = 0
        self._whole_blobs = 0
        # Complete was said, and nothing has been wanted since; or it is over.
        self._resting = True
        self._over = False

    # --- looking ----------------------------------------------------------------------------------

    def parts(self, number: int) -> Sequence[Part]:
        """What a request is to bring, as far as it has not been given to others."""
        return self._fetches[number].parts

    def knows(self, provider: P) -> bool:
        """Whether a provider was taken: the table of them is bounded."""
        return provider in self._peers

    def lacks_size(self, index: int) -> bool:
        """Whether the proved size of a blob is waited for: tell with `proved`."""
        return self._backlog.is_divided(index) and self._backlog.size(index) is None

    def reports(self, now: float) -> list[PeerReport[P]]:
        """What has become of each provider."""
        return [
            PeerReport(provider, peer.state, peer.rate.get(now), peer.received, peer.reason)
            for provider, peer in self._peers.items()
        ]

    @property
    def wake(self) -> float:
        """The time at which `tick` is due, if nothing else happens before."""
        if self._over or self._resting:
            return math.inf
        due = [self._progress_at + self._retries.patience]
        for peer in self._peers.values():
            if peer.until > self._decided_at and peer.state in (PeerState.WAITING, PeerState.READY):
                due.append(peer.until)
            if peer.state is not PeerState.READY:
                continue
            if peer.fetches:
                due.append(self._last(peer) + self._retries.stall_time)
            elif self._fetches:
                due.append(self._decided_at + STEAL_INTERVAL)
        return min(due)

    # --- what is wanted ---------------------------------------------------------------------------

    def want_whole(self, now: float, runs: Iterable[tuple[int, int]]) -> None:
        """Blobs of which nothing is here and whose sizes are not known; tell `tick` at the end."""
        self._backlog.add_whole(runs)
        self._resting = False
        self._progress_at = now

    def want(self, now: float, index: int, missing: ChunkRanges, size: int | None) -> None:
        """Chunks of one blob; `size` in bytes if it is proved. Tell `tick` at the end."""
        self._backlog.divide(index, missing, size)
        self._resting = False
        self._progress_at = now

    def proved(self, index: int, size: int) -> None:
        """The size of a blob is proved, and with it its last chunk is here."""
        if not self.lacks_size(index):
            return
        self._backlog.prove(index, size)
        for fetch in self._fetches.values():
            fetch.proved(index, size)

    # --- providers --------------------------------------------------------------------------------

    def add(self, now: float, provider: P) -> list[Action[P]]:
        """A provider was named or found, maybe not for the first time."""
        peer = self._peers.get(provider)
        if peer is not None:
            peer.again()
        elif len(self._peers) < MOST_PROVIDERS:
            self._peers[provider] = Peer(self._retries, self._random)
            self._progress_at = now
        return self._decide(now)

    def searched(self, now: float) -> list[Action[P]]:
        """No further providers will be found, only named."""
        self._searching = False
        return self._decide(now)

    def connected(self, now: float, provider: P) -> list[Action[P]]:
        """There is a connection."""
        peer = self._peers[provider]
        if peer.state is not PeerState.CONNECTING:
            return [Release(provider)]
        peer.state = PeerState.READY
        return self._decide(now)

    def lost(self, now: float, provider: P, reason: str) -> list[Action[P]]:
        """There is no connection, or no longer."""
        actions: list[Action[P]] = []
        if self._peers[provider].state in _ENGAGED:
            self._withdraw(now, provider, reason, actions)
        return actions + self._decide(now)

    def allotted(self, now: float, provider: P, requests: int) -> list[Action[P]]:
        """So many requests may be made to a provider at once."""
        self._peers[provider].allotted = requests
        return self._decide(now)

    # --- requests ---------------------------------------------------------------------------------

    def arrived(
        self, now: float, number: int, at: int, size: int | None, verified: int, is_done: bool
    ) -> list[Action[P]]:
        """Of part `at` of a request `verified` payload bytes have come; the blob has `size` bytes,
        as the provider says.
        """
        fetch = self._fetches.get(number)
        if fetch is None:
            return []
        peer = self._peers[fetch.provider]
        begun = fetch.is_begun
        more = fetch.arrived(now, at, size, verified)
        if more:
            self._progress_at = now
            peer.delivered(now, more)
            if not begun:
                peer.answered(now - fetch.began)
        if is_done:
            if at < len(fetch.parts) and fetch.parts[at].is_whole:
                self._whole_bytes += verified
                self._whole_blobs += 1
            fetch.arrived(now, at + 1, None, 0)
        if fetch.is_over:
            return [Stop(number)]
        if size is not None and not is_done and self._is_too_large(now, fetch, peer):
            return self._divide(now, fetch, peer)
        return []

    def alive(self, now: float, number: int) -> None:
        """Bytes of a request come that are not verified yet, or are held back by this side."""
        fetch = self._fetches.get(number)
        if fetch is not None:
            fetch.last = self._progress_at = now

    def ended(
        self,
        now: float,
        number: int,
        end: End,
        reason: str,
        left: Iterable[Part],
        has: ChunkRanges | None = None,
    ) -> list[Action[P]]:
        """A request is over. `left`: of its parts, what is not here. `has`: what the provider says that it
        has of the blob, if it lacks a part of one and has told.
        """
        fetch = self._fetches.pop(number)
        provider = fetch.provider
        peer = self._peers[provider]
        before = peer.state
        peer.fetches.discard(number)
        if not peer.fetches:
            peer.rate.pause(now)
        actions: list[Action[P]] = []
        missing = _common(left, fetch.parts)
        twin = None if fetch.twin is None else self._fetches.get(fetch.twin)
        if twin is not None:
            twin.twin = None
        if end is End.DONE and missing:
            end = End.LACKS
        match end:
            case End.DONE:
                peer.complied(len(fetch.parts))
                if twin is not None:
                    self._peers[twin.provider].beaten(now)
                    actions.append(Stop(twin.number))
            case End.STOPPED:
                pass
            case End.LACKS:
                # What it does not have may be here by now; it is not asked for that again either.
                self._lacked(now, peer, missing or fetch.remaining[:1], has)
            case End.REFUSED if len(fetch.parts) > 1:
                peer.refuses_groups()
            case End.REFUSED | End.LIED:
                peer.out(reason, banned=True)
            case End.BUSY:
                peer.overloaded()
                peer.failed(now, reason)
            case End.BROKEN:
                peer.failed(now, reason)
            case End.LOST if before is PeerState.READY:
                peer.state = PeerState.WAITING
                peer.failed(now, reason)
            case End.LOST:
                pass
        if before in _ENGAGED and peer.state not in _ENGAGED:
            self._leave(provider, actions)
        if missing and twin is None:
            self._backlog.put_back(missing)
        return actions + self._decide(now)

    def tick(self, now: float) -> list[Action[P]]:
        """Time has passed, or more is wanted."""
        return self._decide(now)

    # --- what follows -----------------------------------------------------------------------------

    def _lacked(
        self, now: float, peer: Peer, parts: Sequence[Part], has: ChunkRanges | None
    ) -> None:
        if len(parts) > 1:
            # Which one it lacks is not certain: a reset takes away what was on its way.
            peer.group_failed(len(parts))
            return
        for part in parts:
            if part.is_whole and (has or peer.may_have_parts):
                self._backlog.divide(part.index, ChunkRanges.empty(), None)
            if has is not None:
                peer.tells = True
                # Nobody can send a part of a chunk group that is not all there.
                peer.lacked(now, Part(part.index, (~has).whole_groups()))
            if has is None or part.ranges <= has:
                peer.lacked(now, part)

    def _withdraw(self, now: float, provider: P, reason: str, actions: list[Action[P]]) -> None:
        """Do without a provider for a while, or for good."""
        peer = self._peers[provider]
        peer.state = PeerState.WAITING
        peer.failed(now, reason)
        self._leave(provider, actions)

    def _leave(self, provider: P, actions: list[Action[P]]) -> None:
        actions += map(Stop, sorted(self._peers[provider].fetches))
        actions.append(Release(provider))

    def _is_too_large(self, now: float, fetch: Fetch[P], peer: Peer) -> bool:
        """Whether a blob that was asked for whole should be divided among providers."""
        if fetch.size is None or fetch.at >= len(fetch.parts) or fetch.twin is not None:
            return False
        part = fetch.parts[fetch.at]
        return part.is_whole and fetch.size > max(LARGE, 2 * peer.piece(now))

    def _divide(self, now: float, fetch: Fetch[P], peer: Peer) -> list[Action[P]]:
        index = fetch.parts[fetch.at].index
        self._backlog.put_back(fetch.cut_blobs(1))
        rest = fetch.cut_ranges(peer.piece(now) // CHUNK_SIZE)
        self._backlog.divide(index, ChunkRanges.empty(), None)
        self._backlog.put_back(rest)
        return self._decide(now)

    def _last(self, peer: Peer) -> float:
        return max(self._fetches[number].last for number in peer.fetches)

    def _decide(self, now: float) -> list[Action[P]]:
        actions: list[Action[P]] = []
        if self._over or self._resting:
            return actions
        self._decided_at = now
        self._drop_silent(now, actions)
        self._hand_out(now, actions)
        self._employ_idle(now, actions)
        self._connect(now, actions)
        if not self._backlog and not self._fetches:
            self._resting = True
            actions.append(Complete())
        else:
            self._give_up(now, actions)
        return actions

    def _drop_silent(self, now: float, actions: list[Action[P]]) -> None:
        for provider, peer in self._peers.items():
            if peer.state is not PeerState.READY or not peer.fetches:
                continue
            if now >= self._last(peer) + self._retries.stall_time:
                self._withdraw(now, provider, "it sends nothing", actions)

    def _hand_out(self, now: float, actions: list[Action[P]]) -> None:
        """One request for each that has room, and again, until there is nothing more to do."""
        roomy = [provider for provider, peer in self._peers.items() if peer.room(now) > 0]
        while roomy and self._backlog:
            still = []
            for provider in roomy:
                peer = self._peers[provider]
                parts = self._backlog.take(peer.piece(now), self._group(now, peer), peer.lacks)
                if parts:
                    self._ask(now, provider, parts, actions)
                    if peer.room(now) > 0:
                        still.append(provider)
            roomy = still

    def _group(self, now: float, peer: Peer) -> int:
        if not self._whole_blobs:
            return min(peer.group, FIRST_GROUP)
        usual = self._whole_bytes / self._whole_blobs
        return max(1, min(peer.group, int(peer.piece(now) / max(usual, 1))))

    def _ask(
        self, now: float, provider: P, parts: Sequence[Part], actions: list[Action[P]]
    ) -> Fetch[P]:
        self._numbers += 1
        fetch = self._fetches[self._numbers] = Fetch(self._numbers, provider, parts, now)
        peer = self._peers[provider]
        peer.fetches.add(self._numbers)
        peer.rate.resume(now)
        actions.append(Ask(self._numbers, provider, tuple(parts)))
        return fetch

    def _employ_idle(self, now: float, actions: list[Action[P]]) -> None:
        """Who has nothing to do helps others, or is let go if it lacks what is missing."""
        for provider, peer in self._peers.items():
            if peer.fetches or peer.room(now) <= 0:
                continue
            usual = self._whole_bytes / self._whole_blobs if self._whole_blobs else LARGE / 2
            taken = steal(now, provider, peer, self._fetches.values(), self._peers, usual)
            if taken is not None:
                self._take_over(now, provider, taken, actions)
            elif peer.lacks_anything and self._backlog.has_for(_lacks_nothing):
                if self._progress_at > peer.failed_at:
                    peer.forgive()  # others have what it lacks
                self._withdraw(now, provider, LACKS, actions)

    def _take_over(
        self, now: float, provider: P, taken: Taken[P], actions: list[Action[P]]
    ) -> None:
        fetch = self._ask(now, provider, taken.parts, actions)
        if taken.is_copy:
            fetch.twin, taken.victim.twin = taken.victim.number, fetch.number
        elif taken.victim.is_over:
            self._peers[taken.victim.provider].beaten(now)
            actions.append(Stop(taken.victim.number))

    def _connect(self, now: float, actions: list[Action[P]]) -> None:
        busy = sum(peer.state in _ENGAGED for peer in self._peers.values())
        for provider, peer in self._peers.items():
            if busy >= MOST_CONNECTED:
                return
            if peer.state is not PeerState.WAITING or now < peer.until or peer.fetches:
                continue
            if not self._backlog.has_for(peer.lacks):
                if not self._backlog.has_for(_lacks_nothing) and not self._is_help_wanted(now):
                    continue
                peer.ask_again()
            peer.state = PeerState.CONNECTING
            busy += 1
            actions.append(Connect(provider))

    def _is_help_wanted(self, now: float) -> bool:
        """Whether those who are at work have more than a moment of it left."""
        return any(fetch.bytes_left(LARGE) > LARGE for fetch in self._fetches.values())

    def _give_up(self, now: float, actions: list[Action[P]]) -> None:
        if any(
            peer.state is PeerState.READY and peer.allotted == 0 for peer in self._peers.values()
        ):
            # It is not its turn: other downloads go first.
            self._progress_at = now
        if not self._searching and all(
            peer.state is PeerState.OUT for peer in self._peers.values()
        ):
            reason = "no provider is left" if self._peers else "no provider is known"
        elif now >= self._progress_at + self._retries.patience:
            reason = f"nothing came for {self._retries.patience:g} s"
        else:
            return
        self._over = True
        actions += map(Stop, self._fetches)
        actions.append(Fail(reason))


_ENGAGED: Final = (PeerState.CONNECTING, PeerState.READY)


def _lacks_nothing(_index: int) -> ChunkRanges:
    return ChunkRanges.empty()


def _common(left: Iterable[Part], parts: Iterable[Part]) -> list[Part]:
    """Of what is left, what is among the parts: the rest was given to others meanwhile."""
    mine = {part.index: part.ranges for part in parts}
    found = []
    for part in left:
        ranges = part.ranges & mine.get(part.index, ChunkRanges.empty())
        if ranges:
            found.append(Part(part.index, ranges))
    return found
