"""Who may ask a provider for what, and what it tells about its transfers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from ..hash import Hash
from ..messages import ErrorCode, Request, RequestKind

if TYPE_CHECKING:
    from aioiroh.keys import EndpointId

__all__ = [
    "Authorize",
    "IncomingRequest",
    "OnTransfer",
    "TransferAborted",
    "TransferCompleted",
    "TransferEvent",
    "TransferProgress",
    "TransferStarted",
    "TransferStats",
    "Verdict",
]


class Verdict(Enum):
    """Answer to a request for permission; the value is the code that the peer sees."""

    ALLOW = ErrorCode.NONE
    DENY = ErrorCode.PERMISSION
    LATER = ErrorCode.LIMIT


@dataclass(frozen=True, slots=True)
class IncomingRequest:
    """Who asks for what. `connection` and `stream` tell requests of one peer apart."""

    remote_id: EndpointId
    connection: int
    stream: int
    request: Request

    @property
    def kind(self) -> RequestKind:
        return self.request.kind


Authorize = Callable[[IncomingRequest], Verdict | bool | Awaitable[Verdict | bool]]
"""Decides about a request: a verdict, or True for ALLOW and False for DENY."""


@dataclass(frozen=True, slots=True)
class TransferStats:
    """Payload bytes of complete and begun blobs that were handed to the network, the blobs that
    were sent to the end, bytes of the request, and seconds from the request to the end.
    """

    payload_bytes: int
    blobs: int
    request_bytes: int
    duration: float


@dataclass(frozen=True, slots=True)
class TransferEvent:
    """Something that happened to a request that is answered."""

    source: IncomingRequest


@dataclass(frozen=True, slots=True)
class TransferStarted(TransferEvent):
    """The blob at `index` of the request, `size` bytes in all, is being sent."""

    index: int
    hash: Hash
    size: int


@dataclass(frozen=True, slots=True)
class TransferProgress(TransferEvent):
    """That blob is sent up to byte `end_offset`. Such events coalesce."""

    index: int
    hash: Hash
    end_offset: int


@dataclass(frozen=True, slots=True)
class TransferCompleted(TransferEvent):
    """Everything that was asked for and is here has been sent."""

    stats: TransferStats


@dataclass(frozen=True, slots=True)
class TransferAborted(TransferEvent):
    """The answer broke off; `reason` says why."""

    stats: TransferStats
    reason: str


OnTransfer = Callable[[TransferEvent], None]
