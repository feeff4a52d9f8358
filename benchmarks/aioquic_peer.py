"""aioquic's end of a measurement: plain QUIC with X.509, the same bench protocol and JSON lines."""

from __future__ import annotations

import asyncio
import datetime
import json
import ssl
import sys
import time
from typing import Any

from aioquic.asyncio import QuicConnectionProtocol, connect, serve
from aioquic.quic.configuration import QuicConfiguration
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks.our_streams import CHUNK, spread

Request = dict[str, Any]


def certificate() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    start = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(start).not_valid_after(start + datetime.timedelta(days=1))
    return builder.sign(key, hashes.SHA256()), key


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    kind = await reader.readexactly(1)
    if kind == b"P":
        left = int.from_bytes(await reader.readexactly(8), "little")
        while left > 0:
            writer.write(bytes(min(left, CHUNK)))
            left -= CHUNK
    elif kind == b"S":
        writer.write(len(await reader.read()).to_bytes(8, "little"))
    else:
        writer.write(await reader.read())
    writer.write_eof()


class Aioquic:
    def __init__(self) -> None:
        self.conns: dict[int, QuicConnectionProtocol] = {}
        self.open: list[Any] = []

    async def do_bind(self, request: Request) -> dict[str, Any]:
        if not request["alpns"]:
            return {"peer": "", "addrs": []}
        config = QuicConfiguration(is_client=False, alpn_protocols=list(request["alpns"]))
        config.certificate, config.private_key = certificate()
        tasks: set[asyncio.Task[None]] = set()

        def on_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(answer(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await serve("127.0.0.1", 0, configuration=config, stream_handler=on_stream)
        port = server._transport.get_extra_info("sockname")[1]
        return {"peer": "", "addrs": [f"127.0.0.1:{port}"]}

    async def do_connect(self, request: Request) -> dict[str, Any]:
        config = QuicConfiguration(alpn_protocols=[request["alpn"]], verify_mode=ssl.CERT_NONE)
        host, _, port = request["addrs"][0].rpartition(":")
        context = connect(host, int(port), configuration=config)
        self.open.append(context)
        self.conns[len(self.conns)] = await context.__aenter__()
        return {"conn": len(self.conns) - 1}

    async def do_bench_bulk(self, request: Request) -> dict[str, Any]:
        length = request["bytes"]
        started = time.perf_counter()
        reader, writer = await self.conns[request["conn"]].create_stream()
        writer.write(b"P" + length.to_bytes(8, "little"))
        writer.write_eof()
        moved = 0
        while data := await reader.read(CHUNK):
            moved += len(data)
        return {"seconds": time.perf_counter() - started, "bytes": moved}

    async def do_bench_requests(self, request: Request) -> dict[str, Any]:
        connection, data = self.conns[request["conn"]], b"E" + bytes(64)
        times: list[float] = []

        async def one() -> None:
            started = time.perf_counter()
            reader, writer = await connection.create_stream()
            writer.write(data)
            writer.write_eof()
            await reader.read()
            times.append((time.perf_counter() - started) * 1e6)

        seconds = await spread(request["count"], request.get("in_flight", 1), one)
        return {"seconds": seconds, "p50": sorted(times)[len(times) // 2]}


async def main() -> None:
    peer = Aioquic()
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        request = json.loads(line)
        answered = await getattr(peer, "do_" + request["do"])(request)
        print(json.dumps({"id": request["id"], "ok": answered}), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
