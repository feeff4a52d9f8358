"""Where endpoints are: relay URLs, transport addresses, and endpoint addresses made of both.

Binary forms are iroh's postcard layouts; the order of addresses is upstream's (relay, IP, custom).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias

from aioiroh import _native
from aioiroh.codec.postcard import Reader, Writer
from aioiroh.errors import AddressParsingError
from aioiroh.keys import EndpointId

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "MAX_ADDRS",
    "CustomAddr",
    "Dialable",
    "EndpointAddr",
    "IpAddr",
    "RelayAddr",
    "RelayConfig",
    "RelayMap",
    "RelayUrl",
    "SupportsAddr",
    "TransportAddr",
    "read_endpoint_id",
    "read_relay_url",
    "read_socket_addr",
    "write_socket_addr",
]

# What a decoder takes; far above anything that is of use, low enough to bound memory.
MAX_ADDRS = 1024
MAX_URL_SIZE = 8192
MAX_CUSTOM_SIZE = 65536

DEFAULT_QUIC_PORT = 7842

_U64_END = 1 << 64


class RelayUrl(str):
    """URL of a relay, normalised as WHATWG says and otherwise unchecked, as upstream does.

    A string, so it can be used where one is wanted. `https://r.example/` and `https://r.example./`
    are two relays: the root dot is kept.
    """

    __slots__ = ()

    def __new__(cls, url: str) -> Self:
        """Raises AddressParsingError if `url` is no absolute URL."""
        if type(url) is cls:
            return url
        try:
            return super().__new__(cls, _native.normalize_url(url))
        except ValueError as error:
            raise AddressParsingError(f"not a relay URL: {url!r}: {error}") from None

    def __repr__(self) -> str:
        return f"RelayUrl({str(self)!r})"


@dataclass(frozen=True, slots=True)
class RelayConfig:
    """What is needed to use the relay at `url`.

    `quic_port`: UDP port of its address discovery, None if it has none. `auth_token`: sent to it.
    """

    url: RelayUrl
    quic_port: int | None = DEFAULT_QUIC_PORT
    auth_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", RelayUrl(self.url))
        # It goes into an HTTP header as it is.
        if not re.fullmatch("[\\x21-\\x7e]+( +[\\x21-\\x7e]+)*", self.auth_token or "x"):
            raise AddressParsingError("the token of a relay must be visible ASCII")
        if self.quic_port == 0:  # how configuration files say "the usual one"
            object.__setattr__(self, "quic_port", DEFAULT_QUIC_PORT)


class RelayMap:
    """The relays an endpoint may use, at most one entry for a URL, in the order of URLs."""

    __slots__ = ("_relays",)

    def __init__(self, relays: Iterable[RelayConfig | str] = ()) -> None:
        """`relays`: configurations, or URLs of relays with the usual settings."""
        self._relays: dict[RelayUrl, RelayConfig] = {}
        for relay in relays:
            self.insert(relay)

    def insert(self, relay: RelayConfig | str) -> RelayConfig | None:
        """Add a relay or replace the entry for its URL; gives the previous entry."""
        config = relay if isinstance(relay, RelayConfig) else RelayConfig(RelayUrl(relay))
        previous = self._relays.get(config.url)
        self._relays[config.url] = config
        return previous

    def remove(self, url: str) -> RelayConfig | None:
        """Remove the entry for `url` and give it back, if there was one."""
        return self._relays.pop(RelayUrl(url), None)

    def get(self, url: str) -> RelayConfig | None:
        """The entry for `url`."""
        return self._relays.get(RelayUrl(url))

    @property
    def urls(self) -> tuple[RelayUrl, ...]:
        """The URLs, in order."""
        return tuple(sorted(self._relays))

    def __iter__(self) -> Iterator[RelayConfig]:
        return iter([self._relays[url] for url in self.urls])

    def __len__(self) -> int:
        return len(self._relays)

    def __contains__(self, url: str) -> bool:
        return self.get(url) is not None

    def __eq__(self, other: object) -> bool:
        return self._relays == other._relays if isinstance(other, RelayMap) else NotImplemented

    def __repr__(self) -> str:
        return f"RelayMap([{', '.join(self.urls)}])"


@dataclass(frozen=True, slots=True)
class RelayAddr:
    """Reachable through the relay at `url`."""

    url: RelayUrl

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", RelayUrl(self.url))

    @property
    def sort_key(self) -> tuple[int, str]:
        """Orders addresses of all kinds."""
        return 0, str(self.url)

    def __str__(self) -> str:
        return f"relay:{self.url}"


@dataclass(frozen=True, slots=True)
class IpAddr:
    """Reachable by UDP at `ip` and `port`. A scope of a link-local `ip` stays on this machine."""

    ip: IPv4Address | IPv6Address
    port: int

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 0xFFFF:
            raise AddressParsingError(f"{self.port} is no port; ports are 0 to 65535")

    def __hash__(self) -> int:
        # Every dial looks addresses up again and again; the hash of an IPv4Address is that of its hex text.
        return hash((int(self.ip), self.port))

    @classmethod
    def from_pair(cls, pair: tuple[str, int]) -> Self:
        """From (IP text, port), as sockets and the engine give it. Raises AddressParsingError."""
        return cls(_parse_ip(pair[0]), pair[1])

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `1.2.3.4:5` or `[::1]:5`. Raises AddressParsingError."""
        host, colon, port = text.rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or bracketed != (":" in host):
            raise AddressParsingError(f"not a socket address: {text!r}; use 1.2.3.4:5 or [::1]:5")
        return cls(_parse_ip(host[1:-1] if bracketed else host), int(port))

    @property
    def pair(self) -> tuple[str, int]:
        """(IP text, port) as sockets and the engine take it; an IPv4-mapped address as IPv4."""
        mapped = self.ip.ipv4_mapped if isinstance(self.ip, IPv6Address) else None
        return str(mapped or self.ip), self.port

    @property
    def sort_key(self) -> tuple[int, int, int, int, str]:
        """Orders addresses of all kinds; here IPv4 first, then by number, then by port."""
        scope = self.ip.scope_id or "" if isinstance(self.ip, IPv6Address) else ""
        return 1, self.ip.version, int(self.ip), self.port, scope

    @property
    def text(self) -> str:
        """`1.2.3.4:5` or `[::1]:5`; what `parse` reads."""
        if isinstance(self.ip, IPv4Address):
            return f"{self.ip}:{self.port}"
        # Python before 3.13 spells the mapped form in hex, upstream and newer Pythons dotted.
        mapped = self.ip.ipv4_mapped
        return f"[::ffff:{mapped}]:{self.port}" if mapped else f"[{self.ip}]:{self.port}"

    def __str__(self) -> str:
        return f"ip:{self.text}"


@dataclass(frozen=True, slots=True)
class CustomAddr:
    """Reachable by the custom transport number `id` at `data`, which only that transport reads."""

    id: int
    data: bytes

    def __post_init__(self) -> None:
        if not 0 <= self.id < _U64_END:
            raise AddressParsingError(f"{self.id} is no transport id; they are 64-bit numbers")
        object.__setattr__(self, "data", bytes(self.data))

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `<id in hex>_<data in lowercase hex>`. Raises AddressParsingError."""
        match = re.fullmatch(r"([0-9a-fA-F]+)_((?:[0-9a-f]{2})*)", text)
        if match is None or int(match[1], 16) >= _U64_END:
            raise AddressParsingError(f"not a custom address: {text!r}; use ID_DATA, both in hex")
        return cls(int(match[1], 16), bytes.fromhex(match[2]))

    @classmethod
    def from_bytes(cls, raw: Buffer) -> Self:
        """From 8 bytes of id (little-endian) and the data. Raises AddressParsingError."""
        data = bytes(raw)
        if len(data) < 8:
            raise AddressParsingError(f"a custom address has 8 bytes or more, not {len(data)}")
        return cls(int.from_bytes(data[:8], "little"), data[8:])

    def __bytes__(self) -> bytes:
        return self.id.to_bytes(8, "little") + self.data

    @property
    def sort_key(self) -> tuple[int, int, bytes]:
        """Orders addresses of all kinds."""
        return 2, self.id, self.data

    @property
    def text(self) -> str:
        """`<id in hex>_<data in hex>`; what `parse` reads."""
        return f"{self.id:x}_{self.data.hex()}"

    def __str__(self) -> str:
        return f"custom:{self.text}"


TransportAddr: TypeAlias = RelayAddr | IpAddr | CustomAddr


class SupportsAddr(Protocol):
    """Anything that knows an endpoint's address: tickets, endpoints."""

    @property
    def addr(self) -> EndpointAddr: ...


class EndpointAddr:
    """Who an endpoint is and what is known about where: `id` and `addrs`, sorted, each once.

    Immutable; `addrs` may be empty, then a lookup has to find some.
    """

    __slots__ = ("addrs", "id")
    id: EndpointId
    addrs: tuple[TransportAddr, ...]

    def __init__(self, id: EndpointId, addrs: Iterable[TransportAddr] = ()) -> None:
        object.__setattr__(self, "id", id)
        object.__setattr__(self, "addrs", tuple(sorted(set(addrs), key=_sort_key)))

    @classmethod
    def coerce(cls, target: Dialable) -> EndpointAddr:
        """What people dial: an address, an id, a ticket, or the text of an id or a ticket.

        Raises KeyParsingError or TicketParsingError for text, TypeError for other things.
        """
        if isinstance(target, EndpointAddr):
            return target
        if isinstance(target, EndpointId):
            return cls(target)
        if isinstance(target, str):
            from aioiroh.ticket import parse_dialable  # tickets are made of addresses

            return parse_dialable(target)
        addr = getattr(target, "addr", None)
        if isinstance(addr, EndpointAddr):
            return addr
        raise TypeError(f"{type(target).__name__} names no endpoint; use an id, address or ticket")

    def with_relay(self, url: str) -> EndpointAddr:
        """A copy that is also reachable through the relay at `url`."""
        return EndpointAddr(self.id, (*self.addrs, RelayAddr(RelayUrl(url))))

    def with_ip(self, host: str, port: int) -> EndpointAddr:
        """A copy that is also reachable at an IP address."""
        return EndpointAddr(self.id, (*self.addrs, IpAddr.from_pair((host, port))))

    @property
    def relay_urls(self) -> tuple[RelayUrl, ...]:
        """The relays among `addrs`."""
        return tuple(addr.url for addr in self.addrs if isinstance(addr, RelayAddr))

    @property
    def ip_addrs(self) -> tuple[IpAddr, ...]:
        """The IP addresses among `addrs`."""
        return tuple(addr for addr in self.addrs if isinstance(addr, IpAddr))

    @classmethod
    def read(cls, reader: Reader) -> Self:
        """Read the postcard layout. Raises DecodeError or a subclass."""
        id = read_endpoint_id(reader)
        count = reader.count(MAX_ADDRS, size=2)
        return cls(id, [_read_addr(reader) for _ in range(count)])

    @classmethod
    def decode(cls, data: Buffer) -> Self:
        """From postcard bytes; bytes after the value are ignored. Raises DecodeError."""
        return cls.read(Reader(data))

    def write(self, writer: Writer) -> None:
        """Append the postcard layout."""
        writer.raw(bytes(self.id))
        writer.count(len(self.addrs))
        for addr in self.addrs:
            _write_addr(writer, addr)

    def encode(self) -> bytes:
        """Postcard bytes."""
        writer = Writer()
        self.write(writer)
        return writer.finish()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("an EndpointAddr does not change; make another one")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.id, self.addrs)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EndpointAddr):
            return NotImplemented
        return self.id == other.id and self.addrs == other.addrs

    def __hash__(self) -> int:
        return hash((self.id, self.addrs))

    def __repr__(self) -> str:
        return f"EndpointAddr({self.id.short()}…, [{', '.join(map(str, self.addrs))}])"


Dialable: TypeAlias = EndpointAddr | EndpointId | SupportsAddr | str


# --- pieces of the wire form ----------------------------------------------------------------------


def read_endpoint_id(reader: Reader) -> EndpointId:
    """32 raw bytes. Raises KeyParsingError."""
    return EndpointId(reader.raw(EndpointId.SIZE))


def read_relay_url(reader: Reader) -> RelayUrl:
    """A length-prefixed URL. Raises AddressParsingError."""
    return RelayUrl(reader.string(MAX_URL_SIZE))


def read_socket_addr(reader: Reader) -> IpAddr:
    """Family, 4 or 16 address bytes, port as a varint. Raises DecodeError."""
    ip: IPv4Address | IPv6Address
    ip = IPv6Address(reader.raw(16)) if reader.variant(2) else IPv4Address(reader.raw(4))
    return IpAddr(ip, reader.u16())


def write_socket_addr(writer: Writer, addr: IpAddr) -> None:
    """As `read_socket_addr`; a scope is not written, a mapped address is written as IPv6."""
    writer.variant(0 if addr.ip.version == 4 else 1)
    writer.raw(addr.ip.packed)
    writer.u16(addr.port)


def _read_custom_addr(reader: Reader) -> CustomAddr:
    return CustomAddr(reader.u64(), reader.byte_string(MAX_CUSTOM_SIZE))


def _read_addr(reader: Reader) -> TransportAddr:
    return _ADDR_READERS[reader.variant(len(_ADDR_READERS))](reader)


_ADDR_READERS: tuple[Callable[[Reader], TransportAddr], ...] = (
    lambda reader: RelayAddr(read_relay_url(reader)),
    read_socket_addr,
    _read_custom_addr,
)


def _write_addr(writer: Writer, addr: TransportAddr) -> None:
    match addr:
        case RelayAddr(url):
            writer.variant(0)
            writer.string(url)
        case IpAddr():
            writer.variant(1)
            write_socket_addr(writer, addr)
        case CustomAddr(id, data):
            writer.variant(2)
            writer.u64(id)
            writer.byte_string(data)


def _sort_key(addr: TransportAddr) -> tuple[object, ...]:
    return addr.sort_key


# A peer's address is read anew for each of its connections, which costs more than a look-up.
@lru_cache(maxsize=1024)
@lru_cache(maxsize=256)
def _parse_ip(text: str) -> IPv4Address | IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise AddressParsingError(f"not an IP address: {text!r}") from None
