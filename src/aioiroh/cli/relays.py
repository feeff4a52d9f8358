"""Which relays a command uses, and how they are judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypedDict
from urllib.parse import urlsplit

__all__ = ["NONE_NAMED", "RelayChoice", "shown"]


class Binding(TypedDict):
    """Arguments of `Endpoint.bind`."""

    relays: Sequence[str] | None
    relay_ca: Path | None


def shown(url: str) -> str:
    """A relay's URL for people, who show it to others: without the query, where a token may be."""
    return urlsplit(url)._replace(query="").geturl()


@dataclass(frozen=True, slots=True)
class RelayChoice:
    """URLs of relays, and a file with the CA certificates by which they are judged (None: Mozilla's)."""

    urls: tuple[str, ...] = ()
    ca: Path | None = None

    def or_else(self, urls: Sequence[str]) -> RelayChoice:
        """Those in place of none."""
        return self if self.urls else replace(self, urls=tuple(urls))

    @property
    def binding(self) -> Binding:
        """For `Endpoint.bind`."""
        return Binding(relays=self.urls or None, relay_ca=self.ca)

    def __bool__(self) -> bool:
        return bool(self.urls)


NONE_NAMED: Final = RelayChoice()
"""Nobody has said anything."""
