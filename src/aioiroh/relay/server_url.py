"""Where a relay is dialled, going by its URL (relay protocol, section 5.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from aioiroh.address import RelayUrl
from aioiroh.errors import AddressParsingError

__all__ = ["ServerAddress", "check_url"]

_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """A relay server: where its TCP port is and what it is asked for there.

    `host_header`: the host as HTTP names it. `target`: path and query. `server_name`: the name that the
    certificate must have; None without TLS.
    """

    host: str
    port: int
    host_header: str
    target: str
    server_name: str | None

    @classmethod
    def of(cls, url: RelayUrl) -> Self:
        """Any path of the URL is replaced, its query is kept. Raises AddressParsingError."""
        parts = urlsplit(url)
        host = parts.hostname
        if not host:
            raise AddressParsingError(f"the relay URL {str(url)!r} names no host")
        # As upstream: whatever is not plain is encrypted.
        encrypted = parts.scheme not in ("http", "ws")
        return cls(
            host=host,
            port=parts.port or _PORTS.get(parts.scheme, 443),
            host_header=parts.netloc.rpartition("@")[2],
            target="/relay" + (f"?{parts.query}" if parts.query else ""),
            # The root dot of a name is not part of certificates.
            server_name=(host.rstrip(".") or host) if encrypted else None,
        )


def check_url(url: RelayUrl) -> None:
    """Raises AddressParsingError: no relay can be dialled there."""
    ServerAddress.of(url)
