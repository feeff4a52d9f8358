"""Upstream's Python package, held by strings: the requests of `iroh-peer` that the package can carry out.

Runs in a process of its own. Each line on stdin is a request `{"id": N, "do": NAME, …}`, each line on stdout
an answer, as `tests/interop/peer/src/main.rs` describes. It has no blobs, no 0-RTT and no transport options.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import iroh

Request = dict[str, Any]
Answer = dict[str, Any]

CYCLE = bytes(range(251))
CHUNK = 1 << 20


class Refused(Exception):
    """A request that makes no sense."""


def pattern(length: int, start: int = 0) -> bytes:
    """`length` bytes of the test pattern: byte `i` is `i mod 251`."""
    skip = start % 251
    return (CYCLE * ((skip + length) // 251 + 1))[skip : skip + length]


def payload(request: Request) -> bytes:
    if "pattern" in request:
        return pattern(request["pattern"])
    if "text" in request:
        return str(request["text"]).encode()
    return bytes.fromhex(request["hex"])


def describe(text: str) -> Answer:
    """Upstream's words, of which there are several kinds, and the code in them."""
    alert = re.search(r"handshake failed: error (\d+)", text)
    alert_in_hex = re.search(r"Code::crypto\(([0-9a-f]+)\)", text)
    found = re.search(
        r"\(code (\d+)\)|error (\d+)|closed by peer: (\d+)|error_code: (\d+)|(?:Reset|Stopped)\((\d+)\)",
        text,
    )
    code = next((int(group) for group in found.groups() if group), None) if found else None
    if alert:
        code = 0x100 + int(alert[1])
    elif alert_in_hex:
        code = 0x100 + int(alert_in_hex[1], 16)
    elif "refused to accept a new connection" in text:
        code = 0x02
    return {"kind": "wheel", "code": code, "text": text}


class Peer:
    def __init__(self) -> None:
        self.numbers = itertools.count(1)
        self.conns: dict[int, iroh.Connection] = {}
        self.sends: dict[int, iroh.SendStream] = {}
        self.recvs: dict[int, iroh.RecvStream] = {}
        self.arrivals: asyncio.Queue[iroh.Connection] = asyncio.Queue()
        self.roles: dict[bytes, str] = {}
        self.door = "accept"
        self.tasks: set[asyncio.Task[Any]] = set()
        self.endpoint: iroh.Endpoint | None = None
        self.failed: list[Answer] = []

    def spawn(self, coro: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(coro)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # The endpoint.

    async def do_bind(self, request: Request) -> Answer:
        self.roles = {alpn.encode(): role for alpn, role in request.get("alpns", {}).items()}
        if len(request["addrs"]) != 1:
            raise Refused("upstream's package binds one address")
        secret, relay = request.get("secret"), request.get("relay")
        options = iroh.EndpointOptions(
            preset=iroh.preset_minimal(),
            relay_mode=(
                iroh.RelayMode.custom_from_urls([relay]) if relay else iroh.RelayMode.disabled()
            ),
            bind_addr=request["addrs"][0],
            secret_key=bytes.fromhex(secret) if secret else None,
            alpns=list(self.roles),
        )
        self.endpoint = await iroh.Endpoint.bind(options)
        self.spawn(self.accept_all())
        if relay:
            await self.endpoint.online()
        # The package binds an IPv6 socket beside the address it is told.
        host = request["addrs"][0].rpartition(":")[0]
        addrs = [a for a in self.endpoint.bound_sockets() if a.rpartition(":")[0] == host]
        return {"peer": self.endpoint.id().to_bytes().hex(), "addrs": addrs}

    async def accept_all(self) -> None:
        assert self.endpoint is not None
        while (incoming := await self.endpoint.accept_next()) is not None:
            self.spawn(self.admit(incoming))

    async def admit(self, incoming: iroh.Incoming) -> None:
        if self.door == "refuse":
            return await incoming.refuse()
        if self.door == "ignore":
            return await incoming.ignore()
        if self.door == "retry" and not await incoming.remote_addr_validated():
            return await incoming.retry()
        try:
            connection = await (await incoming.accept()).connect()
        except iroh.IrohError as error:
            self.failed.append(describe(error.message()))
            return None
        role = self.roles.get(connection.alpn(), "queue")
        if role == "queue":
            self.arrivals.put_nowait(connection)
        elif role == "echo":
            await asyncio.gather(
                *(loop(connection) for loop in (echo_bi, echo_uni, echo_datagrams))
            )
        elif role == "bench":
            await serve_bench(connection)
        return None

    async def do_door(self, request: Request) -> Answer:
        self.door = request["mode"]
        return {}

    async def do_failed_handshakes(self, _request: Request) -> Answer:
        return {"failed": self.failed}

    async def do_shut_down(self, _request: Request) -> Answer:
        await self.shut_down()
        return {}

    async def shut_down(self) -> None:
        if self.endpoint is not None:
            endpoint, self.endpoint = self.endpoint, None
            await asyncio.wait_for(endpoint.close(), 2)

    # Connections.

    def keep(self, connection: iroh.Connection) -> Answer:
        number = next(self.numbers)
        self.conns[number] = connection
        peer = connection.remote_id().to_bytes().hex()
        return {"conn": number, "peer": peer, "alpn": connection.alpn().decode()}

    def address(self, request: Request) -> iroh.EndpointAddr:
        peer = iroh.EndpointId.from_bytes(bytes.fromhex(request["peer"]))
        return iroh.EndpointAddr(peer, request.get("relay"), request["addrs"])

    async def dial(self, request: Request) -> iroh.Connection:
        if self.endpoint is None:
            raise Refused("the first request must be bind")
        return await self.endpoint.connect(self.address(request), request["alpn"].encode())

    async def do_connect(self, request: Request) -> Answer:
        return self.keep(await self.dial(request))

    async def do_accept(self, _request: Request) -> Answer:
        return self.keep(await self.arrivals.get())

    async def do_close(self, request: Request) -> Answer:
        reason = request.get("reason", "").encode()
        self.conns[request["conn"]].close(request.get("code", 0), reason)
        return {}

    async def do_closed(self, request: Request) -> Answer:
        return describe(await self.conns[request["conn"]].closed())

    async def do_info(self, request: Request) -> Answer:
        connection = self.conns[request["conn"]]
        return {
            "max_datagram_size": connection.max_datagram_size(),
            "datagram_send_buffer_space": connection.datagram_send_buffer_space(),
            "close_reason": connection.close_reason(),
        }

    async def do_send_datagram(self, request: Request) -> Answer:
        connection = self.conns[request["conn"]]
        if request.get("wait"):
            await connection.send_datagram_wait(payload(request))
        else:
            connection.send_datagram(payload(request))
        return {}

    async def do_read_datagram(self, request: Request) -> Answer:
        return {"hex": (await self.conns[request["conn"]].read_datagram()).hex()}

    # Streams.

    def keep_stream(self, send: iroh.SendStream | None, recv: iroh.RecvStream | None) -> Answer:
        number = next(self.numbers)
        if send is not None:
            self.sends[number] = send
        if recv is not None:
            self.recvs[number] = recv
        return {"stream": number}

    async def do_open(self, request: Request) -> Answer:
        connection = self.conns[request["conn"]]
        if request.get("uni"):
            return self.keep_stream(await connection.open_uni(), None)
        stream = await connection.open_bi()
        return self.keep_stream(stream.send(), stream.recv())

    async def do_accept_stream(self, request: Request) -> Answer:
        connection = self.conns[request["conn"]]
        if request.get("uni"):
            return self.keep_stream(None, await connection.accept_uni())
        stream = await connection.accept_bi()
        return self.keep_stream(stream.send(), stream.recv())

    async def do_write(self, request: Request) -> Answer:
        stream = self.sends[request["stream"]]
        data = payload(request)
        chunk = request.get("chunk", CHUNK)
        for start in range(0, len(data), chunk):
            await stream.write_all(data[start : start + chunk])
        if request.get("finish"):
            await stream.finish()
        return {}

    async def do_finish(self, request: Request) -> Answer:
        await self.sends[request["stream"]].finish()
        return {}

    async def do_reset(self, request: Request) -> Answer:
        await self.sends[request["stream"]].reset(request.get("code", 0))
        return {}

    async def do_stopped(self, request: Request) -> Answer:
        return {"code": await self.sends[request["stream"]].stopped()}

    async def do_priority(self, request: Request) -> Answer:
        await self.sends[request["stream"]].set_priority(request["priority"])
        return {}

    async def do_read(self, request: Request) -> Answer:
        data = await self.recvs[request["stream"]].read(request.get("max", 65536))
        return {"hex": data.hex(), "end": not data}

    async def do_read_all(self, request: Request) -> Answer:
        stream, head = self.recvs[request["stream"]], b""
        total, follows = 0, True
        while data := await stream.read(CHUNK):
            follows = follows and data == pattern(len(data), total)
            total += len(data)
            head = head + data if total <= 65536 else head
        hex_data = head.hex() if total <= 65536 else None
        return {"length": total, "pattern": follows, "hex": hex_data}

    async def do_stop(self, request: Request) -> Answer:
        await self.recvs[request["stream"]].stop(request.get("code", 0))
        return {}

    async def do_received_reset(self, request: Request) -> Answer:
        return {"code": await self.recvs[request["stream"]].received_reset()}

    # Loops to measure.

    async def do_bench_bulk(self, request: Request) -> Answer:
        connection, length = self.conns[request["conn"]], request["bytes"]
        started = time.perf_counter()
        stream = await connection.open_bi()
        send, recv = stream.send(), stream.recv()
        if request.get("down"):
            await send.write_all(b"P" + length.to_bytes(8, "little"))
            await send.finish()
            moved = await drain(recv)
        else:
            await send.write_all(b"S")
            await pump(send, length)
            await send.finish()
            moved = int.from_bytes(await recv.read_exact(8), "little")
        return {"seconds": time.perf_counter() - started, "bytes": moved}

    async def do_bench_requests(self, request: Request) -> Answer:
        connection, count = self.conns[request["conn"]], request["count"]
        data = b"E" + bytes(request.get("size", 64))
        times: list[float] = []

        async def one() -> None:
            started = time.perf_counter()
            stream = await connection.open_bi()
            send = stream.send()
            await send.write_all(data)
            await send.finish()
            if await stream.recv().read_to_end(1 << 16) != data[1:]:
                raise Refused("a wrong answer")
            times.append((time.perf_counter() - started) * 1e6)

        seconds = await spread(count, request.get("in_flight", 1), one)
        times.sort()
        last = len(times) - 1
        return {"seconds": seconds, "p50": times[last // 2], "p99": times[int(last * 0.99)]}

    async def do_bench_connects(self, request: Request) -> Answer:
        kept: list[int] = []

        async def one() -> None:
            connection = await self.dial(request)
            if request.get("keep"):
                kept.append(self.keep(connection)["conn"])
            else:
                connection.close(0, b"")

        seconds = await spread(request["count"], request.get("in_flight", 1), one)
        return {"seconds": seconds, "conns": kept}


async def spread(count: int, in_flight: int, one: Callable[[], Awaitable[None]]) -> float:
    """Runs `one` `count` times, `in_flight` at a time; gives the seconds it took."""

    async def work(share: int) -> None:
        for _ in range(share):
            await one()

    started = time.perf_counter()
    shares = [count // in_flight + (worker < count % in_flight) for worker in range(in_flight)]
    await asyncio.gather(*map(work, shares))
    return time.perf_counter() - started


async def drain(recv: iroh.RecvStream) -> int:
    total = 0
    while data := await recv.read(CHUNK):
        total += len(data)
    return total


async def pump(send: iroh.SendStream, length: int) -> None:
    chunk = bytes(CHUNK)
    for start in range(0, length, CHUNK):
        await send.write_all(chunk[: length - start])


async def serve_bench(connection: iroh.Connection) -> None:
    async def serve_stream(stream: iroh.BiStream) -> None:
        send, recv = stream.send(), stream.recv()
        kind = await recv.read_exact(1)
        if kind == b"S":
            await send.write_all((await drain(recv)).to_bytes(8, "little"))
        elif kind == b"P":
            await pump(send, int.from_bytes(await recv.read_exact(8), "little"))
        else:
            await send.write_all(await recv.read_to_end(1 << 16))
        await send.finish()

    tasks: set[asyncio.Task[None]] = set()
    try:
        while True:
            task = asyncio.ensure_future(serve_stream(await connection.accept_bi()))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    except iroh.IrohError:
        return


async def copy(recv: iroh.RecvStream, send: iroh.SendStream) -> None:
    try:
        while data := await recv.read(65536):
            await send.write_all(data)
        await send.finish()
    except iroh.IrohError as error:
        code = describe(error.message())["code"] or 0
        for ending in (send.reset, recv.stop):
            try:
                await ending(code)
            except iroh.IrohError:
                continue


async def echo_bi(connection: iroh.Connection) -> None:
    tasks: set[asyncio.Task[None]] = set()
    try:
        while True:
            stream = await connection.accept_bi()
            task = asyncio.ensure_future(copy(stream.recv(), stream.send()))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    except iroh.IrohError:
        return


async def echo_uni(connection: iroh.Connection) -> None:
    tasks: set[asyncio.Task[None]] = set()
    try:
        while True:
            recv = await connection.accept_uni()
            task = asyncio.ensure_future(copy(recv, await connection.open_uni()))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    except iroh.IrohError:
        return


async def echo_datagrams(connection: iroh.Connection) -> None:
    try:
        while True:
            connection.send_datagram(await connection.read_datagram())
    except iroh.IrohError:
        return


async def answer(peer: Peer, request: Request) -> None:
    action = getattr(peer, f"do_{request['do']}", None)
    outcome: Answer
    try:
        if action is None:
            raise Refused(f"unknown action {request['do']}")
        outcome = {"ok": await action(request)}
    except iroh.IrohError as error:
        outcome = {"error": describe(error.message())}
    except Exception as error:  # noqa: BLE001 -- a wrong request must not end the peer
        outcome = {"error": {"kind": "request", "text": repr(error)}}
    print(json.dumps({"id": request["id"], **outcome}), flush=True)


async def main() -> None:
    peer = Peer()
    reader = asyncio.StreamReader(limit=1 << 24)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    while line := await reader.readline():
        peer.spawn(answer(peer, json.loads(line)))
    await peer.shut_down()


if __name__ == "__main__":
    asyncio.run(main())
