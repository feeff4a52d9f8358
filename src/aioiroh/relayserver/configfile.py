"""Reading the configuration of a relay server from upstream's TOML file, key for key.

As `iroh-relay` 1.4 reads it (`iroh-relay/src/main.rs`), but a key that upstream would pass over is an
error here.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable
from math import isfinite
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from aioiroh.address import IpAddr
from aioiroh.errors import AddressParsingError, KeyParsingError
from aioiroh.keys import EndpointId
from aioiroh.relayserver.config import (
    AllowList,
    AskByHttp,
    CertMode,
    Config,
    ConfigError,
    DenyList,
    Everyone,
    Rule,
    SharedToken,
    TlsConfig,
)
from aioiroh.relayserver.limits import AcceptLimit, RateLimit

__all__ = ["parse_config", "read_config"]

T = TypeVar("T")

MAX_FILE: Final = 64 << 20
"""Bytes of a file; long lists of ids have room."""
_U32_END: Final = 1 << 32


def read_config(path: Path) -> Config:
    """From a file. Raises OSError, ConfigError."""
    with path.open("rb") as file:
        raw = file.read(MAX_FILE + 1)
    try:
        if len(raw) > MAX_FILE:
            raise ConfigError(f"it is longer than {MAX_FILE >> 20} MiB")
        return parse_config(raw.decode())
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: this is no TOML: it is not UTF-8") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def parse_config(text: str) -> Config:
    """From the text of a file. Raises ConfigError."""
    try:
        table = _Table("", tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"this is no TOML: {error}") from None
    # Upstream keeps keys that it has found to be points of the curve; here nothing is gained by that.
    table.take("key_cache_capacity", _count, None)
    config = Config(
        enable_relay=table.take("enable_relay", _bool, True),
        http_bind_addr=table.take("http_bind_addr", _address, None),
        tls=table.take("tls", _tls, None),
        enable_quic_addr_discovery=table.take("enable_quic_addr_discovery", _bool, False),
        **table.take("limits", _limits, {}),
        enable_metrics=table.take("enable_metrics", _bool, True),
        metrics_bind_addr=table.take("metrics_bind_addr", _address, None),
        access=table.take("access", _access, Everyone()),
    )
    table.end()
    if config.enable_quic_addr_discovery and config.tls is None:
        raise ConfigError(
            "enable_quic_addr_discovery needs a certificate: add a table [tls] with cert_mode"
        )
    if not config.enable_relay and not config.enable_quic_addr_discovery:
        raise ConfigError(
            "enable_relay and enable_quic_addr_discovery are both off: nothing is left to do"
        )
    return config


class _Table:
    """A TOML table whose keys are taken one by one; `end` complains about what nobody has taken."""

    def __init__(self, path: str, content: object) -> None:
        if not isinstance(content, dict):
            raise ConfigError(f"{path} must be a table")
        self._path = path
        self._content: dict[str, Any] = content
        self._known: list[str] = []

    def name(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def take(self, key: str, read: Callable[[str, Any], T], default: Any) -> T | Any:
        self._known.append(key)
        if key not in self._content:
            return default
        return read(self.name(key), self._content[key])

    def end(self) -> None:
        for key in self._content:
            if key not in self._known:
                near = difflib.get_close_matches(key, self._known, 1)
                advice = f"did you mean {near[0]}?" if near else f"known: {', '.join(self._known)}"
                raise ConfigError(f"unknown key {self.name(key)}; {advice}")


def _bool(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be true or false")
    return value


def _integer(name: str, value: Any, least: int, end: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value < end:
        raise ConfigError(f"{name} must be a whole number from {least} to {end - 1}")
    return value


def _count(name: str, value: Any) -> int:
    return _integer(name, value, 0, 1 << 63)


def _positive(name: str, value: Any) -> int:
    return _integer(name, value, 1, _U32_END)


def _number(name: str, value: Any) -> float:
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
    if not (number > 0 and isfinite(number)):
        raise ConfigError(f"{name} must be a number above 0; leave it out to have no limit")
    return number


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be a string")
    return value


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{name} must be a list of strings")
    return tuple(_text(name, entry) for entry in value)


def _names(name: str, value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else _texts(name, value)


def _path(name: str, value: Any) -> Path:
    return Path(_text(name, value))


def _address(name: str, value: Any) -> IpAddr:
    try:
        return IpAddr.parse(_text(name, value))
    except AddressParsingError as error:
        raise ConfigError(f"{name}: {error}") from None


def _cert_mode(name: str, value: Any) -> CertMode:
    try:
        return CertMode(value)
    except ValueError:
        choice = ", ".join(f'"{mode.value}"' for mode in CertMode)
        raise ConfigError(f"{name} must be one of {choice}") from None


def _tls(name: str, value: Any) -> TlsConfig:
    table = _Table(name, value)
    mode = table.take("cert_mode", _cert_mode, None)
    if mode is None:
        raise ConfigError(f'{name}.cert_mode is missing; "Manual" reads the certificate from files')
    # These steer upstream's ACME client; they are looked at and have no effect.
    for key, read in (("hostname", _names), ("contact", _text), ("prod_tls", _bool)):
        table.take(key, read, None)
    config = TlsConfig(
        mode,
        https_bind_addr=table.take("https_bind_addr", _address, None),
        quic_bind_addr=table.take("quic_bind_addr", _address, None),
        cert_dir=table.take("cert_dir", _path, Path()),
        manual_cert_path=table.take("manual_cert_path", _path, None),
        manual_key_path=table.take("manual_key_path", _path, None),
        dangerous_http_only=table.take("dangerous_http_only", _bool, False),
    )
    table.end()
    return config


def _limits(name: str, value: Any) -> dict[str, Any]:
    table = _Table(name, value)
    per_second = table.take("accept_conn_limit", _number, None)
    burst = table.take("accept_conn_burst", _positive, None)
    rate = table.take("client", _client_limits, None)
    table.end()
    if burst is not None and per_second is None:
        raise ConfigError(f"{name}.accept_conn_burst needs {name}.accept_conn_limit")
    accept = None if per_second is None else AcceptLimit(per_second, burst)
    return {"rate": rate, "accept": accept}


def _client_limits(name: str, value: Any) -> RateLimit | None:
    table = _Table(name, value)
    limit: RateLimit | None = table.take("rx", _rate, None)
    table.end()
    return limit


def _rate(name: str, value: Any) -> RateLimit | None:
    table = _Table(name, value)
    rate = table.take("bytes_per_second", _positive, None)
    burst = table.take("max_burst_bytes", _positive, None)
    table.end()
    if rate is None:
        if burst is not None:
            raise ConfigError(f"{name}.max_burst_bytes needs {name}.bytes_per_second")
        return None
    try:
        return RateLimit(rate, burst)
    except ValueError as error:
        raise ConfigError(f"{name}.{error}; leave it out to have no limit") from None


def _access(name: str, value: Any) -> Rule:
    if value == "everyone":
        return Everyone()
    kinds: dict[str, Callable[[str, Any], Rule]] = {
        "allowlist": lambda name, value: AllowList(_ids(name, value)),
        "denylist": lambda name, value: DenyList(_ids(name, value)),
        "http": _ask_by_http,
        "shared_token": lambda name, value: SharedToken(_texts(name, value)),
    }
    if not isinstance(value, dict) or len(value) != 1 or not kinds.keys() >= value.keys():
        raise ConfigError(f'{name} must be "everyone" or have one of the keys {", ".join(kinds)}')
    [(kind, content)] = value.items()
    return kinds[kind](f"{name}.{kind}", content)


def _ids(name: str, value: Any) -> frozenset[EndpointId]:
    return frozenset(_each_id(name, _texts(name, value)))


def _each_id(name: str, texts: Iterable[str]) -> Iterable[EndpointId]:
    for text in texts:
        try:
            yield EndpointId.parse(text)
        except KeyParsingError as error:
            raise ConfigError(f"{name}: {text!r}: {error}") from None


def _ask_by_http(name: str, value: Any) -> AskByHttp:
    table = _Table(name, value)
    url = table.take("url", _url, None)
    if url is None:
        raise ConfigError(f"{name}.url is missing")
    rule = AskByHttp(url, table.take("bearer_token", _header_value, None))
    table.end()
    return rule


def _url(name: str, value: Any) -> str:
    url = _text(name, value)
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ConfigError(f"{name} must be an absolute URL of HTTP or HTTPS")
    return url


def _header_value(name: str, value: Any) -> str:
    text = _text(name, value)
    if not (text.isascii() and text.isprintable()):
        raise ConfigError(f"{name} must be printable ASCII")
    return text
