"""Blob tickets: where content is and what it is, as text that starts with `blob`."""

from __future__ import annotations

from typing import Self

from aioiroh.address import (
    MAX_ADDRS,
    EndpointAddr,
    IpAddr,
    RelayAddr,
    TransportAddr,
    read_endpoint_id,
    read_relay_url,
    read_socket_addr,
    write_socket_addr,
)
from aioiroh.codec.postcard import Reader, Writer
from aioiroh.ticket import Ticket

from .hash import HASH_SIZE, BlobFormat, Hash, HashAndFormat

__all__ = ["BlobTicket"]


class BlobTicket(Ticket):
    """A provider's address, a hash, and whether it is a plain blob or a hash sequence.

    The text has room for one relay and for IP addresses; what else `addr` knows is not written.
    """

    __slots__ = ("_addr", "_content")
    KIND = "blob"

    def __init__(self, addr: EndpointAddr, hash: Hash, format: BlobFormat = BlobFormat.RAW) -> None:
        self._addr = addr
        self._content = HashAndFormat(hash, BlobFormat(format))

    @property
    def addr(self) -> EndpointAddr:
        """The endpoint that provides the content."""
        return self._addr

    @property
    def content(self) -> HashAndFormat:
        """What to ask for."""
        return self._content

    @property
    def hash(self) -> Hash:
        return self._content.hash

    @property
    def format(self) -> BlobFormat:
        return self._content.format

    def write(self, writer: Writer) -> None:
        """Append the ticket's bytes: variant 0, address in the old layout, format, hash."""
        writer.variant(0)
        writer.raw(bytes(self._addr.id))
        relays = self._addr.relay_urls
        writer.option(bool(relays))
        if relays:
            writer.string(relays[0])
        addrs = self._addr.ip_addrs
        writer.count(len(addrs))
        for addr in addrs:
            write_socket_addr(writer, addr)
        writer.variant(self.format)
        writer.raw(bytes(self.hash))

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Read the ticket's bytes. Raises DecodeError or a subclass."""
        reader.variant(1)
        id = read_endpoint_id(reader)
        addrs: list[TransportAddr] = []
        if reader.option():
            addrs.append(RelayAddr(read_relay_url(reader)))
        count = reader.count(MAX_ADDRS, size=6)
        ips: list[IpAddr] = [read_socket_addr(reader) for _ in range(count)]
        format = BlobFormat(reader.variant(len(BlobFormat)))
        return cls(EndpointAddr(id, (*addrs, *ips)), Hash(reader.raw(HASH_SIZE)), format)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BlobTicket):
            return NotImplemented
        return self._addr == other._addr and self._content == other._content

    def __hash__(self) -> int:
        return hash((self._addr, self._content))

    def __repr__(self) -> str:
        return f"BlobTicket({self._content}, {self._addr!r})"
