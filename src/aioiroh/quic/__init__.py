"""QUIC as asyncio objects: the engine's driver, connections, streams, paths."""

from aioiroh.quic.connection import Connection
from aioiroh.quic.driver import Driver
from aioiroh.quic.incoming import Incoming
from aioiroh.quic.paths import (
    AddressObserved,
    Lagged,
    PathClosed,
    PathEvent,
    PathInfo,
    PathOpened,
    PathSelected,
    PathStatus,
    PathStatusChanged,
    PeerCandidate,
)
from aioiroh.quic.receiving import RecvStream
from aioiroh.quic.sending import SendStream
from aioiroh.quic.streams import BiStream
from aioiroh.quic.transport import TransportConfig

__all__ = [
    "AddressObserved",
    "BiStream",
    "Connection",
    "Driver",
    "Incoming",
    "Lagged",
    "PathClosed",
    "PathEvent",
    "PathInfo",
    "PathOpened",
    "PathSelected",
    "PathStatus",
    "PathStatusChanged",
    "PeerCandidate",
    "RecvStream",
    "SendStream",
    "TransportConfig",
]
