"""One request to a relay over HTTP/1.1, of which only the head of the answer matters."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from aioiroh import _native
from aioiroh.net import TcpDialler

__all__ = ["Answer", "HttpError", "ask", "read_head"]

MAX_HEAD: Final = 16 * 1024
"""Bytes of the answer's head."""


class HttpError(Exception):
    """The server does not speak as expected, or not at all."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The status, and the header fields by their names in lower case."""

    status: int
    headers: Mapping[str, str]


def read_head(head: bytes) -> Answer:
    """The head of an answer, up to the empty line. HttpError: it is none."""
    first, *lines = head.decode("latin-1").split("\r\n")
    status = re.fullmatch(r"HTTP/1\.[01] (\d{3})(?: .*)?", first)
    if status is None:
        raise HttpError("the answer is not HTTP")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise HttpError("the answer has a malformed header")
        headers[name.lower()] = value.strip(" \t")
    return Answer(int(status[1]), headers)


async def ask(
    dialler: TcpDialler,
    address: tuple[str, int],
    target: str,
    *,
    host: str,
    headers: Mapping[str, str] | None = None,
    tls: _native.TlsStream | None = None,
) -> Answer:
    """GET `target` from the server at `address` (a name or IP address, and a port).

    `host` is what the server is called in the request. Raises HttpError, OSError.
    """
    fields = {"host": host, "connection": "close", **(headers or {})}
    lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    request = "\r\n".join([*lines, "", ""]).encode("latin-1")
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
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
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
            head, end, _ = self._head.partition(b"\r\n\r\n")
            if end:
                self.answer.set_result(read_head(head))
            elif len(self._head) > MAX_HEAD:
                raise HttpError("the head of the answer is too long")
        except HttpError as error:
            self._fail(error)

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
