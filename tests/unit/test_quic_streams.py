"""Streams between two engines on loopback: reading, writing, ends, leaving blocks."""

from __future__ import annotations

import array
import asyncio
import gc

import pytest

from aioiroh.errors import (
    BusyError,
    IncompleteReadError,
    ReadLimitError,
    StreamClosedError,
    StreamResetError,
    StreamStoppedError,
    WrongLoopError,
)
from aioiroh.quic import BiStream, RecvStream, SendStream, TransportConfig


@pytest.mark.loops
async def test_echo(quic_pair, loop_kind):
    async with quic_pair() as pair:
        stream = await pair.client.open_bi()
        await stream.write(b"hello")
        await stream.finish()
        send, recv = await pair.server.accept_bi()
        assert await recv.read_all(limit=10) == b"hello"
        await send.write(b"world")
        await send.finish()
        assert await stream.read_all(limit=10) == b"world"
        assert await stream.read() == b""
        await send.acked()
        assert await send.stopped() is None


@pytest.mark.loops
async def test_more_than_all_windows_in_one_write(quic_pair, loop_kind):
    data = bytes(range(256)) * (12 << 12)
    async with quic_pair() as pair:

        async def send():
            async with pair.client.open_uni() as stream:
                await stream.write(data)
                assert stream.bytes_written == len(data)

        async def receive():
            stream = await pair.server.accept_uni()
            return b"".join([chunk async for chunk in stream])

        _, received = await asyncio.gather(send(), receive())
        assert received == data


async def halves(pair) -> tuple[SendStream, RecvStream]:
    stream = await pair.client.open_uni()
    await stream.write(b"x")
    received = await pair.server.accept_uni()
    assert await received.read(1) == b"x"
    return stream, received


@pytest.mark.parametrize(
    "data",
    [bytearray(b"abcdefgh"), memoryview(b"abcdefgh"), memoryview(array.array("I", [1, 2]))],
    ids=["bytearray", "memoryview", "array"],
)
async def test_any_buffer_can_be_written(quic_pair, data):
    async with quic_pair() as pair:
        send, recv = await halves(pair)
        await send.write(data)
        assert await recv.read_exactly(8) == bytes(data)
        await send.write(b"")
        assert send.bytes_written == 9


async def test_reading_in_pieces(quic_pair):
    async with quic_pair() as pair:
        send, recv = await halves(pair)
        await send.write(b"0123456789")
        await send.finish()
        assert await recv.read_exactly(0) == b""
        assert await recv.read_exactly(4) == b"0123"
        buffer = bytearray(4)
        assert await recv.readinto(buffer) == 4
        assert buffer == b"4567"
        with pytest.raises(ValueError, match="at least 1"):
            await recv.read(0)
        with pytest.raises(ValueError, match="empty"):
            await recv.readinto(b"")
        with pytest.raises(IncompleteReadError) as caught:
            await recv.read_exactly(3)
        assert (caught.value.partial, caught.value.expected) == (b"89", 3)
        assert await recv.readinto(buffer) == 0
        assert await recv.read() == b""


async def test_readinto_waits(quic_pair):
    async with quic_pair() as pair:
        send, recv = await halves(pair)
        buffer = memoryview(bytearray(8))[2:6]
        reading = asyncio.create_task(recv.readinto(buffer))
        await asyncio.sleep(0)
        await send.write(b"abcdef")
        assert await reading == 4
        assert bytes(buffer) == b"abcd"
        assert await recv.read() == b"ef"


async def test_read_all_knows_its_limit(quic_pair):
    async with quic_pair() as pair:
        send, recv = await halves(pair)
        await send.write(b"12345")
        await send.finish()
        with pytest.raises(ReadLimitError):
            await recv.read_all(limit=4)
        send, recv = await halves(pair)
        await send.write(b"12345")
        await send.finish()
        assert await recv.read_all(limit=5) == b"12345"


async def test_a_second_reader_or_writer_is_refused(quic_pair):
    small = TransportConfig(stream_receive_window=1000)
    async with quic_pair(server_transport=small) as pair:
        send, recv = await halves(pair)
        reading = asyncio.create_task(recv.read())
        await asyncio.sleep(0)
        for attempt in (recv.read(), recv.read_exactly(1), recv.readinto(bytearray(1))):
            with pytest.raises(BusyError):
                await attempt
        await send.write(b"a")
        assert await reading == b"a"

        writing = asyncio.create_task(send.write(bytes(5000)))
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await send.write(b"b")
        with pytest.raises(BusyError):
            await send.finish()
        assert len(await recv.read_exactly(5000)) == 5000
        await writing


async def test_finish_and_reset_once(quic_pair):
    async with quic_pair() as pair:
        send, recv = await halves(pair)
        await send.finish()
        with pytest.raises(StreamClosedError):
            await send.finish()
        with pytest.raises(StreamClosedError):
            await send.write(b"late")
        assert await recv.read() == b""
        await send.acked()
        send.reset()
        await send.acked()


async def test_reset_reaches_the_reader(quic_pair):
    async with quic_pair() as pair:
        send, recv = await halves(pair)
        reading = asyncio.create_task(recv.read())
        await asyncio.sleep(0)
        send.reset(77)
        send.reset(78)
        with pytest.raises(StreamResetError) as caught:
            await reading
        assert caught.value.code == 77
        with pytest.raises(StreamResetError):
            await recv.read()
        recv.stop()
        with pytest.raises(StreamClosedError):
            await send.acked()
        assert await send.stopped() is None


async def test_stop_reaches_the_writer(quic_pair):
    small = TransportConfig(stream_receive_window=1000)
    async with quic_pair(server_transport=small) as pair:
        send, recv = await halves(pair)
        writing = asyncio.create_task(send.write(bytes(5000)))
        await asyncio.sleep(0.05)
        recv.stop(5)
        recv.stop(6)
        with pytest.raises(StreamStoppedError) as caught:
            await writing
        assert caught.value.code == 5
        assert await send.stopped() == 5
        with pytest.raises(StreamStoppedError):
            await send.acked()
        with pytest.raises(StreamStoppedError):
            await send.write(b"more")
        await send.finish()
        with pytest.raises(StreamClosedError):
            await recv.read()


async def test_writing_to_a_stopped_stream_fails_also_when_the_send_window_is_full(quic_pair):
    small = TransportConfig(send_window=1000)
    async with quic_pair(small) as pair:
        send, recv = await halves(pair)
        other, _ = await halves(pair)
        recv.stop(5)
        await asyncio.sleep(0.05)
        pair.server_node.driver._alarm.stop()
        filling = asyncio.create_task(other.write(bytes(5000)))
        await asyncio.sleep(0.05)
        with pytest.raises(StreamStoppedError):
            await send.write(b"more")
        filling.cancel()


async def test_stopped_is_known_also_when_nobody_waited(quic_pair):
    async with quic_pair() as pair:
        send, recv = await halves(pair)
        recv.stop(9)
        await asyncio.sleep(0.05)
        assert await send.stopped() == 9


async def test_stopping_wakes_the_own_reader(quic_pair):
    async with quic_pair() as pair:
        _, recv = await halves(pair)
        reading = asyncio.create_task(recv.read())
        await asyncio.sleep(0)
        recv.stop()
        with pytest.raises(StreamClosedError):
            await reading


async def test_resetting_wakes_the_own_writer(quic_pair):
    small = TransportConfig(stream_receive_window=1000)
    async with quic_pair(server_transport=small) as pair:
        send, recv = await halves(pair)
        writing = asyncio.create_task(send.write(bytes(5000)))
        await asyncio.sleep(0)
        send.reset(3)
        with pytest.raises(StreamClosedError):
            await writing
        with pytest.raises(StreamResetError):
            while await recv.read():
                pass


async def test_waiting_for_acknowledgement_and_stop_at_once(quic_pair):
    async with quic_pair() as pair:
        send, recv = await halves(pair)
        acked, stopped = asyncio.create_task(send.acked()), asyncio.create_task(send.stopped())
        abandoned = asyncio.create_task(send.acked())
        await asyncio.sleep(0)
        abandoned.cancel()
        await send.finish()
        assert await recv.read() == b""
        await acked
        assert await stopped is None


async def test_priority(quic_pair):
    async with quic_pair() as pair:
        send, _ = await halves(pair)
        assert send.priority == 0
        send.priority = -3
        assert send.priority == -3


async def test_streams_have_ids_and_connections(quic_pair):
    async with quic_pair() as pair:
        stream = await pair.client.open_bi()
        assert isinstance(stream, BiStream)
        assert (stream.id, stream.send.id, stream.recv.id) == (0, 0, 0)
        assert stream.connection is pair.client
        assert (await pair.client.open_uni()).id == 2
        assert "0" in repr(stream)


async def test_opening_waits_for_the_stream_limit(quic_pair):
    transport = TransportConfig(max_uni_streams=2)
    async with quic_pair(server_transport=transport) as pair:
        for _ in range(2):
            await (await pair.client.open_uni()).finish()
        opening = asyncio.ensure_future(pair.client.open_uni())
        await asyncio.sleep(0.02)
        assert not opening.done()
        assert await (await pair.server.accept_uni()).read() == b""
        third = await opening
        assert third.id == 2 + 8


# --- leaving blocks (rule 5)


async def test_a_clean_exit_finishes_and_stops(quic_pair):
    async with quic_pair() as pair:
        async with pair.client.open_bi() as stream:
            await stream.write(b"request")
        send, recv = await pair.server.accept_bi()
        assert await recv.read_all(limit=10) == b"request"
        assert await send.stopped() == 0


async def test_a_clean_exit_after_the_end_stops_nothing(quic_pair):
    async with quic_pair() as pair:
        async with pair.client.open_bi() as stream:
            await stream.write(b"request")
            await stream.finish()
            send, recv = await pair.server.accept_bi()
            await send.write(b"reply")
            await send.finish()
            # The end has arrived with the last bytes, and is not read.
            assert await stream.read_exactly(5) == b"reply"
        assert await send.stopped() is None
        assert await recv.read_all(limit=10) == b"request"


async def test_an_exception_resets_both_directions(quic_pair):
    async with quic_pair() as pair:
        with pytest.raises(ZeroDivisionError):
            async with pair.client.open_bi() as stream:
                await stream.write(b"request")
                send, recv = await pair.server.accept_bi()
                assert await recv.read() == b"request"
                raise ZeroDivisionError
        with pytest.raises(StreamResetError):
            await recv.read()
        assert await send.stopped() == 0


async def test_halves_are_blocks_too(quic_pair):
    async with quic_pair() as pair:
        send, recv = await halves(pair)
        with pytest.raises(ZeroDivisionError):
            async with send:
                raise ZeroDivisionError
        async with recv:
            with pytest.raises(StreamResetError):
                await recv.read()
        send, recv = await halves(pair)
        async with recv:
            pass
        assert await send.stopped() == 0
        async with send:
            pass


async def test_streams_that_go_away_are_finished_and_stopped(quic_pair):
    async with quic_pair() as pair:
        stream = await pair.client.open_bi()
        await stream.write(b"x")
        send, recv = await pair.server.accept_bi()
        assert await recv.read(1) == b"x"
        del stream
        gc.collect()
        assert await recv.read() == b""
        assert await send.stopped() == 0


async def test_a_stream_stays_alive_while_somebody_waits(quic_pair):
    async with quic_pair() as pair:

        async def ask():
            stream = await pair.client.open_bi()
            await stream.write(b"x")
            return await stream.read()

        asking = asyncio.create_task(ask())
        send, _recv = await pair.server.accept_bi()
        gc.collect()
        await send.write(b"y")
        assert await asking == b"y"


@pytest.mark.parametrize("end", ["reset", "drop"])
async def test_a_peer_that_stops_every_stream_leaves_nothing_behind(quic_pair, end):
    async with quic_pair() as pair:
        for _ in range(20):
            stream = await pair.client.open_bi()
            await stream.write(b"x")
            send, recv = await pair.server.accept_bi()
            assert await recv.read() == b"x"
            if end == "reset":
                stream.recv.stop(7)
                await asyncio.sleep(0.005)
                send.reset(0)
            else:
                del send, recv
                stream.recv.stop(7)
            stream.send.reset(0)
        del stream
        for _ in range(100):
            if not pair.server.state.sending:
                break
            await asyncio.sleep(0.01)
        assert not pair.server.state.stop_codes
        assert not pair.server.state.sending


async def test_the_block_of_a_connection_waits_for_what_a_dropped_stream_has_sent(quic_pair):
    async with quic_pair() as pair:
        data = bytes(1 << 20)
        async with pair.client as client:
            stream = await client.open_uni()
            await stream.write(data)
            del stream
            await asyncio.sleep(0)
            reading = asyncio.ensure_future(
                (await pair.server.accept_uni()).read_all(limit=2 << 20)
            )
        assert await reading == data


async def test_numbers_out_of_range_are_value_errors(quic_pair):
    async with quic_pair() as pair:
        stream = await pair.client.open_bi()
        for wrong in (-1, 2**62):
            with pytest.raises(ValueError, match="code"):
                stream.send.reset(wrong)
            with pytest.raises(ValueError, match="code"):
                stream.recv.stop(wrong)
        for wrong in (-(2**31) - 1, 2**31):
            with pytest.raises(ValueError, match="priority"):
                stream.send.priority = wrong
        with pytest.raises(ValueError, match="range"):
            pair.client.set_max_concurrent_bi_streams(-1)
        with pytest.raises(ValueError, match="range"):
            pair.client.export_keying_material(b"label", b"", -1)
        await stream.write(b"still open")


async def test_properties_belong_to_the_loop_as_methods_do(quic_pair):
    async with quic_pair() as pair:
        stream = await pair.client.open_uni()
        for call in (
            lambda: stream.priority,
            lambda: setattr(stream, "priority", 1),
            lambda: pair.client.paths,
            lambda: pair.client.rtt,
        ):
            with pytest.raises(WrongLoopError):
                await asyncio.to_thread(call)
