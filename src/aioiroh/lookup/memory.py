"""Lookup in a table that the application fills by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

from aioiroh.address import Dialable, EndpointAddr
from aioiroh.keys import EndpointId
from aioiroh.lookup.service import EndpointData, LookupItem, LookupService

__all__ = ["MemoryLookup"]


class MemoryLookup(LookupService):
    """Answers from what was put in. One instance may serve several endpoints."""

    def __init__(
        self,
        *,
        provenance: str = "memory_lookup",
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`clock` gives seconds since 1970; without one, answers do not say when they were put in."""
        self.provenance = provenance
        self._clock = clock
        self._items: dict[EndpointId, LookupItem] = {}

    def set(self, target: Dialable, user_data: str | None = None) -> EndpointData | None:
        """Put in what is known of an endpoint, replacing what was known; gives that back."""
        addr = EndpointAddr.coerce(target)
        return self._put(addr.id, EndpointData(addr.addrs, user_data))

    def add(self, target: Dialable, user_data: str | None = None) -> None:
        """Add addresses to what is known of an endpoint; the user data are replaced."""
        addr = EndpointAddr.coerce(target)
        known = self.get(addr.id) or EndpointData()
        self._put(addr.id, EndpointData((*known.addrs, *addr.addrs), user_data))

    def get(self, id: EndpointId) -> EndpointData | None:
        """What is known of `id`."""
        item = self._items.get(id)
        return item.data if item else None

    def remove(self, id: EndpointId) -> EndpointData | None:
        """Forget `id`; gives back what was known."""
        item = self._items.pop(id, None)
        return item.data if item else None

    def resolve(self, id: EndpointId) -> AsyncIterator[LookupItem] | None:
        """One answer, or None for an unknown id."""
        item = self._items.get(id)
        return _once(replace(item, provenance=self.provenance)) if item else None

    def _put(self, id: EndpointId, data: EndpointData) -> EndpointData | None:
        previous = self.get(id)
        now = int(self._clock() * 1e6) if self._clock else None
        self._items[id] = LookupItem(id, data, self.provenance, now)
        return previous


async def _once(item: LookupItem) -> AsyncIterator[LookupItem]:
    yield item
