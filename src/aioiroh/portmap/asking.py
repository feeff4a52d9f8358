"""Questions to a router: by UDP datagrams that are repeated, and by HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from aioiroh.aio import Tasks
from aioiroh.errors import DecodeError
from aioiroh.net import Network, http

__all__ = ["Address", "Local", "NoAnswer", "ask", "fetch"]

R = TypeVar("R")

Address = tuple[str, int]

REPEAT_AFTER: Final = (0.0, 0.25, 0.5)
"""Seconds before each time that a question is sent: RFC 6886 section 3.1, cut short."""
WAIT: Final = 1.0
"""Seconds from the first time on; later nobody answers any more."""
HTTP_WAIT: Final = 3.0
"""Seconds for one request and its answer."""


class NoAnswer(Exception):
    """Nobody has answered in time, or nothing can be sent."""


@dataclass(frozen=True, slots=True)
class Local:
    """Where we are in the local network: our IPv4 address and the router's."""

    network: Network = field(compare=False)
    ip: str
    router: str


class _Question(asyncio.DatagramProtocol, Generic[R]):
    """Waits for the first datagram of the router that makes sense."""

    def __init__(self, router: str, read: Callable[[bytes], R | None]) -> None:
        self._router = router
        self._read = read
        self.answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport: asyncio.DatagramTransport = transport

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        if addr[0] != self._router or self.answer.done():
            return
        try:
            answer = self._read(data)
        except DecodeError:
            return
        if answer is not None:
            self.answer.set_result(answer)


async def ask(
    local: Local,
    questions: Iterable[tuple[bytes, Address]],
    read: Callable[[bytes], R | None],
    *,
    wait: float = WAIT,
) -> R:
    """The router's first answer that `read` takes: it gives None, or raises DecodeError, for others.

    The questions are datagrams and where each is sent, all of them several times. Raises NoAnswer.
    """
    questions = tuple(questions)
    try:
        asking = await local.network.open_udp(lambda: _Question(local.router, read), local.ip, 0)
    except OSError as error:
        raise NoAnswer(str(error)) from error
    try:
        async with Tasks("questions") as tasks, asyncio.timeout(wait):
            tasks.spawn(_repeat(asking.transport, questions))
            return await asking.answer
    except TimeoutError:
        raise NoAnswer("no answer") from None
    finally:
        asking.transport.close()


async def _repeat(
    transport: asyncio.DatagramTransport, questions: tuple[tuple[bytes, Address], ...]
) -> None:
    for seconds in REPEAT_AFTER:
        await asyncio.sleep(seconds)
        for data, address in questions:
            with suppress(OSError):  # As good as lost on the way.
                transport.sendto(data, address)


class _Exchange(asyncio.Protocol):
    """Collects an answer of HTTP."""

    def __init__(self) -> None:
        self._data = b""
        self.answer: asyncio.Future[http.Answer] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        self.transport: asyncio.Transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        self._look(ended=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._look(ended=True)

    def _look(self, *, ended: bool) -> None:
        if self.answer.done():
            return
        try:
            answer = http.read(self._data, ended=ended)
        except DecodeError as error:
            self.answer.set_exception(error)
            self.transport.abort()
            return
        if answer is not None:
            self.answer.set_result(answer)


async def fetch(network: Network, address: Address, request: bytes) -> http.Answer:
    """The answer to an HTTP request. Raises NoAnswer, DecodeError."""
    exchange = None
    try:
        async with asyncio.timeout(HTTP_WAIT):
            exchange = await network.connect_tcp(_Exchange, *address)
            exchange.transport.write(request)
            return await exchange.answer
    except OSError as error:  # TimeoutError is one.
        raise NoAnswer(str(error) or "no answer") from None
    finally:
        if exchange is not None:
            exchange.answer.cancel()
            exchange.transport.abort()
