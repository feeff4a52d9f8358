"""Search for a UPnP router in the local network: SSDP, UPnP Device Architecture 1.1 section 1.3."""

from __future__ import annotations

from typing import Final

from aioiroh.errors import DecodeError

__all__ = ["GROUP", "PORT", "SEARCHES", "read"]

GROUP: Final = "239.255.255.250"
PORT: Final = 1900
MAX_SIZE: Final = 4096
MAX_WAIT: Final = 1
"""Seconds for which a device may wait with its answer."""


def _search(target: str) -> bytes:
    lines = (
        "M-SEARCH * HTTP/1.1",
        f"HOST: {GROUP}:{PORT}",
        f"ST: {target}",
        'MAN: "ssdp:discover"',
        f"MX: {MAX_WAIT}",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


SEARCHES: Final = tuple(
    _search(f"urn:schemas-upnp-org:{target}")
    for target in (
        "device:InternetGatewayDevice:2",
        "device:InternetGatewayDevice:1",
        "service:WANIPConnection:1",
    )
)
"""The questions; some routers know only one of them."""


def read(data: bytes) -> str:
    """The URL of the router's description. Raises DecodeError: this is no answer of a router."""
    if len(data) > MAX_SIZE:
        raise DecodeError("no answer to a search: too long")
    # Not as HTTP over TCP is read: devices leave the blank line out, or have one in the middle, or lines that are no
    # fields, and are to be found all the same.
    first, *lines = data.decode("latin-1").split("\r\n")
    if first.split(" ")[:2] not in (["HTTP/1.1", "200"], ["HTTP/1.0", "200"]):
        raise DecodeError("no answer to a search")
    fields: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip().lower(), value.strip())
    kind = fields.get("st", "")
    if not any(word in kind for word in ("InternetGatewayDevice", "WANIPConnection")):
        raise DecodeError("no answer of a router")
    if not fields.get("location"):
        raise DecodeError("an answer of a router that does not tell where its description is")
    return fields["location"]
