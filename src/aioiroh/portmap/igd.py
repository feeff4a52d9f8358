"""A UPnP router's description and requests: Internet Gateway Device 1 and 2, over SOAP. Without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit

from aioiroh.errors import DecodeError
from aioiroh.portmap import xml

__all__ = ["Fault", "Place", "Service", "body", "place", "reply", "services"]

_KNOWN: Final = (
    "urn:schemas-upnp-org:service:WANIPConnection:2",
    "urn:schemas-upnp-org:service:WANIPConnection:1",
    "urn:schemas-upnp-org:service:WANPPPConnection:1",
)
"""What maps ports, the best first."""

ONLY_PERMANENT: Final = 725
CONFLICTS: Final = frozenset({718, 727, 724, 728})
"""The external port is taken, or may not be chosen freely."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an HTTP request goes."""

    host: str
    port: int
    path: str


@dataclass(frozen=True, slots=True)
class Service:
    """What a router is asked to map ports by."""

    kind: str
    place: Place

    @property
    def version(self) -> int:
        return int(self.kind.rpartition(":")[2])


class Fault(Exception):
    """The router's error; `code` as the specification numbers it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text or 'error'} ({code})")
        self.code = code


def place(url: str, host: str) -> Place:
    """Where the URL points. Raises DecodeError: it is not plain HTTP at this IP address.

    Nobody is to be sent elsewhere by an answer from the local network.
    """
    try:
        parts = urlsplit(url)
        name, port = parts.hostname, parts.port or 80
    except ValueError as error:
        raise DecodeError(f"not a URL: {error}") from None
    if parts.scheme != "http" or name != host:
        raise DecodeError("a URL that does not lead to the router itself")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii() or not path.isprintable() or " " in path:
        raise DecodeError("a URL with a path that cannot be asked for")
    return Place(host, port, path)


def services(description: bytes, url: str, host: str) -> list[Service]:
    """What maps ports by the description that was found at `url`, the best first. Raises DecodeError."""
    document = xml.read(description)
    base = next((element.text.strip() for element in document.all("URLBase")), "") or url
    found = []
    for element in document.all("service"):
        kind, control = element.child("serviceType"), element.child("controlURL")
        if kind in _KNOWN and control:
            try:
                where = place(urljoin(base, control), host)
            except ValueError:  # Also what urljoin says.
                continue
            found.append(Service(kind, where))
    return sorted(found, key=lambda service: _KNOWN.index(service.kind))


def body(service: Service, action: str, arguments: Mapping[str, object]) -> bytes:
    """A SOAP request. The arguments are our own, and have nothing in them that means something to XML."""
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in arguments.items())
    return (
        '<?xml version="1.0"?>\n'
        '<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"'
        ' s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
        f'<u:{action} xmlns:u="{service.kind}">{inner}</u:{action}>'
        "</s:Body></s:Envelope>\r\n"
    ).encode()


def reply(action: str, status: int, data: bytes) -> dict[str, str]:
    """The values in a SOAP reply. Raises Fault, DecodeError."""
    document = xml.read(data)
    for error in document.all("UPnPError"):
        code = error.child("errorCode")
        if code.isascii() and code.isdigit() and len(code) < 6:
            raise Fault(int(code), error.child("errorDescription")[:100])
    if status != 200:
        raise DecodeError(f"HTTP status {status} without a reason")
    for element in document.all(f"{action}Response"):
        return {child.name: child.text.strip() for child in element.children}
    raise DecodeError(f"no reply to {action}")
