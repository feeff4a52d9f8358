"""`aioiroh ping` with upstream's relay between, and with upstream's peer at the other end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aioiroh import EndpointAddr, EndpointId, EndpointTicket, IpAddr, RelayAddr, ping
from commands import Process
from relay_server import RelayServer
from remote_peer import RemotePeer

QUEUE = {ping.ALPN.decode(): "queue"}


@contextmanager
def started(*arguments: object) -> Iterator[Process]:
    process = Process(arguments)
    try:
        yield process
    finally:
        process.kill()


def only_by(relay: RelayServer, ticket: str) -> EndpointTicket:
    """The ticket without the addresses of the machine."""
    return EndpointTicket(
        EndpointAddr(EndpointTicket.parse(ticket).addr.id, [RelayAddr(relay.url)])
    )


async def test_from_the_relay_to_a_direct_way(relay_server: Callable[..., RelayServer]) -> None:
    async with relay_server() as relay:
        with started("ping", "--listen", "--relay", relay.url) as listening:
            text = await asyncio.to_thread(listening.until, lambda: listening.out, "ticket")
            ticket = only_by(relay, text.strip())
            with started("ping", ticket, "--json", "-i", 0.05) as asking:
                first = await asyncio.to_thread(asking.event, "way", 1)
                second = await asyncio.to_thread(asking.event, "way", 2)
                assert first["relay"] == relay.url and first["address"] is None
                assert second["relay"] is None and IpAddr.parse(second["address"])
                await asyncio.to_thread(
                    listening.until,
                    lambda: all(
                        words in listening.err for words in ("the relay http", "directly, at")
                    ),
                    "both ways",
                )


async def answer_once(peer: RemotePeer) -> None:
    """As upstream's ping server does it: one stream of a connection, then its end is waited for."""
    conn = (await peer("accept"))["conn"]
    stream = (await peer("accept_stream", conn=conn))["stream"]
    assert (await peer("read_all", stream=stream))["hex"] == b"PING".hex()
    await peer("write", stream=stream, text="PONG", finish=True)
    closed = await peer("closed", conn=conn)
    assert closed["kind"] == "application_closed" and closed["code"] == 0, closed


async def test_we_ask_upstream(iroh_peer: Callable[..., RemotePeer]) -> None:
    async with iroh_peer(alpns=QUEUE) as peer:
        id = EndpointId.parse(peer.id)
        ticket = EndpointTicket(EndpointAddr(id, [IpAddr.parse(addr) for addr in peer.addrs]))
        with started("ping", ticket, "-c", 3, "-i", 0.01, "--json") as asking:
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(answer_once(peer))
            await asyncio.to_thread(asking.wait)
            assert asking.event("connected")["repeated"] is False
            assert asking.event("done")["answered"] == 3


async def test_upstream_asks_us(iroh_peer: Callable[..., RemotePeer]) -> None:
    with started("ping", "--listen", "--bind", "127.0.0.1:0") as listening:
        text = await asyncio.to_thread(listening.until, lambda: listening.out, "ticket")
        addr = EndpointTicket.parse(text.strip()).addr
        async with iroh_peer() as peer:
            where = {"peer": str(addr.id), "addrs": [ip.text for ip in addr.ip_addrs]}
            conn = (await peer("connect", alpn=ping.ALPN.decode(), **where))["conn"]
            stream = (await peer("open", conn=conn))["stream"]
            await peer("write", stream=stream, text="PING", finish=True)
            assert (await peer("read_all", stream=stream))["hex"] == b"PONG".hex()
            await peer("close", conn=conn, code=0)
