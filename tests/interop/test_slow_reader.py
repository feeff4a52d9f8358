"""A reader that sleeps costs bounded memory and loses nothing, however small the packets are.

Not much more than the window by default; `AIOIROH_LONG=1` adds 100 MB and a sleep of 60 s.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aioiroh import RecvStream
from meeting import meeting, pattern

STREAMS = 32
"""So many that the windows of the streams together exceed that of the connection."""
WINDOW = 16 << 20
PACKET = 200
LIMIT = WINDOW + (24 << 20)
"""Growth of the process: the window, what keeping small packets costs, and what reading leaves behind."""

AMOUNTS = [pytest.param(18_000_000, 3, id="18 MB")]
if os.environ.get("AIOIROH_LONG"):
    AMOUNTS.append(pytest.param(100_000_000, 60, id="100 MB", marks=pytest.mark.slow))


def resident() -> int:
    """Bytes of memory that this process has now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no VmRSS in /proc/self/status")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("amount", "asleep"), AMOUNTS)
async def test_small_packets_and_a_sleeping_reader(
    make_peer: Callable[..., Any], amount: int, asleep: float
) -> None:
    each = amount // STREAMS
    async with meeting(True)(make_peer) as link:
        link.peer.patience = 500
        numbers = [await link.they_open(uni=True) for _ in range(STREAMS)]
        gc.collect()
        before = resident()
        writing = [
            asyncio.create_task(
                link.peer("write", stream=number, pattern=each, chunk=PACKET, finish=True)
            )
            for number in numbers
        ]
        # Until nothing more comes: the window is full.
        received = 0
        while True:
            await asyncio.sleep(1)
            stats = link.ours.stats()
            if stats["udp_rx_bytes"] < received + 100_000:
                break
            received = stats["udp_rx_bytes"]
        assert received > WINDOW
        await asyncio.sleep(asleep)
        assert link.ours.close_reason is None
        assert not all(task.done() for task in writing)
        assert resident() - before < LIMIT
        size = stats["udp_rx_bytes"] // stats["udp_rx_datagrams"]
        print(f"asleep: {(resident() - before) >> 20} MiB more; packets of {size} bytes")

        async def read(stream: RecvStream) -> None:
            total = 0
            while data := await stream.read(64 << 10):
                assert data == pattern(len(data), total)
                total += len(data)
                assert resident() - before < LIMIT
            assert total == each

        await asyncio.gather(*[read(await link.ours.accept_uni()) for _ in numbers])
        await asyncio.gather(*writing)
        print(f"awake: {(resident() - before) >> 20} MiB more")
