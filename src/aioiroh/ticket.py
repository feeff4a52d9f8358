"""Tickets: what a person copies to another machine so that it can dial.

The text is the kind (lowercase letters, no separator) followed by lowercase base32 of the bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Self

from aioiroh.address import EndpointAddr
from aioiroh.codec import base32
from aioiroh.codec.postcard import Reader, Writer
from aioiroh.errors import DecodeError, TicketParsingError
from aioiroh.keys import EndpointId

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["EndpointTicket", "Ticket", "parse_dialable"]

_KINDS: dict[str, type[Ticket]] = {}
_BASE32_KEY_SIZE = 52


class Ticket(ABC):
    """The scheme all tickets share. A subclass names its `KIND` and reads and writes its bytes."""

    KIND: ClassVar[str]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _KINDS[cls.KIND] = cls

    @property
    @abstractmethod
    def addr(self) -> EndpointAddr:
        """The endpoint to dial."""

    @abstractmethod
    def write(self, writer: Writer) -> None:
        """Append the ticket's bytes."""

    @classmethod
    @abstractmethod
    def read(cls, reader: Reader) -> Self:
        """Read what `write` wrote. Raises DecodeError or a subclass."""

    def __bytes__(self) -> bytes:
        writer = Writer()
        self.write(writer)
        return writer.finish()

    def __str__(self) -> str:
        return self.KIND + base32.encode(bytes(self))

    @classmethod
    def from_bytes(cls, data: Buffer) -> Self:
        """From the bytes inside the text; bytes after the value are ignored.

        Raises TicketParsingError.
        """
        try:
            return cls.read(Reader(data))
        except DecodeError as error:
            raise TicketParsingError(f"the {cls.KIND} ticket is damaged: {error}") from error

    @classmethod
    def parse(cls, text: str) -> Self:
        """From the text: the kind in lowercase, the rest in any case. Raises TicketParsingError."""
        if not text.startswith(cls.KIND):
            kind = next((kind for kind in _KINDS if text.startswith(kind)), None)
            found = f"this is a ticket of kind {kind!r}" if kind else "this is none"
            raise TicketParsingError(f"expected a ticket that starts with {cls.KIND!r}; {found}")
        try:
            data = base32.decode(text[len(cls.KIND) :])
        except DecodeError as error:
            raise TicketParsingError(
                f"the {cls.KIND} ticket is damaged: {error}; copy it again, whole"
            ) from error
        return cls.from_bytes(data)


class EndpointTicket(Ticket):
    """How to dial an endpoint: its address as text, `endpoint…`."""

    __slots__ = ("_addr",)
    KIND = "endpoint"

    def __init__(self, addr: EndpointAddr) -> None:
        self._addr = addr

    @property
    def addr(self) -> EndpointAddr:
        """The endpoint to dial."""
        return self._addr

    def write(self, writer: Writer) -> None:
        """Append the ticket's bytes: variant 0, then the address."""
        writer.variant(0)
        self._addr.write(writer)

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Read the ticket's bytes. Raises DecodeError or a subclass."""
        reader.variant(1)
        return cls(EndpointAddr.read(reader))

    def __eq__(self, other: object) -> bool:
        return self._addr == other._addr if isinstance(other, EndpointTicket) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._addr)

    def __repr__(self) -> str:
        return f"EndpointTicket({self._addr!r})"


def parse_dialable(text: str) -> EndpointAddr:
    """The address meant by the text of an endpoint id or of any kind of ticket.

    Raises KeyParsingError or TicketParsingError.
    """
    # A base32 id may happen to start like a ticket, but no ticket is as short.
    if len(text) != _BASE32_KEY_SIZE:
        for kind, ticket in _KINDS.items():
            if text.startswith(kind):
                return ticket.parse(text).addr
    return EndpointAddr(EndpointId.parse(text))
