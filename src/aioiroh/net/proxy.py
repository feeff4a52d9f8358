"""Which proxy is used for what: from options, or from the environment as other programs read it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Final, Self
from urllib.parse import unquote, urlsplit

__all__ = ["Proxies", "Proxy"]

_PORTS: Final = {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy server. `kind`: `http` (CONNECT), `https` (the same, encrypted) or `socks5`.

    Names of hosts are given to the proxy, which looks them up.
    """

    kind: str
    host: str
    port: int
    user: str | None = None
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, url: str) -> Self:
        """From a URL like `http://user:password@proxy.example:3128`. ValueError: it is none."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError(
                "a proxy is given as http://, https:// or socks5:// with host and port, "
                "and user:password@ before the host if it wants them"
            )
        return cls(
            "socks5" if parts.scheme == "socks5h" else parts.scheme,
            parts.hostname,
            parts.port or _PORTS[parts.scheme],
            None if parts.username is None else unquote(parts.username),
            unquote(parts.password or ""),
        )

    def __str__(self) -> str:
        return f"{self.kind} proxy {self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies for encrypted and for plain connections, and the hosts that are reached without one."""

    encrypted: Proxy | None = None
    plain: Proxy | None = None
    exceptions: tuple[str, ...] = ()

    @classmethod
    def all(cls, url: str) -> Self:
        """One proxy for everything. ValueError: no such URL."""
        proxy = Proxy.parse(url)
        return cls(proxy, proxy)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, the names in small letters first.

        In a CGI program (`REQUEST_METHOD` is set) a client chooses what `HTTP_PROXY` is, so it does not count. What
        cannot be read is taken as not given.
        """
        environ = os.environ if environment is None else environment
        either = _read(environ, "all_proxy", "ALL_PROXY")
        plain = ("http_proxy",) if "REQUEST_METHOD" in environ else ("http_proxy", "HTTP_PROXY")
        without = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
        return cls(
            _read(environ, "https_proxy", "HTTPS_PROXY") or either,
            _read(environ, *plain) or either,
            tuple(without.replace(",", " ").split()),
        )

    def choose(self, host: str, port: int, *, encrypted: bool) -> Proxy | None:
        """The proxy for a connection to this host; None: none."""
        proxy = self.encrypted if encrypted else self.plain
        if proxy is None or any(_matches(each, host, port) for each in self.exceptions):
            return None
        return proxy


def _read(environ: Mapping[str, str], *names: str) -> Proxy | None:
    for name in names:
        try:
            if environ.get(name):
                return Proxy.parse(environ[name])
        except ValueError:
            continue
    return None


def _matches(exception: str, host: str, port: int) -> bool:
    """Whether a part of NO_PROXY names this host: `*`, a name and all below it, an address, a network."""
    name, _, number = exception.rpartition(":")
    if name and number.isdecimal() and not _is_ip(exception):
        if int(number) != port:
            return False
        exception = name
    exception = exception.lower().strip("[]")
    host = host.lower().rstrip(".")
    if exception == "*":
        return True
    if _is_ip(host):
        try:
            return ip_address(host) in ip_network(exception, strict=False)
        except ValueError:
            return False
    suffix = exception.lstrip("*").lstrip(".").rstrip(".")
    return bool(suffix) and (host == suffix or host.endswith(f".{suffix}"))


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
