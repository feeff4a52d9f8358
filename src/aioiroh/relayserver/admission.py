"""Who may use a relay: the question, the answers, and the token that a client brings (relay protocol, 2.7, 4.7)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import parse_qsl, urlsplit

from aioiroh.keys import EndpointId

__all__ = ["Access", "AccessRequest", "Allow", "Deny", "everyone"]


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """A client that has proved its key and asks to be let in.

    `connection_id` is unique for its server, whose `on_disconnect` gets it again. `version` is that of the
    protocol, 1 or 2. `target`: path and query as asked for. `headers`: names and values in the
    order in which they came. `remote`: ip and port of the TCP connection's other end.
    """

    endpoint_id: EndpointId
    connection_id: int
    version: int
    # Both may hold the client's token.
    target: str = field(repr=False)
    headers: Sequence[tuple[str, bytes]] = field(repr=False)
    remote: tuple[str, int]

    @property
    def query(self) -> list[tuple[str, str]]:
        """The pairs of the query, decoded."""
        return parse_qsl(urlsplit(self.target).query, keep_blank_values=True)

    @property
    def token(self) -> str | None:
        """The bearer token of an `Authorization` header, or else the query's `token`."""
        for name, value in self.headers:
            if name.lower() != "authorization":
                continue
            if not all(0x20 <= byte < 0x7F or byte == 0x09 for byte in value):
                return None
            scheme, space, token = value.decode("ascii").partition(" ")
            if space and scheme.lower() == "bearer":
                return token
        return next((value for name, value in self.query if name == "token"), None)


@dataclass(frozen=True, slots=True)
class Allow:
    """The client is let in."""


@dataclass(frozen=True, slots=True)
class Deny:
    """The client is sent away. It is told the reason, or `not authorized`."""

    reason: str | None = None


Access: TypeAlias = Callable[[AccessRequest], Awaitable[Allow | Deny]]
"""Called once per connection, after the proof of the key. An exception or too long a wait is a denial. Cancelled when
the client has gone before the answer.
"""


async def everyone(_request: AccessRequest) -> Allow:
    """Lets everybody in."""
    return Allow()
