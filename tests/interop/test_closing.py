"""How connections with upstream's endpoints end, and that idle ones do not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from aioiroh import (
    ApplicationClosedError,
    ConnectionTimeoutError,
    Endpoint,
    LocallyClosedError,
    StatelessResetError,
    TransportConfig,
)
from meeting import ALPN, LOOPBACK, Link, Meet, address, join, meeting, pattern
from remote_peer import PeerError

CLOSINGS = [(0, ""), (7, "because"), (2**62 - 1, "größer")]
LONG = "x" * 3000
QUEUE = {ALPN.decode(): "queue"}


@pytest.mark.parametrize(("code", "reason"), CLOSINGS)
async def test_we_close(make_peer: Callable[..., Any], meet: Meet, code: int, reason: str) -> None:
    async with meet(make_peer) as link:
        link.ours.close(code, reason.encode())
        closed = await link.theirs("closed")
        assert closed["code"] == code
        assert reason in closed["text" if closed["kind"] == "wheel" else "reason"]
        ours = await link.ours.closed()
        assert isinstance(ours, LocallyClosedError)


@pytest.mark.parametrize(("code", "reason"), CLOSINGS)
async def test_they_close(
    make_peer: Callable[..., Any], meet: Meet, code: int, reason: str
) -> None:
    async with meet(make_peer) as link:
        await link.theirs("close", code=code, reason=reason)
        closed = await link.ours.closed()
        assert isinstance(closed, ApplicationClosedError)
        assert (closed.code, closed.reason) == (code, reason.encode())


async def test_long_reasons_are_cut_off(iroh_peer: Callable[..., Any], meet: Meet) -> None:
    async with meet(iroh_peer) as link:
        link.ours.close(1, LONG.encode())
        closed = await link.theirs("closed")
        assert LONG.startswith(closed["reason"]) and len(closed["reason"]) > 1000
    async with meet(iroh_peer) as link:
        await link.theirs("close", code=1, reason=LONG)
        ours = await link.ours.closed()
        assert isinstance(ours, ApplicationClosedError)
        assert LONG.encode().startswith(ours.reason) and len(ours.reason) > 1000


async def test_everything_that_waits_here_learns_it(
    make_peer: Callable[..., Any], meet: Meet
) -> None:
    async with meet(make_peer) as link:
        stream = await link.ours.open_bi()
        blocked = await link.ours.open_uni()
        await stream.write(b"x")
        await blocked.write(b"y")
        await link.they_accept()
        waiting = [
            asyncio.ensure_future(thing)
            for thing in (
                stream.read(),
                blocked.write(bytes(30 << 20)),
                blocked.acked(),
                stream.send.stopped(),
                link.ours.accept_bi(),
                link.ours.accept_uni(),
                link.ours.read_datagram(),
            )
        ]
        await asyncio.sleep(0.1)
        await link.theirs("close", code=33, reason="enough")
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        for outcome in outcomes:
            assert isinstance(outcome, ApplicationClosedError), outcome
            assert (outcome.code, outcome.reason) == (33, b"enough")
        for again in (link.ours.open_bi(), stream.write(b"z")):
            with pytest.raises(ApplicationClosedError):
                await again


async def test_everything_that_waits_there_learns_it(
    make_peer: Callable[..., Any], meet: Meet
) -> None:
    async with meet(make_peer) as link:
        stream = await link.ours.open_bi()
        await stream.write(b"x")
        number = await link.they_accept()
        await link.peer("read", stream=number)
        waiting = [
            asyncio.ensure_future(request)
            for request in (
                link.peer("read", stream=number),
                link.theirs("accept_stream"),
                link.theirs("accept_stream", uni=True),
                link.theirs("read_datagram"),
            )
        ]
        await asyncio.sleep(0.1)
        link.ours.close(34, b"enough")
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, PeerError), outcome
            assert outcome.code == 34, outcome.details


async def test_what_arrived_before_the_close_can_still_be_read(
    make_peer: Callable[..., Any], meet: Meet
) -> None:
    async with meet(make_peer) as link:
        number = await link.they_open(uni=True)
        await link.peer("write", stream=number, pattern=200_000, finish=True)
        # It got everything before it closes.
        await link.peer("stopped", stream=number)
        await link.theirs("close", code=5)
        assert isinstance(await link.ours.closed(), ApplicationClosedError)
        stream = await link.ours.accept_uni()
        assert await stream.read_all(limit=1 << 20) == pattern(200_000)


async def test_leaving_our_block_delivers_what_was_finished(
    make_peer: Callable[..., Any], meet: Meet
) -> None:
    async with meet(make_peer) as link:
        async with link.ours, link.ours.open_uni() as stream:
            await stream.write(pattern(1_000_000))
            number = await link.they_accept(uni=True)
            reading = asyncio.create_task(link.peer("read_all", stream=number))
        heard = await reading
        assert (heard["length"], heard["pattern"]) == (1_000_000, True)
        assert (await link.theirs("closed"))["code"] == 0


# --- endpoints ------------------------------------------------------------------------------------


async def test_our_endpoint_closes(make_peer: Callable[..., Any], meet: Meet) -> None:
    async with meet(make_peer) as link:
        second = await join(True, link.endpoint, link.peer)
        started = time.monotonic()
        await link.endpoint.close()
        assert time.monotonic() - started < 2.5
        for number in (link.conn, second.conn):
            closed = await link.peer("closed", conn=number)
            assert closed["code"] == 0


async def test_their_endpoint_closes(make_peer: Callable[..., Any], meet: Meet) -> None:
    async with meet(make_peer) as link:
        await link.peer("shut_down")
        closed = await link.ours.closed()
        assert isinstance(closed, ApplicationClosedError)
        assert (closed.code, closed.reason) == (0, b"")


async def test_a_dead_peer_is_noticed(make_peer: Callable[..., Any], meet: Meet) -> None:
    async with meet(make_peer, transport=TransportConfig(idle_timeout=1, keep_alive=None)) as link:
        stream = await link.ours.open_bi()
        await stream.write(b"x")
        await link.they_accept()
        await link.peer.kill()
        with pytest.raises(ConnectionTimeoutError):
            await stream.read()
        assert isinstance(link.ours.close_reason, ConnectionTimeoutError)


VANISHING = """
import asyncio, sys
from aioiroh import Endpoint, EndpointAddr, EndpointId

async def main():
    peer, addr = sys.argv[1:]
    host, _, port = addr.rpartition(":")
    endpoint = await Endpoint.bind(bind="127.0.0.1:0")
    target = EndpointAddr(EndpointId(bytes.fromhex(peer))).with_ip(host, int(port))
    connection = await endpoint.connect(target, alpn=b"interop/1")
    print("connected", flush=True)
    await connection.closed()

asyncio.run(main())
"""


async def test_they_notice_that_we_died(iroh_peer: Callable[..., Any]) -> None:
    async with iroh_peer(alpns=QUEUE, transport={"idle_timeout": 1, "keep_alive": 10}) as peer:
        ours = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            VANISHING,
            peer.id,
            peer.addrs[0],
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert ours.stdout is not None
        try:
            assert await ours.stdout.readline() == b"connected\n"
            known = await peer("accept")
        finally:
            ours.kill()
            await ours.wait()
        assert (await peer("closed", conn=known["conn"]))["kind"] == "timed_out"


async def test_a_peer_that_comes_back_does_not_know_us(iroh_peer: Callable[..., Any]) -> None:
    """Upstream's reset key is new in each process, so only silence tells; a new dial works at once."""
    secret = "11" * 32
    transport = TransportConfig(idle_timeout=2)
    async with Endpoint.bind(bind=LOOPBACK, transport=transport) as endpoint:
        async with iroh_peer(alpns=QUEUE, secret=secret) as before:
            link = await join(True, endpoint, before)
            await before.kill()
        async with iroh_peer(alpns=QUEUE, secret=secret, addr=before.addrs[0]) as after:
            assert after.id == before.id
            link.ours.send_datagram(b"are you there?")
            async with endpoint.connect(address(after), alpn=ALPN) as again:
                await after("accept")
                assert again.close_reason is None
                closed = await link.ours.closed()
                assert isinstance(closed, (ConnectionTimeoutError, StatelessResetError))


# --- silence --------------------------------------------------------------------------------------


async def test_idle_connections_stay(
    iroh_peer: Callable[..., Any], wheel_peer: Callable[..., Any]
) -> None:
    """20 s without a byte from the application: with both peers, in both roles, at once."""
    async with contextlib.AsyncExitStack() as stack:
        links: list[Link] = []
        for make_peer in (iroh_peer, wheel_peer):
            for we_dial in (True, False):
                links.append(await stack.enter_async_context(meeting(we_dial)(make_peer)))
        await asyncio.sleep(20)
        for link in links:
            assert link.ours.close_reason is None
            async with link.ours.open_bi() as stream:
                await stream.write(b"still here")
                number = await link.they_accept()
                heard = await link.peer("read", stream=number)
                assert bytes.fromhex(heard["hex"]) == b"still here"
            # Nothing was opened beside the path of the handshake, or it was given up again.
            assert link.ours.paths.value[0].remote[0] == "127.0.0.1"


async def test_a_stopped_peer_wakes_up_again(make_peer: Callable[..., Any], meet: Meet) -> None:
    async with meet(make_peer, transport=TransportConfig(idle_timeout=10)) as link:
        os.kill(link.peer.pid, signal.SIGSTOP)
        stream = await link.ours.open_uni()
        await stream.write(pattern(500_000))
        await stream.finish()
        await asyncio.sleep(2)
        os.kill(link.peer.pid, signal.SIGCONT)
        number = await link.they_accept(uni=True)
        heard = await link.peer("read_all", stream=number)
        assert (heard["length"], heard["pattern"]) == (500_000, True)
        await stream.acked()
