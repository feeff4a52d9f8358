"""Streams and connections as our end of a measurement; the programs are `ours.py` and the lab's.

A stream of the bench protocol starts with one byte: `S` the server reads everything and answers with the
number of bytes (u64, little endian); `P` and a number: the server sends that many bytes; anything else: the
server sends back what follows.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aioiroh
from aioiroh import (
    BiStream,
    Connection,
    Endpoint,
    EndpointAddr,
    EndpointId,
    IpAddr,
    RelayAddr,
    Router,
    TransportAddr,
)
from aioiroh.aio import Tasks

Request = dict[str, Any]
CHUNK = 1 << 20


async def spread(count: int, in_flight: int, one: Callable[[], Awaitable[None]]) -> float:
    """Runs `one` `count` times, `in_flight` at a time; gives the seconds it took."""

    async def work(share: int) -> None:
        for _ in range(share):
            await one()

    started = time.perf_counter()
    shares = [count // in_flight + (worker < count % in_flight) for worker in range(in_flight)]
    await asyncio.gather(*map(work, shares))
    return time.perf_counter() - started


async def serve_stream(stream: BiStream) -> None:
    first = await stream.read(CHUNK)
    match first[:1]:
        case b"S":
            total = len(first) - 1
            while data := await stream.read(CHUNK):
                total += len(data)
            await stream.write(total.to_bytes(8, "little"))
        case b"P":
            head = first[1:] + await stream.recv.read_exactly(9 - len(first))
            await pump(stream, int.from_bytes(head, "little"))
        case _:
            await stream.write(first[1:] + await stream.recv.read_all(limit=CHUNK))


async def pump(stream: BiStream, length: int) -> None:
    chunk = bytes(CHUNK)
    while length > 0:
        await stream.write(chunk if length >= CHUNK else chunk[:length])
        length -= CHUNK


async def serve(connection: Connection) -> None:
    await connection.serve(serve_stream, limit=256)


class OurStreams:
    """One endpoint and what is asked of it."""

    def __init__(self) -> None:
        self.endpoint: Endpoint | None = None
        self.router: Router | None = None
        self.conns: dict[int, Connection] = {}

    def handler(self, _role: str) -> Any:
        """What serves the connections of a protocol with this role."""
        return serve

    async def bind(self, request: Request, **options: Any) -> Endpoint:
        """With what `alpns` asks for."""
        self.endpoint = await Endpoint.bind(**options)
        handlers = {alpn.encode(): self.handler(role) for alpn, role in request["alpns"].items()}
        if handlers:
            self.router = await Router(self.endpoint, handlers).__aenter__()
        return self.endpoint

    def target(self, request: Request) -> EndpointAddr:
        addresses: list[TransportAddr] = []
        if "relay" in request:
            addresses.append(RelayAddr(request["relay"]))
        for address in request["addrs"]:
            host, _, port = address.rpartition(":")
            addresses.append(IpAddr.from_pair((host, int(port))))
        return EndpointAddr(EndpointId(bytes.fromhex(request["peer"])), addresses)

    async def do_connect(self, request: Request) -> dict[str, Any]:
        assert self.endpoint is not None
        number = len(self.conns)
        alpn = request["alpn"].encode()
        self.conns[number] = await self.endpoint.connect(self.target(request), alpn=alpn)
        return {"conn": number}

    async def do_bench_bulk(self, request: Request) -> dict[str, Any]:
        connection, length = self.conns[request["conn"]], request["bytes"]
        started = time.perf_counter()
        stall = 0.0
        async with connection.open_bi() as stream:
            if request.get("down"):
                await stream.write(b"P" + length.to_bytes(8, "little"))
                await stream.finish()
                moved, last = 0, time.perf_counter()
                while data := await stream.read(CHUNK):
                    moved += len(data)
                    now = time.perf_counter()
                    stall, last = max(stall, now - last), now
            else:
                await stream.write(b"S")
                await pump(stream, length)
                await stream.finish()
                moved = int.from_bytes(await stream.recv.read_exactly(8), "little")
        return {"seconds": time.perf_counter() - started, "bytes": moved, "stall": stall}

    async def do_bench_requests(self, request: Request) -> dict[str, Any]:
        connection = self.conns[request["conn"]]
        data = b"E" + bytes(request.get("size", 64))
        times: list[float] = []

        async def one() -> None:
            started = time.perf_counter()
            stream = await connection.open_bi()
            await stream.write(data)
            await stream.finish()
            answer = await stream.recv.read_all(limit=CHUNK)
            if len(answer) != len(data) - 1:
                raise ValueError("a wrong answer")
            times.append((time.perf_counter() - started) * 1e6)

        seconds = await spread(request["count"], request.get("in_flight", 1), one)
        times.sort()
        return {
            "seconds": seconds,
            "p50": times[len(times) // 2],
            "p99": times[int(len(times) * 0.99)],
        }

    async def do_bench_connects(self, request: Request) -> dict[str, Any]:
        endpoint = self.endpoint
        assert endpoint is not None
        target, alpn = self.target(request), request["alpn"].encode()

        async def one() -> None:
            connection = await endpoint.connect(target, alpn=alpn)
            if request.get("keep"):
                self.conns[len(self.conns)] = connection
            else:
                connection.close()

        return {"seconds": await spread(request["count"], request.get("in_flight", 1), one)}


async def answer(ours: OurStreams, request: Request) -> None:
    try:
        answer = {"ok": await getattr(ours, "do_" + request["do"])(request)}
    except (aioiroh.errors.AioirohError, AttributeError, ValueError, OSError) as error:
        answer = {"error": {"kind": type(error).__name__, "text": str(error)}}
    print(json.dumps({"id": request["id"], **answer}), flush=True)


async def main(ours: OurStreams) -> None:
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with Tasks("requests") as tasks:
        while line := await reader.readline():
            tasks.spawn(answer(ours, json.loads(line)))
