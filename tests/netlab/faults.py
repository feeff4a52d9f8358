"""What happens to a transfer when its network changes: another uplink, forgotten mappings, a relay that
restarts, datagrams that are lost.

The data go from who was dialled to who dialled, at the rate of the line, and the fault comes while they do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from expected import Programs
from lab import ALPN, Lab
from nat import Nat
from pairs import CONNECT_SECONDS
from remote_peer import PeerError, RemotePeer
from topology import Host

MEGABITS = 10
SIZE = 6_000_000
"""Bytes: five seconds of the line."""
QUIET_SECONDS = 1.5
"""From the beginning of a transfer to the fault."""
TRANSFER_SECONDS = 90


@dataclass(frozen=True)
class Transfer:
    """How it went."""

    seconds: float | None
    """None: it did not come to its end."""
    stall: float = 0.0
    """The longest time, in seconds, for which nothing arrived."""
    problem: str = ""


@dataclass(frozen=True)
class Scene:
    """What is done to a transfer between two hosts (who dials, who is dialled) behind these NATs."""

    name: str
    nats: tuple[Nat, Nat]
    fault: Callable[[Lab, list[Host]], Awaitable[None]]
    relayed: bool = False
    """Whether the data go through the relay, as there is no direct path between these NATs."""
    loss: float = 0.0
    """Percent of datagrams that are lost on arrival, on both sides, from the beginning on."""


async def _nothing(_lab: Lab, _hosts: list[Host]) -> None:
    pass


def _switch(side: int) -> Callable[[Lab, list[Host]], Awaitable[None]]:
    async def fault(_lab: Lab, hosts: list[Host]) -> None:
        hosts[side].switch(hosts[side].uplinks[1])

    return fault


def _prefer(side: int) -> Callable[[Lab, list[Host]], Awaitable[None]]:
    async def fault(_lab: Lab, hosts: list[Host]) -> None:
        hosts[side].prefer(hosts[side].uplinks[1])

    return fault


def _readdress(side: int) -> Callable[[Lab, list[Host]], Awaitable[None]]:
    async def fault(_lab: Lab, hosts: list[Host]) -> None:
        hosts[side].uplinks[0].readdress()

    return fault


async def _forget(_lab: Lab, hosts: list[Host]) -> None:
    for host in hosts:
        host.uplinks[0].forget()


async def _restart(lab: Lab, _hosts: list[Host]) -> None:
    for relay in lab.relays:
        await relay.stop()
    await asyncio.sleep(1)
    for relay in lab.relays:
        await relay.start()


_HOME = (Nat.MODERATE, Nat.MODERATE)

SCENES = (
    Scene("the dialler gets another uplink, the old one still works", _HOME, _prefer(0)),
    Scene("the dialled gets another uplink, the old one still works", _HOME, _prefer(1)),
    Scene("the dialler gets another uplink, the old one is dead", _HOME, _switch(0)),
    Scene("the dialled gets another uplink, the old one is dead", _HOME, _switch(1)),
    Scene("the dialler gets another address", (Nat.NONE, Nat.MODERATE), _readdress(0)),
    Scene("the dialled gets another address", (Nat.MODERATE, Nat.NONE), _readdress(1)),
    Scene("both routers forget all mappings", _HOME, _forget),
    Scene("both routers forget all mappings, relayed", (Nat.STRICT, Nat.STRICT), _forget, True),
    *(
        Scene(f"{percent} % of the datagrams are lost", _HOME, _nothing, loss=percent)
        for percent in (1, 5, 12, 25)
    ),
)
RESTART = Scene(
    "the relays are down for a second, relayed", (Nat.STRICT, Nat.STRICT), _restart, True
)
"""It needs a lab of its own."""


async def play(lab: Lab, programs: Programs, scene: Scene) -> Transfer:
    """One transfer with the fault in it."""
    hosts = []
    for name, nat in zip("ab", scene.nats, strict=True):
        host = lab.host(f"{name} {nat.value}", nat)
        host.plug(nat)
        for uplink in host.uplinks:
            uplink.rate(MEGABITS)
        hosts.append(host)
    try:
        async with (
            lab.peer(programs[1], hosts[1]) as server,
            lab.peer(programs[0], hosts[0]) as client,
        ):
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    conn = await _connected(client, server, scene.relayed)
            except TimeoutError:
                return Transfer(None, problem="no direct path to begin with")
            for host in hosts:
                host.lose(scene.loss)
            moving = asyncio.ensure_future(client("bench_bulk", conn=conn, bytes=SIZE, down=True))
            await asyncio.sleep(QUIET_SECONDS)
            await scene.fault(lab, hosts)
            async with asyncio.timeout(TRANSFER_SECONDS):
                moved = await moving
            if moved["bytes"] != SIZE:
                return Transfer(None, problem=f"{moved['bytes']} of {SIZE} bytes")
            return Transfer(moved["seconds"], moved["stall"])
    except TimeoutError:
        return Transfer(None, problem=f"not done after {TRANSFER_SECONDS} s")
    except (PeerError, EOFError) as error:
        return Transfer(None, problem=f"{type(error).__name__}: {error}")


async def _connected(client: RemotePeer, server: RemotePeer, relayed: bool) -> int:
    known = await client("connect", peer=server.id, addrs=[], relay=server.relay, alpn=ALPN)
    conn: int = known["conn"]
    if not relayed:
        await client("paths", conn=conn, until="direct")
    return conn
