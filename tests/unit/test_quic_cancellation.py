"""Cancellation is normal: nothing is lost, and what was accepted is known (rule 4)."""

from __future__ import annotations

import asyncio
import random

import pytest

from aioiroh.quic import TransportConfig


async def streams(pair):
    send = await pair.client.open_uni()
    await send.write(b"x")
    recv = await pair.server.accept_uni()
    assert await recv.read(1) == b"x"
    return send, recv


def drive(pair):
    """Lets both engines work outside a turn of their drivers: tasks that are woken do not run yet."""
    for driver in (pair.client_node.driver, pair.server_node.driver):
        driver._hear(driver.engine.step)
        driver._hear(driver.engine.flush)


async def test_a_cancelled_read_leaves_the_next_bytes(quic_pair):
    async with quic_pair() as pair:
        send, recv = await streams(pair)
        reading = asyncio.create_task(recv.read())
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await send.write(b"abc")
        assert await recv.read_exactly(3) == b"abc"


async def test_a_read_cancelled_after_its_answer_came_keeps_it(quic_pair):
    async with quic_pair() as pair:
        send, recv = await streams(pair)
        reading = asyncio.create_task(recv.read())
        await asyncio.sleep(0)
        await send.write(b"abcdef")
        await send.finish()
        while not recv._waiter.done():
            drive(pair)
        # The answer is there and the task has not run since.
        assert not reading.done()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await recv.read(2) == b"ab"
        buffer = bytearray(2)
        assert await recv.readinto(buffer) == 2
        assert buffer == b"cd"
        assert await recv.read_all(limit=2) == b"ef"


async def test_an_answer_after_the_cancellation_is_kept(quic_pair):
    async with quic_pair() as pair:
        _, recv = await streams(pair)
        reading = asyncio.create_task(recv.read())
        await asyncio.sleep(0)
        reading.cancel()
        # The engine's answer, dispatched before the cancelled task runs.
        recv._state.deliver(1, ((recv.id, b"early", False),))
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert await recv.read() == b"early"


@pytest.mark.parametrize("operation", ["read_exactly", "read_all"])
async def test_composed_reads_give_back_their_pieces(quic_pair, operation):
    async with quic_pair() as pair:
        send, recv = await streams(pair)
        reading = asyncio.create_task(
            recv.read_exactly(10) if operation == "read_exactly" else recv.read_all(limit=100)
        )
        await asyncio.sleep(0)
        for piece in (b"ab", b"cd"):
            await send.write(piece)
            await asyncio.sleep(0.02)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await send.write(b"ef")
        await send.finish()
        assert await recv.read_all(limit=100) == b"abcdef"


async def test_a_cancelled_write_says_how_far_it_came(quic_pair):
    small = TransportConfig(stream_receive_window=1000)
    async with quic_pair(server_transport=small) as pair:
        send, recv = await streams(pair)
        data = bytes(range(256)) * 20
        writing = asyncio.create_task(send.write(data))
        await asyncio.sleep(0.02)
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        accepted = send.bytes_written - 1
        assert 0 < accepted < len(data)

        async def rest():
            await send.write(data[accepted:])
            await send.finish()

        _, received = await asyncio.gather(rest(), recv.read_all(limit=len(data)))
        assert received == data


@pytest.mark.loops
@pytest.mark.parametrize("seed", range(4))
async def test_random_cancellation_loses_and_repeats_nothing(quic_pair, loop_kind, seed):
    chance = random.Random(seed)
    data = chance.randbytes(300_000)
    window = TransportConfig(stream_receive_window=chance.choice([500, 5_000, 50_000]))
    async with quic_pair(server_transport=window) as pair:
        send, recv = await streams(pair)

        async def pause():
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            if chance.random() < 0.2:
                await asyncio.sleep(chance.random() / 1000)

        async def interrupted(operation):
            task = asyncio.create_task(operation)
            await pause()
            if chance.random() < 0.5:
                task.cancel()
            try:
                return await task
            except asyncio.CancelledError:
                return None

        async def write():
            while (done := send.bytes_written - 1) < len(data):
                await interrupted(send.write(data[done : done + chance.randrange(1, 40_000)]))
            await send.finish()

        async def read():
            received = bytearray()
            while True:
                size = chance.randrange(1, 20_000)
                match chance.randrange(3):
                    case 0:
                        piece = await interrupted(recv.read(size))
                    case 1:
                        piece = await interrupted(
                            recv.read_exactly(min(size, len(data) - len(received)))
                        )
                        if piece == b"":
                            piece = await recv.read()
                    case _:
                        buffer = bytearray(size)
                        count = await interrupted(recv.readinto(buffer))
                        piece = None if count is None else bytes(buffer[:count])
                if piece == b"":
                    return bytes(received)
                received += piece or b""

        async with asyncio.timeout(60):
            _, received = await asyncio.gather(write(), read())
        assert received == data


async def test_cancelled_waiting_for_streams_loses_none(quic_pair):
    async with quic_pair() as pair:
        accepting = asyncio.create_task(pair.server.accept_uni())
        await asyncio.sleep(0)
        accepting.cancel()
        await (await pair.client.open_uni()).write(b"1")
        other = asyncio.create_task(pair.server.accept_uni())
        stream = await other
        assert await stream.read() == b"1"
        assert pair.server.state.waiting == {}


async def test_cancelled_waiting_for_connections_loses_none(quic_pair, quic_connect):
    async with quic_pair() as pair:
        accept = pair.server_node.driver.accept
        first, second = asyncio.create_task(accept()), asyncio.create_task(accept())
        await asyncio.sleep(0)
        dialled = pair.client_node.driver.connect(
            pair.server_node.address, pair.server_node.id, [b"test/1"]
        )
        while not pair.server_node.driver.incoming:
            drive(pair)
        first.cancel()
        async with asyncio.timeout(5):
            incoming = await second
        incoming.ignore()
        dialled.close()
