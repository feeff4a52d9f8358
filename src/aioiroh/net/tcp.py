"""TCP connections to servers, through a proxy where one is to be used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar, cast

from aioiroh import _native
from aioiroh.net.port import Network
from aioiroh.net.proxy import Proxies, Proxy
from aioiroh.net.tunnel import Negotiation, RefusedError, negotiate

__all__ = ["TcpDialler"]

P = TypeVar("P", bound=asyncio.Protocol)


class TcpDialler:
    """Connects on `network`. `tls`: how encrypted proxies are judged; None: they cannot be used."""

    def __init__(
        self,
        network: Network,
        proxies: Proxies | None = None,
        tls: _native.RelayTls | None = None,
    ) -> None:
        self.network = network
        self._proxies = proxies or Proxies()
        self._tls = tls

    async def connect(
        self, protocol_factory: Callable[[], P], host: str, port: int, *, encrypted: bool
    ) -> P:
        """As `Network.connect_tcp`; `encrypted`: TLS will be spoken with the host. The caller limits the time.

        Raises OSError.
        """
        proxy = self._proxies.choose(host, port, encrypted=encrypted)
        if proxy is None:
            return await self.network.connect_tcp(protocol_factory, host, port)
        try:
            negotiation = negotiate(proxy, host, port)
            tls = self._encryption(proxy)
            tunnel = await self.network.connect_tcp(
                lambda: _Tunnel(protocol_factory, negotiation, tls), proxy.host, proxy.port
            )
            try:
                return cast("P", await tunnel.inner)
            except BaseException:
                tunnel.abort()
                raise
        except RefusedError as error:
            raise RefusedError(f"the {proxy} refuses: {error}") from None
        except OSError as error:
            raise OSError(f"the {proxy}: {error}") from error

    def _encryption(self, proxy: Proxy) -> _native.TlsStream | None:
        if proxy.kind != "https":
            return None
        if self._tls is None:
            # In clear everybody could read the password.
            raise RefusedError("there are no certificates to judge it by")
        try:
            return _native.TlsStream(self._tls, proxy.host)
        except ValueError as error:
            raise RefusedError(str(error)) from error


class _Tunnel(asyncio.Protocol):
    """Talks to the proxy; from its consent on it hands everything to the protocol of the connection."""

    def __init__(
        self,
        protocol_factory: Callable[[], asyncio.Protocol],
        negotiation: Negotiation,
        encryption: _native.TlsStream | None,
    ) -> None:
        self._make = protocol_factory
        self._negotiation = negotiation
        self._encryption = encryption
        self._transport: asyncio.Transport | None = None
        self._protocol: asyncio.Protocol | None = None
        self.inner: asyncio.Future[asyncio.Protocol] = asyncio.get_running_loop().create_future()

    def abort(self) -> None:
        """Nobody waits for the connection any more."""
        if self.inner.done() and not self.inner.cancelled():
            self.inner.exception()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send(self._negotiation.greeting)

    def _send(self, data: bytes) -> None:
        assert self._transport is not None
        if self._encryption is not None:
            if data:
                self._encryption.write(data)
            data = self._encryption.take()
        if data:
            self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        try:
            if self._encryption is not None:
                data = self._decrypted(self._encryption, data)
            if self._protocol is None and data:
                self._send(self._negotiation.feed(data))
                data = b""
                if self._negotiation.done:
                    self._begin()
                    data = self._negotiation.rest
        except OSError as error:
            self._fail(error)
            return
        if self._protocol is not None and data:
            self._protocol.data_received(data)

    def _decrypted(self, encryption: _native.TlsStream, data: bytes) -> bytes:
        try:
            return encryption.feed(data)
        except ValueError as error:
            raise RefusedError(str(error)) from None
        finally:
            self._send(b"")

    def _begin(self) -> None:
        assert self._transport is not None
        self._protocol = self._make()
        transport = self._transport
        if self._encryption is not None:
            transport = _Encrypted(self._transport, self._send)
        self._protocol.connection_made(transport)
        if not self.inner.done():
            self.inner.set_result(self._protocol)

    def _fail(self, error: OSError) -> None:
        if not self.inner.done():
            self.inner.set_exception(error)
        if self._transport is not None:
            self._transport.abort()

    def pause_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.resume_writing()

    def eof_received(self) -> bool | None:
        return None if self._protocol is None else self._protocol.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        if self._protocol is not None:
            self._protocol.connection_lost(error)
        elif not self.inner.done():
            self.inner.set_exception(RefusedError("it closed the connection"))


class _Encrypted(asyncio.Transport):
    """The transport of a connection inside an encrypted one to the proxy."""

    def __init__(self, outer: asyncio.Transport, send: Callable[[bytes], None]) -> None:
        super().__init__()
        self._outer = outer
        self._send = send

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self._send(bytes(data))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._outer.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self._outer.is_closing()

    def close(self) -> None:
        self._outer.close()

    def abort(self) -> None:
        self._outer.abort()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._outer.set_write_buffer_limits(high, low)

    def pause_reading(self) -> None:
        self._outer.pause_reading()

    def resume_reading(self) -> None:
        self._outer.resume_reading()
