"""Early data with upstream's crates (RFC 8446 section 8, RFC 9001 section 4.6), taken and refused."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from aioiroh import AuthenticationError, Endpoint, SecretKey, ZeroRttRejectedError
from meeting import ALPN, LOOPBACK, Link, address, join, pattern, where
from remote_peer import PeerError

QUEUE = {ALPN.decode(): "queue"}
SECRET = "22" * 32
EARLY = pattern(20_000)


async def introduce(endpoint: Endpoint, peer: Any, *, we_dial: bool) -> None:
    """One connection, long enough for the session tickets to arrive at who dialled."""
    link = await join(we_dial, endpoint, peer)
    async with link.ours, link.ours.open_bi() as stream:
        await stream.write(b"hello")
        number = await link.they_accept()
        await link.peer("write", stream=number, text="hello", finish=True)
        await stream.read_all(limit=10)
    await link.theirs("closed")


@asynccontextmanager
async def introduced(
    iroh_peer: Callable[..., Any], *, we_dial: bool
) -> AsyncIterator[tuple[Endpoint, Any]]:
    async with (
        Endpoint.bind(bind=LOOPBACK, alpns=[ALPN]) as endpoint,
        iroh_peer(alpns=QUEUE, secret=SECRET) as peer,
    ):
        await introduce(endpoint, peer, we_dial=we_dial)
        yield endpoint, peer


# --- we dial --------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", ["early", "accept"])
async def test_they_take_our_early_data(iroh_peer: Callable[..., Any], door: str) -> None:
    """Whether their application looks at them early or not."""
    async with introduced(iroh_peer, we_dial=True) as (endpoint, peer):
        await peer("door", mode=door)
        ours: Any = await endpoint.connect(address(peer), alpn=ALPN, early_data=True)
        assert ours.is_early
        stream = await ours.open_bi()
        await stream.write(EARLY)
        await stream.finish()
        assert await ours.handshake_completed() is True
        assert not ours.is_early
        assert bytes(ours.remote_id).hex() == peer.id and ours.alpn == ALPN
        known = await peer("accept")
        theirs = await peer("accept_stream", conn=known["conn"])
        # Their application may have been too slow to see the stream before the handshake was complete.
        assert door == "early" or theirs["early"] is False
        heard = await peer("read_all", stream=theirs["stream"])
        assert (heard["length"], heard["pattern"]) == (len(EARLY), True)
        await peer("write", stream=theirs["stream"], text="thanks", finish=True)
        assert await stream.read_all(limit=10) == b"thanks"
        if door == "early":
            completed = await peer("completed", conn=known["conn"])
            assert completed["peer"] == bytes(endpoint.id).hex()
        ours.close()


async def test_they_refuse_our_early_data(iroh_peer: Callable[..., Any]) -> None:
    """A peer that was started anew knows none of its tickets."""
    async with introduced(iroh_peer, we_dial=True) as (endpoint, before):
        await before("shut_down")
        await before.kill()
        async with iroh_peer(alpns=QUEUE, secret=SECRET, addr=before.addrs[0]) as after:
            ours = await endpoint.connect(address(after), alpn=ALPN, early_data=True)
            assert ours.is_early
            stream = await ours.open_bi()
            await stream.write(EARLY)
            reading = asyncio.create_task(stream.read())
            assert await ours.handshake_completed() is False
            with pytest.raises(ZeroRttRejectedError):
                await reading
            with pytest.raises(ZeroRttRejectedError):
                await stream.write(b"more")
            with pytest.raises(ZeroRttRejectedError):
                await stream.send.acked()
            # The connection itself is as good as any.
            known = await after("accept")
            await conversation(Link(endpoint, ours, after, known["conn"]))
            ours.close()


async def conversation(link: Link) -> None:
    async with link.ours.open_bi() as stream:
        await stream.write(b"again")
        await stream.finish()
        theirs = await link.theirs("accept_stream")
        heard = await link.peer("read_all", stream=theirs["stream"])
        assert heard["hex"] == b"again".hex()
        assert theirs["early"] is False
        await link.peer("write", stream=theirs["stream"], text="fine", finish=True)
        assert await stream.read_all(limit=10) == b"fine"


async def test_without_a_ticket_the_handshake_comes_first(iroh_peer: Callable[..., Any]) -> None:
    async with (
        Endpoint.bind(bind=LOOPBACK) as endpoint,
        iroh_peer(alpns=QUEUE) as peer,
    ):
        ours = await endpoint.connect(address(peer), alpn=ALPN, early_data=True)
        assert not ours.is_early and ours.alpn == ALPN
        assert await ours.handshake_completed() is False
        known = await peer("accept")
        await conversation(Link(endpoint, ours, peer, known["conn"]))
        ours.close()


async def test_a_ticket_for_another_protocol(iroh_peer: Callable[..., Any]) -> None:
    """Early data belong to the protocol of the ticket; a server that agrees on another refuses them."""
    other = "other/1"
    async with (
        Endpoint.bind(bind=LOOPBACK) as endpoint,
        iroh_peer(alpns={**QUEUE, other: "queue"}) as peer,
    ):
        await introduce(endpoint, peer, we_dial=True)
        ours = await endpoint.connect(address(peer), alpn=other.encode(), early_data=True)
        assert await ours.handshake_completed() is False
        assert ours.alpn == other.encode()
        known = await peer("accept")
        assert known["alpn"] == other
        await conversation(Link(endpoint, ours, peer, known["conn"]))
        ours.close()


async def test_each_connection_brings_tickets(iroh_peer: Callable[..., Any]) -> None:
    """They are used once each, and every handshake brings two new ones."""
    async with introduced(iroh_peer, we_dial=True) as (endpoint, peer):
        for _ in range(6):
            ours = await endpoint.connect(address(peer), alpn=ALPN, early_data=True)
            assert ours.is_early
            async with ours.open_bi() as stream:
                await stream.write(b"again")
                await stream.finish()
                assert await ours.handshake_completed() is True
                known = await peer("accept")
                theirs = await peer("accept_stream", conn=known["conn"])
                await peer("write", stream=theirs["stream"], text="fine", finish=True)
                assert await stream.read_all(limit=10) == b"fine"
            ours.close()


async def test_they_answer_before_we_are_known(iroh_peer: Callable[..., Any]) -> None:
    """Early data, and the answer to them, in the first flight of each side."""
    async with introduced(iroh_peer, we_dial=True) as (endpoint, peer):
        await peer("door", mode="early")
        accepting = asyncio.create_task(peer("accept"))
        ours = await endpoint.connect(address(peer), alpn=ALPN, early_data=True)
        stream = await ours.open_bi()
        await stream.write(b"ping")
        await stream.finish()
        known = await accepting
        theirs = await peer("accept_stream", conn=known["conn"])
        await peer("write", stream=theirs["stream"], text="pong", finish=True)
        assert await stream.read_all(limit=10) == b"pong"
        assert await ours.handshake_completed() is True
        ours.close()


# --- they dial ------------------------------------------------------------------------------------


async def they_dial_early(endpoint: Endpoint, peer: Any) -> int:
    known = await peer("connect", alpn=ALPN.decode(), early=True, **where(endpoint))
    assert known["early"] is True
    conn: int = known["conn"]
    return conn


@pytest.mark.parametrize("early", [True, False], ids=["read early", "read late"])
async def test_we_take_their_early_data(iroh_peer: Callable[..., Any], early: bool) -> None:
    async with introduced(iroh_peer, we_dial=False) as (endpoint, peer):
        conn = await they_dial_early(endpoint, peer)
        stream = (await peer("open", conn=conn))["stream"]
        await peer("write", stream=stream, pattern=len(EARLY), finish=True)
        incoming = await endpoint.accept()
        if early:
            # Nothing but the early data is there while the peer stands still.
            await asyncio.sleep(0.2)
            os.kill(peer.pid, signal.SIGSTOP)
            try:
                ours = incoming.accept_early()
                arrived = await ours.accept_bi()
                assert await arrived.read_exactly(1000) == EARLY[:1000]
                with pytest.raises(AuthenticationError):
                    _ = ours.remote_id
            finally:
                os.kill(peer.pid, signal.SIGCONT)
        else:
            ours = await incoming
            arrived = await ours.accept_bi()
            assert await arrived.read_exactly(1000) == EARLY[:1000]
        assert arrived.recv.is_early is early
        assert await arrived.read_all(limit=len(EARLY)) == EARLY[1000:]
        await arrived.write(b"thanks")
        await arrived.finish()
        assert bytes.fromhex((await peer("read_all", stream=stream))["hex"]) == b"thanks"
        await ours.handshake_completed()
        assert bytes(ours.remote_id).hex() == peer.id
        completed = await peer("completed", conn=conn)
        assert completed["accepted"] is True
        ours.close()


async def test_we_refuse_their_early_data(iroh_peer: Callable[..., Any]) -> None:
    """An endpoint that was bound anew knows none of its tickets."""
    secret = SecretKey.generate()
    async with iroh_peer() as peer:
        async with Endpoint.bind(bind=LOOPBACK, alpns=[ALPN], secret_key=secret) as before:
            await introduce(before, peer, we_dial=False)
            port = before.bound_sockets[0].port
        async with Endpoint.bind(
            bind=("127.0.0.1", port), alpns=[ALPN], secret_key=secret
        ) as after:
            conn = await they_dial_early(after, peer)
            stream = (await peer("open", conn=conn))["stream"]
            await peer("write", stream=stream, pattern=len(EARLY))
            ours = await (await after.accept())
            completed = await peer("completed", conn=conn)
            assert completed["accepted"] is False
            with pytest.raises(PeerError) as refused:
                await peer("read", stream=stream)
            assert refused.value.kind == "zero_rtt_rejected"
            # Nothing of it has reached the application; a new stream does.
            again = await peer("open", conn=completed["conn"])
            await peer("write", stream=again["stream"], text="again", finish=True)
            arrived = await ours.accept_bi()
            assert await arrived.read_all(limit=100) == b"again"
            assert not arrived.recv.is_early
            ours.close()


async def test_we_send_before_they_are_known(iroh_peer: Callable[..., Any]) -> None:
    """What a server sends with its first flight arrives, with early data or without."""
    async with iroh_peer() as peer, Endpoint.bind(bind=LOOPBACK, alpns=[ALPN]) as endpoint:
        for resumed in (False, True):
            dialling = asyncio.create_task(
                peer("connect", alpn=ALPN.decode(), early=resumed, **where(endpoint))
            )
            ours = (await endpoint.accept()).accept_early()
            assert ours.is_early
            async with ours.open_uni() as stream:
                await stream.write(b"welcome")
            known = await dialling
            assert known.get("early", False) is resumed
            arrived = await peer("accept_stream", uni=True, conn=known["conn"])
            assert (await peer("read_all", stream=arrived["stream"]))["hex"] == b"welcome".hex()
            await ours.handshake_completed()
            # A ticket for the second round.
            await asyncio.sleep(0.05)
            ours.close()
