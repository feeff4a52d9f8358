"""A reader that sleeps: `python -m benchmarks.slow_reader [BYTES] [SECONDS]`.

One process sends BYTES (10**9) in packets of 200 bytes each; the other accepts the stream, sleeps for
SECONDS (60), then reads everything and compares. Printed: whether every byte came, and how the reader's
memory grew. Upstream's own receiver loses the connection after 2,048 such packets.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from aioiroh import Connection, Endpoint, EndpointAddr, EndpointId, IpAddr

ALPN = b"slow"
PACKET = 200
PATTERN = bytes(range(251)) * 4


def rss() -> int:
    """Resident memory, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) >> 10
    return 0


async def send(peer: str, port: int, total: int) -> None:
    async with Endpoint.bind(bind="127.0.0.1:0") as endpoint:
        target = EndpointAddr(
            EndpointId(bytes.fromhex(peer)), [IpAddr.from_pair(("127.0.0.1", port))]
        )
        connection = await endpoint.connect(target, alpn=ALPN)
        stream = await connection.open_uni()
        for start in range(0, total, PACKET):
            skip = start % 251
            await stream.write(PATTERN[skip : skip + min(PACKET, total - start)])
            # Each write leaves in a packet of its own.
            await asyncio.sleep(0)
        await stream.finish()
        await stream.acked()
        connection.close()


async def receive(connection: Connection, total: int, nap: float) -> dict[str, object]:
    stream = await connection.accept_uni()
    before = peak = rss()
    wake = time.monotonic() + nap
    while time.monotonic() < wake:
        await asyncio.sleep(0.5)
        peak = max(peak, rss())
    stashed = connection.state.native.info()["stashed"]
    received, right = 0, True
    while data := await stream.read(1 << 20):
        skip = received % 251
        length = len(data)
        expected = (PATTERN[:251] * (length // 251 + 2))[skip : skip + length]
        right = right and data == expected
        received += length
        peak = max(peak, rss())
    return {
        "bytes": received,
        "complete": right and received == total,
        "asleep_s": nap,
        "stashed_when_waking": stashed,
        "rss_before_mib": before,
        "rss_peak_mib": peak,
    }


async def main(total: int, nap: float) -> None:
    async with Endpoint.bind(bind="127.0.0.1:0", alpns=[ALPN]) as endpoint:
        started = time.monotonic()
        sender = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "benchmarks.slow_reader",
            "send",
            bytes(endpoint.id).hex(),
            str(endpoint.bound_sockets[0].port),
            str(total),
        )
        incoming = await endpoint.accept()
        connection = await incoming.accept()
        result = await receive(connection, total, nap)
        await connection.closed()
        await sender.wait()
        print(json.dumps({**result, "seconds": round(time.monotonic() - started, 1)}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["send"]:
        asyncio.run(send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    else:
        size = int(float(sys.argv[1])) if len(sys.argv) > 1 else 10**9
        asyncio.run(main(size, float(sys.argv[2]) if len(sys.argv) > 2 else 60))
