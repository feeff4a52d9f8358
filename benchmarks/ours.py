"""Our end of a measurement: `python -m benchmarks.ours [--uvloop]`, JSON lines on stdin and stdout.

A stream of the bench protocol starts with one byte: `S` the server reads everything and answers with the
number of bytes (u64, little endian); `P` and a number: the server sends that many bytes; anything else: the
server sends back what follows.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from typing import Any

import aioiroh
from aioiroh import BiStream, Connection, Endpoint, EndpointAddr, EndpointId, IpAddr, Router
from aioiroh.blobs import Provider
from benchmarks.our_blobs import OurBlobs, Request, spread

CHUNK = 1 << 20


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


class Gaps:
    """How long the event loop did not come round, sampled while something else works."""

    def __init__(self) -> None:
        self.gaps: list[float] = []

    async def watch(self) -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            self.gaps.append(now - last)
            last = now

    def p99(self) -> float:
        return sorted(self.gaps)[int(len(self.gaps) * 0.99)] if self.gaps else 0.0


class Ours(OurBlobs):
    """One endpoint and what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.router: Router | None = None
        self._watching: tuple[Gaps, asyncio.Task[None]] | None = None

    async def do_bind(self, request: Request) -> dict[str, Any]:
        host, _, port = request["addrs"][0].rpartition(":")
        self.endpoint = await Endpoint.bind(
            bind=[(host, int(port))], busy_poll=0.0001 if "--busy-poll" in sys.argv else 0.0
        )
        handlers: dict[bytes, Any] = {}
        for alpn, role in request["alpns"].items():
            if role == "blobs":
                assert self.store is not None
                handlers[alpn.encode()] = Provider(self.store)
            else:
                handlers[alpn.encode()] = serve
        if handlers:
            self.router = await Router(self.endpoint, handlers).__aenter__()
        slot = self.endpoint.bound_sockets[0]
        return {"peer": bytes(self.endpoint.id).hex(), "addrs": [f"{slot.host}:{slot.port}"]}

    def target(self, request: Request) -> EndpointAddr:
        addresses = []
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
        async with connection.open_bi() as stream:
            if request.get("down"):
                await stream.write(b"P" + length.to_bytes(8, "little"))
                await stream.finish()
                moved = 0
                while data := await stream.read(CHUNK):
                    moved += len(data)
            else:
                await stream.write(b"S")
                await pump(stream, length)
                await stream.finish()
                moved = int.from_bytes(await stream.recv.read_exactly(8), "little")
        return {"seconds": time.perf_counter() - started, "bytes": moved}

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

    async def do_step_times(self, _request: Request) -> dict[str, Any]:
        """How often a native step took less than 2**n microseconds, since the last time."""
        assert self.endpoint is not None
        return {"classes": self.endpoint._driver.engine.stats()["step_micros"]}

    async def do_watch_gaps(self, _request: Request) -> dict[str, Any]:
        """From now until `gaps` the loop's gaps are sampled, which costs speed."""
        gaps = Gaps()
        self._watching = gaps, asyncio.ensure_future(gaps.watch())
        return {}

    async def do_gaps(self, _request: Request) -> dict[str, Any]:
        assert self._watching is not None
        gaps, watching = self._watching
        watching.cancel()
        return {"p99": gaps.p99()}

    async def do_collect(self, _request: Request) -> dict[str, Any]:
        gc.collect()
        return {}


async def main() -> None:
    ours = Ours()
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        request = json.loads(line)
        try:
            answer = {"ok": await getattr(ours, "do_" + request["do"])(request)}
        except (aioiroh.errors.AioirohError, AttributeError, ValueError, OSError) as error:
            answer = {"error": repr(error)}
        print(json.dumps({"id": request["id"], **answer}), flush=True)


if __name__ == "__main__":
    if "--uvloop" in sys.argv:
        import uvloop

        uvloop.run(main())
    else:
        asyncio.run(main())
