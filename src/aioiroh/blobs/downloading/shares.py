"""How downloads share providers and streams: who may ask whom for how much at once. No I/O."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

__all__ = ["Shares"]

EACH: Final = 8
"""Requests to one provider at once, by all downloads together."""

P = TypeVar("P", bound=Hashable)
OnShare = Callable[[P, int], None]


@dataclass(slots=True, eq=False)
class _Member(Generic[P]):
    """One download at one provider."""

    provider: P
    priority: int
    on_share: OnShare[P]
    share: int | None = None


class Shares(Generic[P]):
    """Divides `total` requests among the downloads that are connected to providers.

    At each provider the downloads with the highest priority go first, and share evenly; lower ones wait
    until those have left. If that makes more than `total` in all, everybody gets less, down to one,
    and then those who came last and have the lowest priority nothing.
    """

    def __init__(self, total: int) -> None:
        if total < 1:
            raise ValueError("there must be at least one request at a time")
        self._total = total
        # In the order in which they came.
        self._members: dict[_Member[P], None] = {}

    def __len__(self) -> int:
        return len(self._members)

    def join(self, provider: P, priority: int, on_share: OnShare[P]) -> Callable[[], None]:
        """A download has a connection to a provider; gives what to call when it has none any more.

        `on_share(provider, requests)` hears how many requests it may make at once, now and with every
        change.
        """
        member = _Member(provider, priority, on_share)
        self._members[member] = None
        self._divide()

        def leave() -> None:
            if member in self._members:
                del self._members[member]
                self._divide()

        return leave

    def _divide(self) -> None:
        shares = dict.fromkeys(self._members, 0)
        for members in self._by_provider().values():
            first = max(member.priority for member in members)
            winners = [member for member in members if member.priority == first]
            for member in winners:
                shares[member] = max(1, EACH // len(winners))
        wanted = sum(shares.values())
        if wanted > self._total:
            left = self._total
            for member in sorted(self._members, key=lambda member: -member.priority):
                if shares[member]:
                    shares[member] = min(left, max(1, shares[member] * self._total // wanted))
                    left -= shares[member]
        # Who loses is told first, so that the limit holds at every moment.
        changed = [member for member in self._members if member.share != shares[member]]
        for member in sorted(changed, key=lambda member: shares[member] > (member.share or 0)):
            if member in self._members and member.share != shares[member]:
                member.share = shares[member]
                member.on_share(member.provider, member.share)

    def _by_provider(self) -> dict[P, list[_Member[P]]]:
        table: defaultdict[P, list[_Member[P]]] = defaultdict(list)
        for member in self._members:
            table[member.provider].append(member)
        return table
