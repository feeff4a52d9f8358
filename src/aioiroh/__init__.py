"""Dial any device by its public key: iroh's protocols for asyncio.

The names below are loaded when they are first used, so that importing the package costs little.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aioiroh import blobs as blobs
    from aioiroh import errors as errors
    from aioiroh import lookup as lookup
    from aioiroh import presets as presets
    from aioiroh import sync as sync
    from aioiroh import testing as testing
    from aioiroh.address import CustomAddr as CustomAddr
    from aioiroh.address import Dialable as Dialable
    from aioiroh.address import EndpointAddr as EndpointAddr
    from aioiroh.address import IpAddr as IpAddr
    from aioiroh.address import RelayAddr as RelayAddr
    from aioiroh.address import RelayConfig as RelayConfig
    from aioiroh.address import RelayMap as RelayMap
    from aioiroh.address import RelayUrl as RelayUrl
    from aioiroh.address import TransportAddr as TransportAddr
    from aioiroh.aio import Watch as Watch
    from aioiroh.custom import CustomPort as CustomPort
    from aioiroh.custom import CustomTransport as CustomTransport
    from aioiroh.endpoint import Endpoint as Endpoint
    from aioiroh.errors import AddressParsingError as AddressParsingError
    from aioiroh.errors import AioirohError as AioirohError
    from aioiroh.errors import ApplicationClosedError as ApplicationClosedError
    from aioiroh.errors import Attempt as Attempt
    from aioiroh.errors import AuthenticationError as AuthenticationError
    from aioiroh.errors import BindError as BindError
    from aioiroh.errors import BusyError as BusyError
    from aioiroh.errors import CidsExhaustedError as CidsExhaustedError
    from aioiroh.errors import ConnectError as ConnectError
    from aioiroh.errors import ConnectionLostError as ConnectionLostError
    from aioiroh.errors import ConnectionTimeoutError as ConnectionTimeoutError
    from aioiroh.errors import ConnectTimeoutError as ConnectTimeoutError
    from aioiroh.errors import DatagramError as DatagramError
    from aioiroh.errors import DecodeError as DecodeError
    from aioiroh.errors import EndpointClosedError as EndpointClosedError
    from aioiroh.errors import EndpointFailedError as EndpointFailedError
    from aioiroh.errors import IncompleteReadError as IncompleteReadError
    from aioiroh.errors import InvalidAlpnError as InvalidAlpnError
    from aioiroh.errors import KeyParsingError as KeyParsingError
    from aioiroh.errors import LocallyClosedError as LocallyClosedError
    from aioiroh.errors import LocallyRejectedError as LocallyRejectedError
    from aioiroh.errors import LookupFailedError as LookupFailedError
    from aioiroh.errors import NoAddressError as NoAddressError
    from aioiroh.errors import PeerTransportError as PeerTransportError
    from aioiroh.errors import ReadLimitError as ReadLimitError
    from aioiroh.errors import RelayError as RelayError
    from aioiroh.errors import SelfConnectError as SelfConnectError
    from aioiroh.errors import StatelessResetError as StatelessResetError
    from aioiroh.errors import StreamClosedError as StreamClosedError
    from aioiroh.errors import StreamResetError as StreamResetError
    from aioiroh.errors import StreamStoppedError as StreamStoppedError
    from aioiroh.errors import TicketParsingError as TicketParsingError
    from aioiroh.errors import TransportError as TransportError
    from aioiroh.errors import VersionMismatchError as VersionMismatchError
    from aioiroh.errors import WrongLoopError as WrongLoopError
    from aioiroh.errors import ZeroRttRejectedError as ZeroRttRejectedError
    from aioiroh.hooks import Hook as Hook
    from aioiroh.hooks import Reject as Reject
    from aioiroh.incoming import Incoming as Incoming
    from aioiroh.keys import EndpointId as EndpointId
    from aioiroh.keys import PublicKey as PublicKey
    from aioiroh.keys import SecretKey as SecretKey
    from aioiroh.keys import Signature as Signature
    from aioiroh.lookup import EndpointData as EndpointData
    from aioiroh.lookup import LookupItem as LookupItem
    from aioiroh.lookup import LookupService as LookupService
    from aioiroh.lookup import MemoryLookup as MemoryLookup
    from aioiroh.metrics import Metrics as Metrics
    from aioiroh.net import Proxies as Proxies
    from aioiroh.net import UdpSlot as UdpSlot
    from aioiroh.paths import RemoteAddress as RemoteAddress
    from aioiroh.paths import RemoteInfo as RemoteInfo
    from aioiroh.pool import ConnectionPool as ConnectionPool
    from aioiroh.quic import AddressObserved as AddressObserved
    from aioiroh.quic import BiStream as BiStream
    from aioiroh.quic import Connection as Connection
    from aioiroh.quic import Lagged as Lagged
    from aioiroh.quic import PathClosed as PathClosed
    from aioiroh.quic import PathEvent as PathEvent
    from aioiroh.quic import PathInfo as PathInfo
    from aioiroh.quic import PathOpened as PathOpened
    from aioiroh.quic import PathSelected as PathSelected
    from aioiroh.quic import PathStatusChanged as PathStatusChanged
    from aioiroh.quic import PeerCandidate as PeerCandidate
    from aioiroh.quic import RecvStream as RecvStream
    from aioiroh.quic import SendStream as SendStream
    from aioiroh.quic import TransportConfig as TransportConfig
    from aioiroh.relay import RelayState as RelayState
    from aioiroh.relay import RelayStatus as RelayStatus
    from aioiroh.report import NetReport as NetReport
    from aioiroh.report import NetReportConfig as NetReportConfig
    from aioiroh.report import ObservedAddress as ObservedAddress
    from aioiroh.report import RelayLatencies as RelayLatencies
    from aioiroh.router import HANDLER_FAILED as HANDLER_FAILED
    from aioiroh.router import Handler as Handler
    from aioiroh.router import IncomingFilter as IncomingFilter
    from aioiroh.router import ProtocolHandler as ProtocolHandler
    from aioiroh.router import Router as Router
    from aioiroh.shortcuts import connect as connect
    from aioiroh.shortcuts import serve as serve
    from aioiroh.ticket import EndpointTicket as EndpointTicket
    from aioiroh.ticket import Ticket as Ticket

_MODULES = {
    "address": (
        "CustomAddr",
        "Dialable",
        "EndpointAddr",
        "IpAddr",
        "RelayAddr",
        "RelayConfig",
        "RelayMap",
        "RelayUrl",
        "TransportAddr",
    ),
    "aio": ("Watch",),
    "endpoint": ("Endpoint",),
    "custom": ("CustomPort", "CustomTransport"),
    "errors": (
        "AddressParsingError",
        "AioirohError",
        "ApplicationClosedError",
        "Attempt",
        "AuthenticationError",
        "BindError",
        "BusyError",
        "CidsExhaustedError",
        "ConnectError",
        "ConnectTimeoutError",
        "ConnectionLostError",
        "ConnectionTimeoutError",
        "DatagramError",
        "DecodeError",
        "EndpointClosedError",
        "EndpointFailedError",
        "IncompleteReadError",
        "InvalidAlpnError",
        "KeyParsingError",
        "LocallyClosedError",
        "LocallyRejectedError",
        "LookupFailedError",
        "NoAddressError",
        "PeerTransportError",
        "ReadLimitError",
        "RelayError",
        "SelfConnectError",
        "StatelessResetError",
        "StreamClosedError",
        "StreamResetError",
        "StreamStoppedError",
        "TicketParsingError",
        "TransportError",
        "VersionMismatchError",
        "WrongLoopError",
        "ZeroRttRejectedError",
    ),
    "hooks": ("Hook", "Reject"),
    "incoming": ("Incoming",),
    "keys": ("EndpointId", "PublicKey", "SecretKey", "Signature"),
    "lookup": ("EndpointData", "LookupItem", "LookupService", "MemoryLookup"),
    "metrics": ("Metrics",),
    "net": ("Proxies", "UdpSlot"),
    "paths": ("RemoteAddress", "RemoteInfo"),
    "pool": ("ConnectionPool",),
    "quic": (
        "AddressObserved",
        "BiStream",
        "Connection",
        "Lagged",
        "PathClosed",
        "PathEvent",
        "PathInfo",
        "PathOpened",
        "PathSelected",
        "PathStatusChanged",
        "PeerCandidate",
        "RecvStream",
        "SendStream",
        "TransportConfig",
    ),
    "relay": ("RelayState", "RelayStatus"),
    "report": ("NetReport", "NetReportConfig", "ObservedAddress", "RelayLatencies"),
    "router": ("HANDLER_FAILED", "Handler", "IncomingFilter", "ProtocolHandler", "Router"),
    "shortcuts": ("connect", "serve"),
    "ticket": ("EndpointTicket", "Ticket"),
}
"""Where the public names are defined."""

_HOMES = {name: module for module, names in _MODULES.items() for name in names}
_ROOMS = ("blobs", "errors", "lookup", "presets", "sync", "testing")
"""Rooms whose names are used through them: `aioiroh.blobs.get`."""

__all__ = [*_HOMES, *_ROOMS]  # noqa: PLE0604 - they are strings
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    value: object
    if name in _ROOMS:
        value = import_module(f"{__name__}.{name}")
    elif name in _HOMES:
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
