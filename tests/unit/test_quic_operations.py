"""What the methods of streams give: coroutines in every respect, though native."""

from __future__ import annotations

import asyncio
import gc
import inspect
import weakref
from collections.abc import Coroutine

import pytest

from aioiroh.quic import TransportConfig


async def halves(pair):
    send = await pair.client.open_uni()
    await send.write(b"x")
    recv = await pair.server.accept_uni()
    assert await recv.read(1) == b"x"
    return send, recv


def thrown_into(operation):
    with pytest.raises(ZeroDivisionError):
        operation.throw(ZeroDivisionError())


@pytest.mark.loops
async def test_they_do_as_tasks_and_under_time_limits(quic_pair, loop_kind):
    async with quic_pair() as pair:
        send, recv = await halves(pair)
        writing = send.write(b"abc")
        assert isinstance(writing, Coroutine)
        assert asyncio.iscoroutine(writing)
        assert inspect.isawaitable(writing)
        task = asyncio.create_task(writing)
        assert "SendStream.write" in repr(task)
        await task
        assert await asyncio.wait_for(recv.read_exactly(3), 5) == b"abc"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(recv.read(), 0.01)
        _, got = await asyncio.gather(send.write(b"d"), recv.read())
        assert got == b"d"


async def test_nothing_happens_before_they_are_awaited(quic_pair):
    async with quic_pair() as pair:
        send, recv = await halves(pair)
        writing, finishing = send.write(b"abc"), send.finish()
        assert send.bytes_written == 1
        assert not send.is_finished
        writing.close()
        with pytest.raises(RuntimeError, match="already awaited"):
            await writing
        thrown_into(finishing)
        await send.write(b"abc")
        await send.finish()
        reading = recv.read_all(limit=10)
        assert await reading == b"abc"
        with pytest.raises(RuntimeError, match="already awaited"):
            await reading


async def test_who_forgets_to_await_is_told(quic_pair):
    async with quic_pair() as pair:
        send, recv = await halves(pair)
        for forget, name in (
            (lambda: send.write(b"abc"), "SendStream.write"),
            (lambda: send.finish(), "SendStream.finish"),
            (lambda: recv.read_exactly(3), "RecvStream.read_exactly"),
        ):
            with pytest.warns(RuntimeWarning, match=f"'{name}' was never awaited"):
                forget()
        await send.write(b"abc")
        assert await recv.read() == b"abc"


async def test_a_read_closed_while_it_waits_leaves_the_stream_free(quic_pair):
    async with quic_pair() as pair:
        send, recv = await halves(pair)
        for leave in (
            lambda reading: reading.close(),
            lambda reading: thrown_into(reading),
            lambda reading: None,
        ):
            reading = recv.read()
            assert reading.send(None) is recv._waiter
            leave(reading)
            del reading
            assert recv._waiter is None
        assert pair.server.state.reading == {}
        await send.write(b"abc")
        assert await recv.read() == b"abc"


async def test_a_blocked_write_can_be_thrown_into_and_closed(quic_pair):
    small = TransportConfig(stream_receive_window=1000)
    async with quic_pair(server_transport=small) as pair:
        send, recv = await halves(pair)
        for leave in (
            lambda writing: writing.close(),
            lambda writing: thrown_into(writing),
        ):
            writing = send.write(bytes(5000))
            assert writing.send(None) is not None
            leave(writing)
            assert pair.client.state.writing == {}
        accepted = send.bytes_written - 1
        assert accepted == 999
        assert len(await recv.read_exactly(accepted)) == accepted


async def test_a_reader_that_nobody_holds_is_collected(quic_pair):
    async with quic_pair() as pair:
        _, recv = await halves(pair)

        class Marker:
            pass

        async def read(marker):
            await recv.read()

        marker = Marker()
        gone = weakref.ref(marker)
        reading = read(marker)
        reading.send(None)
        del marker, reading
        gc.collect()
        assert gone() is None
        assert recv._waiter is None
