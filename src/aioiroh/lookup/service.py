"""What a lookup service is, and the values it deals in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aioiroh.address import EndpointAddr, TransportAddr
from aioiroh.errors import AddressParsingError
from aioiroh.keys import EndpointId, SecretKey

if TYPE_CHECKING:
    from aioiroh.metrics import Metrics
    from aioiroh.net import Network

__all__ = ["EndpointData", "LookupContext", "LookupItem", "LookupService"]

MAX_USER_DATA_SIZE = 245  # a DNS character string of 255 less the ten bytes of "user-data="


@dataclass(frozen=True, slots=True, init=False)
class EndpointData:
    """What an endpoint publishes about itself.

    `addrs`: most useful first, each once. `user_data`: text of at most 245 bytes in UTF-8, which
    nothing interprets.
    """

    addrs: tuple[TransportAddr, ...]
    user_data: str | None

    def __init__(self, addrs: Iterable[TransportAddr] = (), user_data: str | None = None) -> None:
        """AddressParsingError: `user_data` is too long."""
        size = len((user_data or "").encode("utf-8", "surrogatepass"))
        if size > MAX_USER_DATA_SIZE:
            raise AddressParsingError(
                f"user data may have {MAX_USER_DATA_SIZE} bytes in UTF-8, not {size}"
            )
        object.__setattr__(self, "addrs", tuple(dict.fromkeys(addrs)))
        object.__setattr__(self, "user_data", user_data)


@dataclass(frozen=True, slots=True)
class LookupItem:
    """One answer: where `id` is.

    `provenance` names the service; `last_updated` is in microseconds since 1970, if known.
    """

    id: EndpointId
    data: EndpointData
    provenance: str
    last_updated: int | None = None

    @property
    def addr(self) -> EndpointAddr:
        """The answer as something to dial."""
        return EndpointAddr(self.id, self.data.addrs)


@dataclass(frozen=True, slots=True)
class LookupContext:
    """What a service gets to work with. Never the endpoint itself."""

    secret_key: SecretKey
    network: Network
    metrics: Metrics


class LookupService:
    """Base of all services; each method may be left as it is."""

    provenance: str
    """Short name of the service, put on its answers and its errors."""

    async def start(self, context: LookupContext) -> None:
        """Called once for each endpoint, while it binds; an exception fails the bind."""

    def publish(self, data: EndpointData) -> None:
        """Our own data, whole, after each change. Must not block; I/O, retries and
        republication are the service's own business, and its failures stay inside.
        """

    def resolve(self, id: EndpointId) -> AsyncIterator[LookupItem] | None:
        """Where `id` is: any number of answers over time, or None if this service does not
        resolve. An exception ends only this service's answers; closing the iterator cancels.
        """
        return None

    async def aclose(self) -> None:
        """The endpoint closes; stop publishing."""
