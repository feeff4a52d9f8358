"""Where providers come from, besides those that the caller names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from aioiroh.address import Dialable

    from ..hash import HashAndFormat

__all__ = ["Discovery"]


class Discovery(Protocol):
    """Finds providers of content: a tracker, a table, a search in the local network."""

    def find(self, content: HashAndFormat) -> AsyncIterator[Dialable]:
        """Ids, addresses or tickets of endpoints that may have the content, as they are found.

        May go on without end: the iteration is cancelled when the download is over. What it raises is told
        in the error of a download that fails, and does not end one.
        """
        ...
