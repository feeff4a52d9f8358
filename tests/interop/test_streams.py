"""Streams between ours and upstream's endpoints, opened by either side, in both roles."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from aioiroh import RecvStream, SendStream, StreamResetError, StreamStoppedError
from meeting import ALPN, Link, Meet, meeting, pattern, read_pattern

MIB = 1 << 20
SIZES = (0, 1, 1200, 65_537, 300_000)
CODES = (0, 5, 2**62 - 1)


async def test_we_open_streams(make_peer: Callable[..., Any], meet: Meet) -> None:
    async with meet(make_peer) as link:
        for uni, size in itertools.product([False, True], SIZES):
            recv: RecvStream | None = None
            if uni:
                send = await link.ours.open_uni()
            else:
                send, recv = await link.ours.open_bi()
            await send.write(pattern(size))
            await send.finish()
            number = await link.they_accept(uni=uni)
            heard = await link.peer("read_all", stream=number)
            assert (heard["length"], heard["pattern"]) == (size, True)
            await send.acked()
            if recv is not None:
                await link.peer("write", stream=number, pattern=size, finish=True)
                assert await read_pattern(recv) == size
                assert await link.peer("stopped", stream=number) == {"code": None}


async def test_they_open_streams(make_peer: Callable[..., Any], meet: Meet) -> None:
    async with meet(make_peer) as link:
        for uni, size in itertools.product([False, True], SIZES):
            number = await link.they_open(uni=uni)
            await link.peer("write", stream=number, pattern=size, finish=True)
            send: SendStream | None = None
            if uni:
                recv = await link.ours.accept_uni()
            else:
                send, recv = await link.ours.accept_bi()
            assert await read_pattern(recv) == size
            assert await link.peer("stopped", stream=number) == {"code": None}
            if send is not None:
                await send.write(pattern(size))
                await send.finish()
                heard = await link.peer("read_all", stream=number)
                assert (heard["length"], heard["pattern"]) == (size, True)
                await send.acked()


async def test_a_stream_carries_a_conversation(make_peer: Callable[..., Any], meet: Meet) -> None:
    async with meet(make_peer) as link:
        stream = await link.ours.open_bi()
        await stream.write(b"one")
        number = await link.they_accept()
        assert await link.peer("read", stream=number) == {"hex": b"one".hex(), "end": False}
        await link.peer("write", stream=number, text="two")
        assert await stream.read() == b"two"
        await stream.write(b"three")
        assert await link.peer("read", stream=number, max=2) == {"hex": b"th".hex(), "end": False}
        assert await link.peer("read", stream=number) == {"hex": b"ree".hex(), "end": False}
        await link.peer("finish", stream=number)
        assert await stream.read() == b""
        await stream.write(b"four")
        await stream.finish()
        assert await link.peer("read_all", stream=number) == {
            "length": 4,
            "pattern": False,
            "hex": b"four".hex(),
        }


@pytest.mark.loops
async def test_more_streams_than_may_be_open_at_once(make_peer: Callable[..., Any]) -> None:
    # Who answers everything hands out no connections to dial with.
    async with meeting(True)(make_peer, alpns={ALPN.decode(): "echo"}) as link:
        todo = iter(range(350))

        async def ask() -> None:
            for number in todo:
                async with link.ours.open_bi() as stream:
                    await stream.write(b"%d" % number)
                    await stream.finish()
                    assert await stream.read_all(limit=100) == b"%d" % number

        await asyncio.gather(*(ask() for _ in range(150)))


@pytest.mark.parametrize("code", CODES)
async def test_resets_and_stops(make_peer: Callable[..., Any], meet: Meet, code: int) -> None:
    async with meet(make_peer) as link:
        # We give up sending.
        stream = await link.ours.open_bi()
        await stream.write(b"begun")
        number = await link.they_accept()
        await link.peer("read", stream=number)
        stream.send.reset(code)
        await refused(link, "read", number, "stream_reset", code)
        # We give up reading.
        await link.peer("write", stream=number, text="x")
        assert await stream.read() == b"x"
        stream.recv.stop(code)
        assert await link.peer("stopped", stream=number) == {"code": code}
        await refused(link, "write", number, "stream_stopped", code, text="y")

        # They give up sending.
        stream = await link.ours.open_bi()
        await stream.write(b"begun")
        number = await link.they_accept()
        await link.peer("write", stream=number, text="begun, too")
        assert await stream.read() == b"begun, too"
        reading = asyncio.create_task(stream.read())
        await link.peer("reset", stream=number, code=code)
        with pytest.raises(StreamResetError) as reset:
            await reading
        assert reset.value.code == stream.recv.reset_code == code
        with pytest.raises(StreamResetError):
            await stream.read()
        # They give up reading.
        await link.peer("stop", stream=number, code=code)
        assert await stream.send.stopped() == code
        with pytest.raises(StreamStoppedError) as stopped:
            await stream.write(b"more")
        assert stopped.value.code == code


async def refused(link: Link, do: str, stream: int, kind: str, code: int, **arguments: Any) -> None:
    """The peer's request fails with this code."""
    with pytest.raises(Exception) as failed:
        await link.peer(do, stream=stream, **arguments)
    error: Any = failed.value
    assert error.kind in (kind, "wheel")
    assert error.code == code, error.text


async def test_a_stop_wakes_a_blocked_writer(make_peer: Callable[..., Any], meet: Meet) -> None:
    async with meet(make_peer) as link:
        stream = await link.ours.open_uni()
        writing = asyncio.create_task(stream.write(bytes(30 * MIB)))
        number = await link.they_accept(uni=True)
        await asyncio.sleep(0.1)
        assert not writing.done()
        await link.peer("stop", stream=number, code=77)
        with pytest.raises(StreamStoppedError) as stopped:
            await writing
        assert stopped.value.code == 77
        assert 0 < stream.bytes_written < 30 * MIB


@pytest.mark.parametrize("urgent", [1, -1], ids=["ahead", "behind"])
async def test_our_priorities(make_peer: Callable[..., Any], meet: Meet, urgent: int) -> None:
    """A stream written last arrives first, or last, as its priority says."""
    async with meet(make_peer) as link:
        lengths: list[int] = []

        async def hear() -> None:
            number = await link.they_accept(uni=True)
            heard = await link.peer("read_all", stream=number)
            lengths.append(heard["length"])

        # They fit into the send window, so that all are waiting before anything is acknowledged.
        streams = [await link.ours.open_uni() for _ in range(8)]
        for stream in streams:
            await stream.write(pattern(MIB))
            await stream.finish()
        last = await link.ours.open_uni()
        last.priority = urgent
        assert last.priority == urgent
        await last.write(pattern(100_000))
        await last.finish()
        # Which of them waits for which stream is up to the peer.
        await asyncio.gather(*(hear() for _ in [*streams, last]))
    # A lost packet may let one or two overtake.
    place = lengths.index(100_000)
    assert place <= 1 if urgent > 0 else place >= 6, lengths


@pytest.mark.parametrize("urgent", [1, -1], ids=["ahead", "behind"])
async def test_their_priorities(make_peer: Callable[..., Any], meet: Meet, urgent: int) -> None:
    async with meet(make_peer) as link:
        numbers = [await link.they_open(uni=True), await link.they_open(uni=True)]
        await link.peer("priority", stream=numbers[1], priority=urgent)
        asking = [
            asyncio.create_task(link.peer("write", stream=number, pattern=MIB, finish=True))
            for number in numbers
        ]
        await asyncio.sleep(0)
        # This loop stands still, so that nothing is acknowledged and both streams pile up there.
        link.peer.wait_for_answers(2)
        streams = [await link.ours.accept_uni(), await link.ours.accept_uni()]
        streams.sort(key=lambda stream: stream.id)
        ended = []

        async def take(index: int) -> None:
            assert await read_pattern(streams[index]) == MIB
            ended.append(index)

        await asyncio.gather(take(0), take(1), *asking)
        assert ended == ([1, 0] if urgent > 0 else [0, 1])


async def test_100_mib_to_them(make_peer: Callable[..., Any], meet: Meet) -> None:
    async with meet(make_peer) as link:
        stream = await link.ours.open_uni()

        async def write() -> None:
            for start in range(0, 100 * MIB, MIB):
                await stream.write(pattern(MIB, start))
            await stream.finish()

        writing = asyncio.create_task(write())
        number = await link.they_accept(uni=True)
        heard = await link.peer("read_all", stream=number)
        await writing
        assert (heard["length"], heard["pattern"]) == (100 * MIB, True)


async def test_bulk_from_them(make_peer: Callable[..., Any], meet: Meet) -> None:
    async with meet(make_peer) as link:
        # Upstream's Python package sends some 7 MiB/s.
        size = 10 * MIB if "wheel" in str(link.peer.command) else 100 * MIB
        number = await link.they_open(uni=True)
        writing = asyncio.create_task(link.peer("write", stream=number, pattern=size, finish=True))
        assert await read_pattern(await link.ours.accept_uni()) == size
        await writing


@pytest.mark.loops
async def test_both_ways_at_once(make_peer: Callable[..., Any]) -> None:
    async with meeting(True)(make_peer, alpns={ALPN.decode(): "echo"}) as link:
        size = 4 * MIB

        async def echo() -> None:
            async with link.ours.open_bi() as stream:

                async def write() -> None:
                    await stream.write(pattern(size))
                    await stream.finish()

                writing = asyncio.create_task(write())
                assert await read_pattern(stream.recv) == size
                await writing

        await asyncio.gather(echo(), echo())
