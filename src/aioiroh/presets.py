"""Presets: ready-made options for `Endpoint.bind`.

A preset is a function from `EndpointOptions` to `EndpointOptions`. It is applied to the defaults; what
the caller of `bind` gives explicitly counts more, and its lookup services and hooks are added to those
of the preset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from aioiroh.address import IpAddr, RelayMap
from aioiroh.custom import CustomTransport
from aioiroh.hooks import Hook
from aioiroh.lookup import LookupService
from aioiroh.net import Proxies
from aioiroh.paths import PathSelector
from aioiroh.quic import TransportConfig
from aioiroh.report import NetReportConfig

__all__ = ["BindAddress", "EndpointOptions", "Interface", "Preset", "loopback"]


@dataclass(frozen=True, slots=True)
class Interface:
    """All addresses of the network interface of this name, as they come and go: `Interface("eth0")`.

    It need not be there yet. `port` 0: any.
    """

    name: str
    port: int = 0


BindAddress: TypeAlias = str | tuple[str, int] | Interface
"""Where a UDP socket is opened: `"192.0.2.1:4433"`, `"[::1]:0"` or (host, port), where port 0 is any; or the addresses
of an interface.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointOptions:
    """What an endpoint is bound with. See `Endpoint.bind`."""

    bind: tuple[BindAddress, ...] | None = None
    external_addrs: tuple[IpAddr, ...] = ()
    transport: TransportConfig | None = None
    keylog: str | Path | None = None
    lookup: tuple[LookupService, ...] = ()
    hooks: tuple[Hook, ...] = ()
    relays: RelayMap | None = None
    relay_ca: str | Path | None = None
    proxy: Proxies | None = None
    net_report: NetReportConfig = field(default_factory=NetReportConfig)
    port_mapping: bool | None = None
    guess_ports: bool = True
    custom_transports: tuple[CustomTransport, ...] = ()
    path_selector: PathSelector | None = None
    max_incoming: int = 1024
    retry_above: int | None = None
    max_tickets: int = 256
    busy_poll: float = 0.0


Preset: TypeAlias = Callable[[EndpointOptions], EndpointOptions]


def loopback(options: EndpointOptions) -> EndpointOptions:
    """Sockets on 127.0.0.1 only: for tests and for programs on one machine."""
    return replace(options, bind=("127.0.0.1:0",))


def bind_addresses(bind: Sequence[BindAddress] | BindAddress) -> tuple[BindAddress, ...]:
    """One address or several as several."""
    match bind:
        case str() | Interface():
            return (bind,)
        case (str() as host, int() as port):
            return ((host, port),)
    return tuple(bind)


def bind_address(address: str | tuple[str, int]) -> tuple[str, int]:
    """IP address and port. Raises AddressParsingError: a name, for example, is none."""
    parsed = udp_address(address)
    return str(parsed.ip), parsed.port


def udp_address(address: str | tuple[str, int]) -> IpAddr:
    """An IP address and port, as text or as a pair. Raises AddressParsingError."""
    return IpAddr.parse(address) if isinstance(address, str) else IpAddr.from_pair(address)
