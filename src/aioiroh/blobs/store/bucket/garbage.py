"""What garbage collection spares in a bucket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...hash import HashAndFormat
from ..garbage import Marking

if TYPE_CHECKING:
    from ..interface import Store
    from ..tags import Tags, TempTags

__all__ = ["NamedMarking"]


class NamedMarking(Marking):
    """What is named at the moment of each look."""

    def __init__(self, tags: Tags, temp: TempTags) -> None:
        super().__init__()
        self._tags = tags
        self._temp = temp
        self._seen: set[HashAndFormat] = set()

    async def follow(self, store: Store) -> None:
        while True:
            named = (*(content for _, content in self._tags.list()), *self._temp)
            fresh = [content for content in named if content not in self._seen]
            for content in fresh:
                self._seen.add(content)
                self.spare(content)
            await super().follow(store)
            if not fresh:
                return
