"""Connections between two engines on loopback: ends, serving, datagrams, limits, early data."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging

import pytest

from aioiroh import PathSelected, _native
from aioiroh.errors import (
    ApplicationClosedError,
    AuthenticationError,
    BusyError,
    ConnectionTimeoutError,
    DatagramError,
    EndpointClosedError,
    LocallyClosedError,
    PeerTransportError,
    StreamResetError,
    TransportError,
    ZeroRttRejectedError,
)
from aioiroh.quic import TransportConfig

ALPN = b"test/1"


async def test_who_is_who(quic_pair):
    async with quic_pair() as pair:
        assert bytes(pair.client.remote_id) == pair.server_node.id
        assert bytes(pair.server.remote_id) == pair.client_node.id
        assert pair.client.alpn == pair.server.alpn == ALPN
        assert (pair.client.side, pair.server.side) == ("client", "server")
        assert not pair.client.is_early
        assert pair.client.export_keying_material(
            b"label", b"context", 32
        ) == pair.server.export_keying_material(b"label", b"context", 32)
        assert 0 < pair.client.rtt < 1
        assert pair.client.stats()
        first, _ = await pair.connect()
        assert first.stable_id != pair.client.stable_id


@pytest.mark.loops
async def test_the_close_code_reaches_the_peer(quic_pair, loop_kind):
    async with quic_pair() as pair:
        pair.client.close(42, b"enough")
        reason = await pair.server.closed()
        assert isinstance(reason, ApplicationClosedError)
        assert (reason.code, reason.reason) == (42, b"enough")
        assert isinstance(await pair.client.closed(), LocallyClosedError)
        assert isinstance(pair.client.close_reason, LocallyClosedError)
        pair.client.close(43)
        pair.server.close(44)
        assert pair.server.close_reason.code == 42


@pytest.mark.parametrize("code", [-1, 2**62])
async def test_close_codes_have_a_range(quic_pair, code):
    async with quic_pair() as pair:
        with pytest.raises(ValueError, match=r"2\*\*62"):
            pair.client.close(code)


async def waiters(pair):
    """One task for everything that can wait on the server's connection."""
    connection = pair.server
    send = await pair.client.open_uni()
    await send.write(b"x")
    recv = await connection.accept_uni()
    assert await recv.read() == b"x"
    blocked = await connection.open_uni()
    watched = await connection.open_uni()

    async def open_many():
        streams = [await connection.open_uni() for _ in range(200)]
        assert not streams

    async def watch_paths():
        return await connection.paths.changed(connection.paths.version)

    return send, [
        asyncio.create_task(waiter)
        for waiter in (
            recv.read(),
            blocked.write(bytes(1 << 25)),
            watched.acked(),
            watched.stopped(),
            connection.accept_bi(),
            connection.accept_uni(),
            open_many(),
            connection.read_datagram(),
            watch_paths(),
        )
    ]


@pytest.mark.loops
@pytest.mark.parametrize("by", ["peer", "self"])
async def test_everybody_who_waits_learns_of_the_end(quic_pair, by, loop_kind):
    async with quic_pair() as pair:
        _open, tasks = await waiters(pair)
        await asyncio.sleep(0.05)
        assert [task for task in tasks if task.done()] == []
        (pair.client if by == "peer" else pair.server).close(7, b"bye")
        async with asyncio.timeout(2):
            results = await asyncio.gather(*tasks, return_exceptions=True)
        expected = ApplicationClosedError if by == "peer" else LocallyClosedError
        assert [type(result) for result in results] == [expected] * len(tasks)
        assert len({id(result) for result in results}) == len(results)


async def test_everything_fails_after_the_end(quic_pair):
    async with quic_pair() as pair:
        connection = pair.server
        stream = await connection.open_uni()
        connection.close()
        await asyncio.sleep(0.02)
        for attempt in (
            connection.open_bi(),
            connection.accept_bi(),
            connection.accept_uni(),
            connection.read_datagram(),
            connection.send_datagram_wait(b"x"),
            stream.write(b"x"),
            stream.finish(),
            stream.acked(),
            stream.stopped(),
        ):
            with pytest.raises(LocallyClosedError):
                await attempt
        with pytest.raises(LocallyClosedError):
            connection.send_datagram(b"x")
        stream.reset()
        assert [stream async for stream in connection.incoming_uni()] == []
        assert [data async for data in connection.datagrams()] == []
        assert [event async for event in connection.path_events()] == []


@pytest.mark.parametrize("pause", [0.05, 1.0], ids=["draining", "drained"])
async def test_what_arrived_before_the_end_stays_readable(quic_pair, pause):
    async with quic_pair() as pair:
        send = await pair.client.open_uni()
        await send.write(b"first, ")
        recv = await pair.server.accept_uni()
        await send.write(b"last")
        await send.finish()
        await send.acked()
        pair.client.send_datagram(b"datagram")
        other = await pair.client.open_uni()
        await other.write(b"unseen")
        await other.finish()
        await other.acked()
        pair.client.close()
        await pair.server.closed()
        await asyncio.sleep(pause)
        assert await recv.read_all(limit=100) == b"first, last"
        assert await (await pair.server.accept_uni()).read_all(limit=100) == b"unseen"
        assert await pair.server.read_datagram() == b"datagram"
        with pytest.raises(ApplicationClosedError):
            await pair.server.accept_uni()
        with pytest.raises(ApplicationClosedError):
            await pair.server.read_datagram()


async def test_silence_is_a_timeout(quic_pair):
    transport = TransportConfig(idle_timeout=0.3, keep_alive=None, path_keep_alive=0.01)
    async with quic_pair(transport) as pair:
        pair.server_node.driver._alarm.stop()
        async with asyncio.timeout(5):
            reason = await pair.client.closed()
        assert isinstance(reason, ConnectionTimeoutError)
        assert isinstance(reason, TimeoutError)


async def test_a_wrong_key_and_a_wrong_protocol_are_told_apart(quic_pair):
    async with quic_pair() as pair:
        client, server = pair.client_node.driver, pair.server_node
        other = _native.public_key(b"\3" * 32)
        connection = client.connect(server.address, other, [ALPN])
        accepted = (await server.driver.accept()).accept()
        with pytest.raises(TransportError, match="TLS alert unknown_ca"):
            await connection.handshake_completed()
        with pytest.raises(PeerTransportError):
            await accepted.handshake_completed()
        with pytest.raises(AuthenticationError):
            _ = accepted.remote_id

        connection = client.connect(server.address, server.id, [b"other"])
        incoming = await server.driver.accept()
        with pytest.raises(TransportError, match="no_application_protocol"):
            incoming.accept()
        with pytest.raises(PeerTransportError, match="no_application_protocol"):
            await connection.handshake_completed()
        with pytest.raises(AuthenticationError):
            _ = connection.alpn


# --- leaving the block (rule 5)


async def test_a_clean_exit_waits_for_acknowledgements(quic_pair):
    data = bytes(3_000_000)
    async with quic_pair() as pair:

        async def receive():
            recv = await pair.server.accept_uni()
            return await recv.read_all(limit=len(data))

        receiving = asyncio.create_task(receive())
        async with pair.client as connection, connection.open_uni() as stream:
            await stream.write(data)
        assert await receiving == data
        reason = await pair.server.closed()
        assert reason.code == 0


async def test_a_clean_exit_does_not_wait_for_ever(quic_pair, monkeypatch):
    monkeypatch.setattr("aioiroh.quic.connection.LINGER", 0.1)
    small = TransportConfig(stream_receive_window=1000)
    async with quic_pair(server_transport=small) as pair:
        async with pair.client as connection:
            stream = await connection.open_uni()
            writing = asyncio.create_task(stream.write(bytes(5000)))
            other = await connection.open_uni()
            await other.write(bytes(1000))
            await other.finish()
            await asyncio.sleep(0.02)
            pair.server_node.driver._alarm.stop()
            third = await connection.open_uni()
            await third.finish()
        with pytest.raises(LocallyClosedError):
            await writing


async def test_an_exception_closes_at_once(quic_pair):
    async with quic_pair() as pair:
        with pytest.raises(ZeroDivisionError):
            async with pair.client:
                raise ZeroDivisionError
        assert isinstance(pair.client.close_reason, LocallyClosedError)
        assert (await pair.server.closed()).code == 0


async def test_a_dropped_connection_is_closed(quic_pair):
    async with quic_pair() as pair:
        dialled, accepted = await pair.connect()
        stream = await dialled.open_uni()
        await stream.write(b"x")
        del dialled
        recv = await accepted.accept_uni()
        assert await recv.read() == b"x"
        with pytest.warns(ResourceWarning, match="unclosed <Connection open"):
            del stream
        assert (await accepted.closed()).code == 0


# --- serve


@pytest.mark.loops
async def test_serve_answers_every_stream(quic_pair, loop_kind):
    async with quic_pair() as pair:
        running = most = 0

        async def double(stream):
            nonlocal running, most
            running += 1
            most = max(most, running)
            data = await stream.read_all(limit=100)
            await asyncio.sleep(0.001)
            await stream.write(data * 2)
            running -= 1

        serving = asyncio.create_task(pair.server.serve(double, limit=5))

        async def ask(number):
            async with pair.client.open_bi() as stream:
                await stream.write(b"%d" % number)
                await stream.finish()
                assert await stream.read_all(limit=100) == b"%d" % number * 2

        await asyncio.gather(*map(ask, range(150)))
        assert most == 5
        pair.client.close()
        await serving


async def test_a_failing_handler_resets_its_stream_only(quic_pair, caplog):
    caplog.set_level(logging.ERROR, "aioiroh")
    async with quic_pair() as pair:

        async def fail_on_empty(stream):
            data = await stream.read_all(limit=100)
            if not data:
                raise ZeroDivisionError
            await stream.write(data)

        serving = asyncio.create_task(pair.server.serve(fail_on_empty))
        stream = await pair.client.open_bi()
        await stream.finish()
        with pytest.raises(StreamResetError):
            await stream.read()
        stream = await pair.client.open_bi()
        await stream.write(b"fine")
        await stream.finish()
        assert await stream.read_all(limit=10) == b"fine"
        assert "ZeroDivisionError" in caplog.text
        pair.server.close()
        await serving


async def test_serve_cancels_its_handlers(quic_pair):
    async with quic_pair() as pair:
        ends = []

        async def hang(stream):
            try:
                await asyncio.Event().wait()
            finally:
                ends.append(stream.id)

        serving = asyncio.create_task(pair.server.serve(hang))
        for _ in range(3):
            await (await pair.client.open_bi()).write(b"x")
        await asyncio.sleep(0.05)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        assert sorted(ends) == [0, 4, 8]
        with pytest.raises(ValueError, match="limit"):
            await pair.server.serve(hang, limit=0)


async def ask(connection, question=b"?"):
    async with connection.open_bi() as stream:
        await stream.write(question)
        await stream.finish()
        return await stream.read_all(limit=100)


async def test_handlers_leave_nothing_behind_for_the_next(quic_pair):
    mark = contextvars.ContextVar("mark", default="none")
    async with quic_pair() as pair:
        tasks = []

        async def answer(stream):
            tasks.append(asyncio.current_task())
            question = await stream.read_all(limit=100)
            await stream.write(mark.get().encode())
            if question == b"mark":
                mark.set("marked")
            if question == b"cancel":
                asyncio.current_task().cancel()

        serving = asyncio.create_task(pair.server.serve(answer))
        assert [await ask(pair.client) for _ in range(3)] == [b"none"] * 3
        assert len(set(tasks)) == 1
        assert await ask(pair.client, b"mark") == b"none"
        assert await ask(pair.client) == b"none"
        await ask(pair.client, b"cancel")
        assert await ask(pair.client) == b"none"
        assert len(set(tasks)) == 3
        serving.cancel()


async def test_slow_handlers_do_not_hold_up_others(quic_pair):
    """Also when they come one after another, and when their tasks end."""
    async with quic_pair() as pair:
        release = asyncio.Event()
        waiting = 0

        async def answer(stream):
            nonlocal waiting
            if await stream.read_all(limit=100) == b"slow":
                waiting += 1
                await release.wait()
            await stream.write(b"!")

        serving = asyncio.create_task(pair.server.serve(answer, limit=21))
        slow = [asyncio.create_task(ask(pair.client, b"slow")) for _ in range(20)]
        while waiting < 20:
            assert await ask(pair.client) == b"!"
        assert await asyncio.gather(*(ask(pair.client) for _ in range(50))) == [b"!"] * 50
        release.set()
        assert await asyncio.gather(*slow) == [b"!"] * 20
        # Few tasks stay to wait for more.
        while sum(task.get_name().startswith("serve: ") for task in asyncio.all_tasks()) > 4:
            await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await pair.server.serve(answer)
        serving.cancel()


async def test_incoming_streams_end_with_the_connection(quic_pair):
    async with quic_pair() as pair:

        async def collect(streams):
            return [stream.id async for stream in streams]

        collecting = asyncio.gather(
            collect(pair.server.incoming_bi()), collect(pair.server.incoming_uni())
        )
        await (await pair.client.open_bi()).write(b"x")
        await (await pair.client.open_uni()).write(b"x")
        await asyncio.sleep(0.05)
        pair.client.close()
        assert await collecting == [[0], [2]]


# --- datagrams


@pytest.mark.loops
async def test_datagrams(quic_pair, loop_kind):
    async with quic_pair() as pair:
        reading = asyncio.create_task(pair.server.read_datagram())
        await asyncio.sleep(0)
        pair.client.send_datagram(b"one")
        assert await reading == b"one"
        for number in range(100):
            await pair.client.send_datagram_wait(b"%d" % number)
        received = [await pair.server.read_datagram() for _ in range(100)]
        assert received == [b"%d" % number for number in range(100)]
        assert pair.client.datagram_send_buffer_space > 0
        size = pair.client.max_datagram_size
        assert size > 1000
        with pytest.raises(DatagramError) as caught:
            pair.client.send_datagram(bytes(size + 1))
        assert caught.value.kind == "too_large"


async def test_waiting_for_room_sends_every_datagram(quic_pair):
    transport = TransportConfig(datagram_send_buffer=5000)
    async with quic_pair(transport) as pair:
        sending = asyncio.create_task(asyncio.wait_for(_send_many(pair.client, 500), 10))
        received = [await pair.server.read_datagram() for _ in range(500)]
        await sending
        assert len(received) == 500


async def _send_many(connection, count):
    for _ in range(count):
        await connection.send_datagram_wait(bytes(900))


async def test_datagrams_can_be_switched_off(quic_pair):
    off = TransportConfig(datagram_receive_buffer=None)
    async with quic_pair(server_transport=off) as pair:
        with pytest.raises(DatagramError) as caught:
            pair.client.send_datagram(b"x")
        assert caught.value.kind == "unsupported"
        assert pair.client.max_datagram_size is None


# --- paths and limits


async def test_paths(quic_pair):
    async with quic_pair() as pair:
        (path,) = pair.client.paths.value
        assert path.id == 0
        assert path.remote == pair.server_node.address
        assert path.status == "available"
        assert path.rtt > 0
        assert path.measurements
        seen = []

        async def watch():
            async for paths in pair.client.paths:
                seen.append(paths)

        watching = asyncio.create_task(watch())
        await asyncio.sleep(0)
        pair.client.close()
        await watching
        assert len(seen) == 1


async def test_slow_path_subscribers_are_told_what_they_missed(quic_pair):
    async with quic_pair() as pair:
        events = pair.client.path_events()
        first = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0)
        state = pair.client.state
        for number in range(100):
            state.on_path_established(number, (("10.0.0.1", number), None))
        assert (await first).missed == 36
        assert (await anext(events)).id == 36
        state.on_path_abandoned(5, ("timeout", None))
        state.on_path_discarded(5, {"lost": 1})
        state.on_path_remote_status(5, "backup")
        state.on_path_remote_status(5, "available")
        state.on_path_observed(5, ("10.0.0.2", 1))
        state.on_nat_address(1, ("10.0.0.3", 1))
        state.paths.on_local_status(7, "available")
        state.paths.on_local_status(7, "backup")
        state.paths.on_local_status(8, "available")
        pair.client.close()
        rest = [event async for event in events]
        assert rest.pop() == PathSelected(8)
        assert rest[-5].id == 99
        assert [type(event).__name__ for event in rest[-4:]] == [
            "PathClosed",
            "PathStatusChanged",
            "AddressObserved",
            "PeerCandidate",
        ]
        assert rest[-3].status == "available"


async def test_limits_can_change_at_run_time(quic_pair):
    transport = TransportConfig(max_uni_streams=1, max_bidi_streams=0)
    async with quic_pair(server_transport=transport) as pair:
        await pair.client.open_uni()
        opening = [
            asyncio.ensure_future(pair.client.open_uni()),
            asyncio.ensure_future(pair.client.open_bi()),
        ]
        await asyncio.sleep(0.02)
        assert not any(task.done() for task in opening)
        pair.server.set_max_concurrent_uni_streams(2)
        pair.server.set_max_concurrent_bi_streams(1)
        async with asyncio.timeout(2):
            await asyncio.gather(*opening)
        pair.server.set_receive_window(1 << 20)
        pair.server.set_send_window(1 << 20)


# --- early data


async def test_early_data_accepted(quic_pair):
    async with quic_pair() as pair:
        await asyncio.sleep(0.05)  # tickets come after the handshake
        client, server = pair.client_node.driver, pair.server_node
        connection = client.connect(server.address, server.id, [ALPN], early_data=True)
        assert connection.is_early
        stream = await connection.open_bi()
        await stream.write(b"early")
        await stream.finish()
        accepted = (await server.driver.accept()).accept()
        assert accepted.is_early
        received = await accepted.accept_bi()
        assert received.recv.is_early
        assert await received.read_all(limit=10) == b"early"
        await received.write(b"reply")
        await received.finish()
        assert await connection.handshake_completed() is True
        assert not connection.is_early
        assert await stream.read_all(limit=10) == b"reply"
        await accepted.handshake_completed()
        later = await connection.open_bi()
        await later.write(b"late")
        assert not (await accepted.accept_bi()).recv.is_early


async def test_early_data_rejected(quic_pair, quic_node):
    async with quic_pair() as pair:
        await asyncio.sleep(0.05)
        await pair.server_node.driver.aclose(timeout=0)
        # The same identity without its memory of tickets.
        server = quic_node(b"\2" * 32)
        try:
            client = pair.client_node.driver
            connection = client.connect(server.address, server.id, [ALPN], early_data=True)
            assert connection.is_early
            stream = await connection.open_bi()
            await stream.write(b"early")
            reading = asyncio.create_task(stream.read())
            acked = asyncio.create_task(stream.send.acked())
            blocked = await connection.open_uni()
            writing = asyncio.create_task(blocked.write(bytes(1 << 24)))
            await asyncio.sleep(0)
            accepted = (await server.driver.accept()).accept()
            assert await connection.handshake_completed() is False
            for task in (reading, acked, writing):
                with pytest.raises(ZeroRttRejectedError):
                    await task
            for attempt in (stream.write(b"x"), stream.finish(), stream.read()):
                with pytest.raises(ZeroRttRejectedError):
                    await attempt
            with pytest.raises(ZeroRttRejectedError):
                stream.reset()

            again = await connection.open_bi()
            assert again.id == stream.id
            del stream, blocked
            gc.collect()
            await again.write(b"again")
            await again.finish()
            await accepted.handshake_completed()
            received = await accepted.accept_bi()
            assert await received.read_all(limit=10) == b"again"
            assert not received.recv.is_early
        finally:
            await server.driver.aclose(timeout=0)


async def test_without_a_ticket_nothing_is_early(quic_pair, quic_node):
    async with quic_pair() as pair:
        client = quic_node(b"\4" * 32)
        try:
            server = pair.server_node
            connection = client.driver.connect(server.address, server.id, [ALPN], early_data=True)
            assert not connection.is_early
            accepted = (await server.driver.accept()).accept()
            assert await connection.handshake_completed() is False
            assert not accepted.is_early or not await accepted.handshake_completed()
        finally:
            await client.driver.aclose(timeout=0)


# --- incoming


async def test_answers_to_incoming_connections(quic_pair):
    async with quic_pair() as pair:
        client, server = pair.client_node, pair.server_node

        def dial():
            return client.driver.connect(server.address, server.id, [ALPN, b"second"])

        connection = dial()
        incoming = await server.driver.accept()
        assert incoming.remote_address == client.address
        assert incoming.alpns == (ALPN, b"second")
        assert not incoming.validated
        assert incoming.may_retry
        incoming.refuse()
        with pytest.raises(RuntimeError):
            incoming.accept()
        with pytest.raises(PeerTransportError, match="CONNECTION_REFUSED"):
            await connection.handshake_completed()

        connection = dial()
        assert (await server.driver.accept()).retry()
        incoming = await server.driver.accept()
        assert incoming.validated
        assert not incoming.retry()
        accepted = incoming.accept(alpns=[b"second"])
        await connection.handshake_completed()
        assert connection.alpn == b"second"
        await accepted.handshake_completed()
        connection.close()
        accepted.close()

        connection = dial()
        incoming = await server.driver.accept()
        del incoming
        gc.collect()
        with pytest.raises(PeerTransportError, match="CONNECTION_REFUSED"):
            await connection.handshake_completed()

        connection = dial()
        incoming = await server.driver.accept()
        incoming.ignore()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.handshake_completed(), 0.1)
        connection.close()


async def test_too_many_waiting_connections_are_refused(quic_pair):
    async with quic_pair() as pair:
        client, server = pair.client_node.driver, pair.server_node
        server.driver.incoming.limit = 2
        dialled = [client.connect(server.address, server.id, [ALPN]) for _ in range(3)]
        with pytest.raises(PeerTransportError, match="CONNECTION_REFUSED"):
            await dialled[2].handshake_completed()
        accepted = [(await server.driver.accept()).accept() for _ in range(2)]
        for connection in (*dialled[:2], *accepted):
            await connection.handshake_completed()


async def test_answers_that_come_too_late(quic_pair):
    async with quic_pair() as pair:
        client, server = pair.client_node.driver, pair.server_node
        dialled = [client.connect(server.address, server.id, [ALPN]) for _ in range(5)]
        incoming = [await server.driver.accept() for _ in dialled]
        for late in incoming[:4]:
            # As the engine does when a request is too old.
            server.driver.engine.ignore(late._number)
        incoming[0].refuse()
        incoming[1].ignore()
        for late in (incoming[2].accept, incoming[3].retry):
            with pytest.raises(ConnectionTimeoutError, match="too long"):
                late()
        await server.driver.aclose()
        with pytest.raises(EndpointClosedError):
            incoming[4].accept()
        incoming[4].refuse()
        for connection in dialled:
            connection.close()
