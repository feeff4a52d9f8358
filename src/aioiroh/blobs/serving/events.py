"""What a provider tells about its connections and transfers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..hash import Hash

if TYPE_CHECKING:
    from aioiroh.keys import EndpointId

    from .access import IncomingRequest

__all__ = [
    "ClientConnected",
    "ConnectionClosed",
    "ConnectionEvent",
    "OnConnection",
    "OnTransfer",
    "RequestReceived",
    "TransferAborted",
    "TransferCompleted",
    "TransferEvent",
    "TransferProgress",
    "TransferStarted",
    "TransferStats",
]


@dataclass(frozen=True, slots=True)
class ConnectionEvent:
    """Something that happened to a connection; `connection` is its number, as in `IncomingRequest`."""

    remote_id: EndpointId
    connection: int


@dataclass(frozen=True, slots=True)
class ClientConnected(ConnectionEvent):
    """A peer was let in."""


@dataclass(frozen=True, slots=True)
class ConnectionClosed(ConnectionEvent):
    """The connection of a peer that was let in is over, and so are its requests."""


OnConnection = Callable[[ConnectionEvent], None]


@dataclass(frozen=True, slots=True)
class TransferStats:
    """What a request moved, in bytes, and how long it took.

    `payload_bytes`: content, of complete and begun blobs, that was handed to the network (for a push:
    that was verified). `blobs` of them were moved to the end. `other_bytes_sent`: sizes and hash
    pairs; `other_bytes_read`: the request. `duration` in seconds, from the request to the end.
    """

    payload_bytes: int = 0
    blobs: int = 0
    other_bytes_sent: int = 0
    other_bytes_read: int = 0
    duration: float = 0.0


@dataclass(frozen=True, slots=True)
class TransferEvent:
    """Something that happened to a request that was allowed.

    Of a request: RequestReceived, then for each blob TransferStarted and TransferProgress, and at the end
    TransferCompleted or TransferAborted, one of them for sure.
    """

    source: IncomingRequest


@dataclass(frozen=True, slots=True)
class RequestReceived(TransferEvent):
    """A request was allowed."""


@dataclass(frozen=True, slots=True)
class TransferStarted(TransferEvent):
    """The blob at `index` of the request, `size` bytes in all, is being moved."""

    index: int
    hash: Hash
    size: int


@dataclass(frozen=True, slots=True)
class TransferProgress(TransferEvent):
    """That blob is moved up to byte `end_offset`. Such events coalesce."""

    index: int
    hash: Hash
    end_offset: int


@dataclass(frozen=True, slots=True)
class TransferCompleted(TransferEvent):
    """Everything that was asked for and is here has been moved; an observer has left."""

    stats: TransferStats


@dataclass(frozen=True, slots=True)
class TransferAborted(TransferEvent):
    """It broke off; `reason` says why. `lacking`: the blob that is not, or no more, in the store."""

    stats: TransferStats
    reason: str
    lacking: Hash | None = None


OnTransfer = Callable[[TransferEvent], None]
