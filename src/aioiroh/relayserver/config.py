"""How a relay server is set up: upstream's settings, names, defaults and meaning (`iroh-relay` 1.4).

The file that says it is read by `configfile`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Final, Self

from aioiroh.address import DEFAULT_QUIC_PORT, IpAddr
from aioiroh.errors import DecodeError
from aioiroh.keys import EndpointId
from aioiroh.relayserver.limits import AcceptLimit, RateLimit

__all__ = [
    "AllowList",
    "AskByHttp",
    "CertMode",
    "Config",
    "ConfigError",
    "DenyList",
    "Everyone",
    "Rule",
    "SharedToken",
    "TlsConfig",
]

HTTP_PORT: Final = 80
DEV_HTTP_PORT: Final = 3340
HTTPS_PORT: Final = 443
METRICS_PORT: Final = 9090


class ConfigError(DecodeError):
    """A configuration that cannot be used; says which key, and what would be right."""


# --- who is let in --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Everyone:
    """Nobody is sent away."""


@dataclass(frozen=True, slots=True)
class AllowList:
    """Only these endpoints."""

    ids: frozenset[EndpointId]


@dataclass(frozen=True, slots=True)
class DenyList:
    """All but these endpoints."""

    ids: frozenset[EndpointId]


@dataclass(frozen=True, slots=True)
class SharedToken:
    """Whoever presents one of these tokens."""

    tokens: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class AskByHttp:
    """Whoever the HTTP service at `url` admits; `bearer_token` is shown to that service."""

    url: str = field(repr=False)
    bearer_token: str | None = field(default=None, repr=False)


Rule = Everyone | AllowList | DenyList | SharedToken | AskByHttp
"""Who may use the relay."""


# --- the rest -------------------------------------------------------------------------------------


class CertMode(Enum):
    """Where the certificate comes from."""

    MANUAL = "Manual"
    """Files that are read at the start, and on SIGHUP."""
    RELOADING = "Reloading"
    """Files that are read again whenever they have changed."""
    LETS_ENCRYPT = "LetsEncrypt"
    """Not supported here; see `tls.load_certificate`."""


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """The table `[tls]`."""

    cert_mode: CertMode
    https_bind_addr: IpAddr | None = None
    quic_bind_addr: IpAddr | None = None
    cert_dir: Path = Path()
    manual_cert_path: Path | None = None
    manual_key_path: Path | None = None
    dangerous_http_only: bool = False

    @property
    def cert_path(self) -> Path:
        """The file with the certificate chain (PEM)."""
        return self.manual_cert_path or self.cert_dir / "default.crt"

    @property
    def key_path(self) -> Path:
        """The file with the private key (PEM)."""
        return self.manual_key_path or self.cert_dir / "default.key"


@dataclass(frozen=True, slots=True)
class Config:
    """What the file says; where several keys decide, ask the properties.

    `rate`: what each client may send (`limits.client.rx`). `accept`: TCP connections that are taken
    (`limits.accept_conn_*`, which upstream only reads).
    """

    enable_relay: bool = True
    http_bind_addr: IpAddr | None = None
    tls: TlsConfig | None = None
    enable_quic_addr_discovery: bool = False
    rate: RateLimit | None = None
    accept: AcceptLimit | None = None
    enable_metrics: bool = True
    metrics_bind_addr: IpAddr | None = None
    access: Rule = Everyone()
    dev: bool = False

    def for_development(self) -> Self:
        """As `--dev` runs it: plain HTTP, by default on port 3340."""
        return replace(self, dev=True)

    @property
    def is_https(self) -> bool:
        """Whether the relay is served over TLS."""
        return self.tls is not None and not self.dev and not self.tls.dangerous_http_only

    @property
    def http_address(self) -> tuple[str, int]:
        """Where plain HTTP is served."""
        port = DEV_HTTP_PORT if self.dev else HTTP_PORT
        return self.http_bind_addr.pair if self.http_bind_addr else ("::", port)

    @property
    def https_address(self) -> tuple[str, int]:
        """Where HTTPS is served if it is."""
        if self.tls and self.tls.https_bind_addr:
            return self.tls.https_bind_addr.pair
        return self.http_address[0], HTTPS_PORT

    @property
    def quic_address(self) -> tuple[str, int]:
        """Where addresses are discovered if they are."""
        if self.tls and self.tls.quic_bind_addr:
            return self.tls.quic_bind_addr.pair
        return self.https_address[0], DEFAULT_QUIC_PORT

    @property
    def metrics_address(self) -> tuple[str, int]:
        """Where metrics are served if they are."""
        if self.metrics_bind_addr:
            return self.metrics_bind_addr.pair
        return self.http_address[0], METRICS_PORT
