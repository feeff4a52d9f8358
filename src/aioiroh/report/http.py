"""One request to a relay over HTTP/1.1, of which only the head of the answer matters."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import cast

from aioiroh import _native
from aioiroh.errors import DecodeError
from aioiroh.net import TcpDialler, http

__all__ = ["HttpError", "ask"]


class HttpError(Exception):
    """The server does not speak as expected, or not at all."""


async def ask(
    dialler: TcpDialler,
    address: tuple[str, int],
    target: str,
    *,
    host: str,
    headers: Mapping[str, str] | None = None,
    tls: _native.TlsStream | None = None,
) -> http.Head:
    """GET `target` from the server at `address` (a name or IP address, and a port).

    `host` is what the server is called in the request. Raises HttpError, OSError.
    """
    request = http.request("GET", target, host, {"Connection": "close", **(headers or {})})
    exchange = await dialler.connect(
        lambda: _Exchange(request, tls), *address, encrypted=tls is not None
    )
    try:
        return await exchange.answer
    finally:
        exchange.abort()


class _Exchange(asyncio.Protocol):
    """Sends the request and takes the head of the answer."""

    def __init__(self, request: bytes, tls: _native.TlsStream | None) -> None:
        self.answer: asyncio.Future[http.Head] = asyncio.get_running_loop().create_future()
        self._request = request
        self._tls = tls
        self._head = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses.
        self._transport = cast("asyncio.Transport", transport)
        if self._tls is None:
            self._transport.write(self._request)
        else:
            self._tls.write(self._request)
            self._transport.write(self._tls.take())

    def data_received(self, data: bytes) -> None:
        if self.answer.done():
            return
        try:
            self._head += data if self._tls is None else self._decrypted(self._tls, data)
            found = http.read_head(self._head)
            if found is not None:
                self.answer.set_result(found[0])
        except (DecodeError, HttpError) as error:
            self._fail(HttpError(str(error)))

    def _decrypted(self, tls: _native.TlsStream, data: bytes) -> bytes:
        try:
            clear = tls.feed(data)
        except ValueError as error:
            raise HttpError(str(error)) from None
        finally:
            # Also what tells the server why this end gives up.
            assert self._transport is not None
            if outgoing := tls.take():
                self._transport.write(outgoing)
        return clear

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(HttpError(f"the connection broke: {error}" if error else "there was no answer"))

    def _fail(self, error: HttpError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def abort(self) -> None:
        """Nothing more is wanted."""
        if self._transport is not None:
            self._transport.abort()
        if self.answer.done() and not self.answer.cancelled():
            self.answer.exception()
