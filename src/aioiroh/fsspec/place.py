"""What a path of the file system says: which content, who provides it, and where in it.

    TICKET              a blob, or the root of a collection
    TICKET/PATH         a file or folder in a collection
    HASH@PEER           a blob by its hash, from an endpoint id or endpoint ticket
    sHASH@PEER/PATH     a collection by its hash, likewise

as in the text of a ticket and of a hash with format.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from aioiroh.address import EndpointAddr
from aioiroh.blobs import BlobFormat, BlobTicket, HashAndFormat

__all__ = ["Place"]


@dataclass(frozen=True, slots=True)
class Place:
    """`path` is "" for the blob itself or the root of the collection."""

    content: HashAndFormat
    provider: EndpointAddr
    root: str
    """The text before `path`."""
    path: str

    @property
    def is_collection(self) -> bool:
        return self.content.format is BlobFormat.HASH_SEQ

    @classmethod
    def parse(cls, text: str) -> Self:
        """From a path without protocol. DecodeError (a ValueError): it names no content."""
        root, _, path = text.partition("/")
        name, at, peer = root.partition("@")
        if at:
            return cls(HashAndFormat.parse(name), EndpointAddr.coerce(peer), root, path)
        ticket = BlobTicket.parse(root)
        return cls(ticket.content, ticket.addr, root, path)
