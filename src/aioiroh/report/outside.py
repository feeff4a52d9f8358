"""Under which addresses peers may reach us, going by what relays see (endpoint reference, section 4.6)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from aioiroh.address import IpAddr, RelayUrl
from aioiroh.report.report import NetReport, ObservedAddress

__all__ = ["Outside"]

MAX_AGE: Final = 400.0
"""Seconds for which the word of a relay counts that is not asked again: until the next full report, and a little."""
MAX_ADDRESSES: Final = 3
"""Addresses of one IP version that are offered, however many relays see us somewhere else."""


class Outside:
    """Remembers where relays have seen us. No clock of its own: times are seconds of any monotonic one.

    A relay may lie. So what one says takes nothing from what others have said: each speaks for itself, the home relay
    first. Behind a NAT that maps by destination all of them are right, and peers try a few addresses more.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[RelayUrl, int], tuple[float, IpAddr]] = {}

    def forget(self) -> None:
        """The network is another one."""
        self._seen.clear()

    def heard(self, now: float, report: NetReport, relays: Collection[RelayUrl]) -> None:
        """What a new report says; `relays`: those that are still ours."""
        for one in report.observed:
            self._seen[self._key(one)] = now, one.address
        self._seen = {
            key: (then, address)
            for key, (then, address) in self._seen.items()
            if key[0] in relays and now - then <= MAX_AGE
        }

    def addresses(
        self, home: RelayUrl | None, fixed_port: int | None, *, varies: bool
    ) -> tuple[IpAddr, ...]:
        """The addresses to offer to peers, IPv4 first.

        `fixed_port`: the IPv4 port that the application has asked for. Where a NAT maps by destination (`varies`),
        maybe somebody has told it to forward that port.
        """
        # What was heard last is nearest to the truth of now.
        order = sorted(self._seen.items(), key=lambda item: (item[0][0] != home, -item[1][0]))
        found: list[IpAddr] = []
        for version in (4, 6):
            seen = dict.fromkeys(
                address
                for _, (_, address) in order
                # A relay on this machine sees what nobody else could use.
                if address.ip.version == version and not address.ip.is_loopback
            )
            chosen = tuple(seen)[:MAX_ADDRESSES]
            found += chosen
            if version == 4 and fixed_port and varies:
                found += [IpAddr(address.ip, fixed_port) for address in chosen]
        return tuple(dict.fromkeys(found))

    @staticmethod
    def _key(one: ObservedAddress) -> tuple[RelayUrl, int]:
        return one.relay, one.address.ip.version
