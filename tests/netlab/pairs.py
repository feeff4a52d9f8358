"""Two programs behind NATs that know of each other only the key and the relay."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from itertools import product

from lab import ALPN, Lab
from nat import Nat
from remote_peer import PeerError, RemotePeer

ALL = tuple(product(Nat, Nat))
"""NAT of who dials, NAT of who is dialled."""
CONNECT_SECONDS = 30


@dataclass(frozen=True)
class Outcome:
    """What became of a pair. Times are in seconds from the moment when the first dialled the second."""

    connected: float | None
    """When data had gone there and back; None: never."""
    direct: float | None = None
    """When data went without the relay; None: not within the patience."""
    problem: str = ""


async def meet(
    lab: Lab,
    programs: tuple[str, str],
    nats: tuple[Nat, Nat],
    patience: float,
    *,
    ipv6: bool = False,
) -> Outcome:
    """Connects the first to the second, and waits for at most `patience` seconds for a direct path."""
    hosts = [lab.host(f"{'ab'[i]} {nats[i].value}", nats[i], ipv6=ipv6) for i in (0, 1)]
    try:
        async with (
            lab.peer(programs[1], hosts[1]) as server,
            lab.peer(programs[0], hosts[0]) as client,
        ):
            return await _observe(client, server, patience)
    except (PeerError, TimeoutError, EOFError) as error:
        return Outcome(None, problem=f"{type(error).__name__}: {error}")


async def _observe(client: RemotePeer, server: RemotePeer, patience: float) -> Outcome:
    started = time.monotonic()
    async with asyncio.timeout(CONNECT_SECONDS):
        known = await client("connect", peer=server.id, addrs=[], relay=server.relay, alpn=ALPN)
        conn = known["conn"]
        await client("bench_requests", conn=conn, count=1)
    connected = time.monotonic() - started
    try:
        async with asyncio.timeout(patience):
            await client("paths", conn=conn, until="direct")
    except TimeoutError:
        return Outcome(connected)
    direct = time.monotonic() - started
    await client("bench_requests", conn=conn, count=1)
    return Outcome(connected, direct)
