"""What is said to a proxy before it carries a connection: HTTP CONNECT (RFC 9110, 9.3.6) and SOCKS5 (RFC 1928, 1929).

No I/O: `greeting` is sent first, and what `feed` gives after that; `rest` is what came after the proxy's consent.
"""

from __future__ import annotations

import base64
from ipaddress import IPv4Address, ip_address
from typing import Final, Protocol

from aioiroh.errors import DecodeError
from aioiroh.net import http
from aioiroh.net.proxy import Proxy

__all__ = ["Negotiation", "RefusedError", "negotiate"]

_REFUSALS: Final = {
    1: "it has failed",
    2: "its rules forbid that",
    3: "the network is unreachable",
    4: "the host is unreachable",
    5: "the host refuses",
    6: "the time is up",
    7: "it does not carry connections",
    8: "it does not know such addresses",
}


class RefusedError(ConnectionError):
    """The proxy does not carry the connection; the text says why."""


class Negotiation(Protocol):
    """The talk with a proxy. `done`: from now on the bytes are those of the connection."""

    greeting: bytes
    done: bool
    rest: bytes

    def feed(self, data: bytes) -> bytes:
        """Bytes from the proxy; gives the answer to them. Raises RefusedError."""


def negotiate(proxy: Proxy, host: str, port: int) -> Negotiation:
    """How to ask the proxy for a connection. Raises RefusedError: it cannot be asked for that."""
    if proxy.kind == "socks5":
        return _Socks(proxy, host, port)
    return _Connect(proxy, host, port)


class _Connect:
    def __init__(self, proxy: Proxy, host: str, port: int) -> None:
        where = f"[{_ascii(host)}]:{port}" if ":" in host else f"{_ascii(host)}:{port}"
        fields = {"Proxy-Connection": "Keep-Alive"}
        if proxy.user is not None:
            secret = base64.b64encode(f"{proxy.user}:{proxy.password}".encode()).decode()
            fields["Proxy-Authorization"] = f"Basic {secret}"
        self.greeting = http.request("CONNECT", where, where, fields)
        self.done = False
        self.rest = b""
        self._head = b""

    def feed(self, data: bytes) -> bytes:
        self._head += data
        try:
            found = http.read_head(self._head)
        except DecodeError as error:
            raise RefusedError(str(error)) from None
        if found is None:
            return b""
        head, rest = found
        if not 200 <= head.status < 300:
            hint = "; put user:password@ into its URL" if head.status == 407 else ""
            raise RefusedError(f"{head.status} {head.reason}".strip() + hint)
        self.done, self.rest = True, rest
        return b""


class _Socks:
    def __init__(self, proxy: Proxy, host: str, port: int) -> None:
        self._login = b""
        methods = b"\x00"
        if proxy.user is not None:
            user, password = proxy.user.encode(), proxy.password.encode()
            if not 0 < len(user) < 256 or len(password) > 255:
                raise RefusedError("SOCKS takes at most 255 bytes for user and password")
            self._login = bytes([1, len(user)]) + user + bytes([len(password)]) + password
            methods = b"\x00\x02"
        self._request = b"\x05\x01\x00" + _socks_address(host) + port.to_bytes(2, "big")
        self.greeting = bytes([5, len(methods)]) + methods
        self.done = False
        self.rest = b""
        self._buffer = b""
        self._step = self._method

    def feed(self, data: bytes) -> bytes:
        self._buffer += data
        answer = b""
        while not self.done:
            said = self._step()
            if said is None:
                break
            answer += said
        return answer

    def _take(self, size: int) -> bytes | None:
        if len(self._buffer) < size:
            return None
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _method(self) -> bytes | None:
        taken = self._take(2)
        if taken is None:
            return None
        if taken == b"\x05\x00":
            self._step = self._reply
            return self._request
        if taken == b"\x05\x02" and self._login:
            self._step = self._logged_in
            return self._login
        if taken == b"\x05\xff" or taken == b"\x05\x02":
            raise RefusedError("it wants another login; put user:password@ into its URL")
        raise RefusedError("its answer is not SOCKS5")

    def _logged_in(self) -> bytes | None:
        taken = self._take(2)
        if taken is None:
            return None
        if taken[1]:
            raise RefusedError("user or password are wrong")
        self._step = self._reply
        return self._request

    def _reply(self) -> bytes | None:
        if len(self._buffer) < 5:
            return None
        version, code, _, kind, first = self._buffer[:5]
        if version != 5:
            raise RefusedError("its answer is not SOCKS5")
        if code:
            raise RefusedError(_REFUSALS.get(code, f"error {code}"))
        sizes = {1: 4, 3: 1 + first, 4: 16}
        if kind not in sizes:
            raise RefusedError("its answer is not SOCKS5")
        if self._take(4 + sizes[kind] + 2) is None:
            return None
        self.done, self.rest = True, self._buffer
        return b""


def _socks_address(host: str) -> bytes:
    try:
        ip = ip_address(host)
    except ValueError:
        name = _ascii(host).encode()
        return bytes([3, len(name)]) + name
    return (b"\x01" if isinstance(ip, IPv4Address) else b"\x04") + ip.packed


def _ascii(host: str) -> str:
    try:
        name = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        name = ""
    if not 0 < len(name) < 256 or any(not "!" <= letter <= "~" for letter in name):
        raise RefusedError("it cannot be asked for such a name")
    return name
