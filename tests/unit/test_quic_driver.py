"""The driver: failures of the engine, wrong loops, closing, the portable alarm, virtual slots."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading

import pytest

from aioiroh import _native
from aioiroh.errors import (
    ConnectionLostError,
    EndpointClosedError,
    EndpointFailedError,
    LocallyClosedError,
    WrongLoopError,
)
from aioiroh.quic import Driver, TransportConfig

ALPN = b"test/1"

SO_NO_CHECK = 11


async def echo_once(dialled, accepted):
    stream = await dialled.open_bi()
    await stream.write(b"ping")
    await stream.finish()
    received = await accepted.accept_bi()
    assert await received.read_all(limit=10) == b"ping"
    await received.write(b"pong")
    await received.finish()
    assert await stream.read_all(limit=10) == b"pong"


async def test_a_panic_in_a_connection_ends_that_connection(quic_pair):
    async with quic_pair() as pair:
        other, other_accepted = await pair.connect()
        reading = asyncio.create_task(pair.client.accept_bi())
        await asyncio.sleep(0)
        pair.client_node.driver.engine.panic("connection")
        pair.client.send_datagram(b"x")
        with pytest.raises(ConnectionLostError, match="report"):
            await reading
        await echo_once(other, other_accepted)


@pytest.mark.loops
async def test_a_panic_in_the_endpoint_fails_every_await(quic_pair, loop_kind, caplog):
    async with quic_pair() as pair:
        driver = pair.client_node.driver
        tasks = [
            asyncio.create_task(waiter)
            for waiter in (pair.client.accept_bi(), pair.client.read_datagram(), driver.accept())
        ]
        closed = asyncio.create_task(pair.client.closed())
        await asyncio.sleep(0)
        driver.engine.panic("endpoint")
        pair.server.send_datagram(b"wake up")
        for task in (*tasks, closed):
            with pytest.raises(EndpointFailedError):
                await task
        with pytest.raises(EndpointFailedError):
            await pair.client.open_bi()
        with pytest.raises(EndpointFailedError):
            await driver.accept()
        with pytest.raises(EndpointFailedError):
            driver.connect(pair.server_node.address, pair.server_node.id, [ALPN])
        assert "dead" in caplog.text
        await driver.aclose()


async def test_an_error_in_dispatch_is_no_silent_stall(quic_pair, monkeypatch, caplog):
    async with quic_pair() as pair:
        reading = asyncio.create_task(pair.client.accept_bi())
        await asyncio.sleep(0)

        def broken(*_):
            raise ZeroDivisionError

        monkeypatch.setitem(
            __import__("aioiroh.quic.state", fromlist=["HANDLERS"]).HANDLERS,
            _native.EV_STREAMS_OPENED,
            broken,
        )
        await (await pair.server.open_bi()).write(b"x")
        with pytest.raises(EndpointFailedError) as caught:
            await reading
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_use_from_another_thread_or_loop_is_refused(quic_pair):
    async with quic_pair() as pair:
        stream = await pair.client.open_bi()
        await stream.write(b"x")
        errors = []

        async def misuse():
            for call in (
                lambda: stream.write(b"x"),
                lambda: stream.read(),
                lambda: stream.readinto(bytearray(1)),
                lambda: stream.finish(),
                lambda: stream.send.acked(),
                lambda: pair.client.open_bi(),
                lambda: pair.client.accept_bi(),
                lambda: pair.client.read_datagram(),
                lambda: pair.client.closed(),
                lambda: pair.client.handshake_completed(),
                lambda: pair.client_node.driver.accept(),
                lambda: pair.client_node.driver.aclose(),
            ):
                try:
                    await call()
                except WrongLoopError as error:
                    errors.append(error)

        thread = threading.Thread(target=lambda: asyncio.run(misuse()))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert len(errors) == 12
        for call in (
            lambda: pair.client.send_datagram(b"x"),
            lambda: pair.client.close(),
            lambda: stream.reset(),
            lambda: stream.recv.stop(),
            lambda: pair.client.stats(),
        ):
            with pytest.raises(WrongLoopError):
                await asyncio.to_thread(call)
        assert pair.client.close_reason is None


async def test_closing(quic_pair):
    async with quic_pair() as pair:
        driver = pair.server_node.driver
        accepting = asyncio.create_task(driver.accept())
        reading = asyncio.create_task(pair.server.accept_bi())
        await asyncio.sleep(0)
        # Its first message is there when the endpoint closes, and has not been looked at.
        dialled = pair.client_node.driver.connect(
            pair.server_node.address, pair.server_node.id, [ALPN]
        )
        await asyncio.gather(driver.aclose(3, b"shutdown"), driver.aclose())
        await driver.aclose()
        with pytest.raises(EndpointClosedError):
            await accepting
        with pytest.raises(LocallyClosedError):
            await reading
        reason = await pair.client.closed()
        assert (reason.code, reason.reason) == (3, b"shutdown")
        with pytest.raises(ConnectionLostError):
            dialled.close()
            await dialled.handshake_completed()
        with pytest.raises(EndpointClosedError):
            driver.connect(pair.client_node.address, pair.client_node.id, [ALPN])
        assert "closed" in repr(driver)


@pytest.mark.loops
async def test_the_portable_alarm(quic_pair, monkeypatch, loop_kind):
    from aioiroh.quic import alarm

    class NoDescriptor:
        def __init__(self, *_):
            raise OSError

    monkeypatch.setattr(alarm, "DescriptorAlarm", NoDescriptor)
    async with quic_pair() as pair:
        assert isinstance(pair.client_node.driver._alarm, alarm.PortableAlarm)
        for _ in range(20):
            await echo_once(pair.client, pair.server)
        data = bytes(5_000_000)

        async def send():
            async with pair.client.open_uni() as stream:
                await stream.write(data)

        sending = asyncio.create_task(send())
        received = await (await pair.server.accept_uni()).read_all(limit=len(data))
        assert len(received) == len(data)
        await sending
        await asyncio.sleep(0.2)
        await echo_once(pair.client, pair.server)


class Wire:
    """Carries datagrams between virtual slots, with a delay, in the loop's time."""

    def __init__(self, loop):
        self.loop = loop
        self.ends = {}

    def attach(self, driver, address):
        slot = driver.add_virtual(*address, lambda slot: self.carry(driver, slot, address))
        self.ends[address] = (driver, slot)

    def carry(self, driver, slot, source):
        while batch := driver.take_output(slot):
            for destination, _, ecn, segment_size, data in batch:
                target, target_slot = self.ends[destination]
                self.loop.call_later(
                    0.01,
                    lambda arguments: arguments[0].inject(
                        arguments[1],
                        source,
                        arguments[2],
                        segment_size=arguments[3],
                        ecn=arguments[4],
                        destination=arguments[5][0],
                    ),
                    (target, target_slot, data, segment_size, ecn, destination),
                )


async def test_virtual_slots_under_the_loops_clock():
    loop = asyncio.get_running_loop()
    wire = Wire(loop)
    drivers = []
    for secret, address in ((b"\1" * 32, ("10.0.0.1", 1)), (b"\2" * 32, ("10.0.0.2", 2))):
        engine = _native.Engine(secret, alpns=[ALPN], clock=loop.time, seed=secret)
        drivers.append(Driver(engine, virtual=True))
        wire.attach(drivers[-1], address)
    client, server = drivers
    dialled = client.connect(("10.0.0.2", 2), _native.public_key(b"\2" * 32), [ALPN])
    accepted = (await server.accept()).accept()
    await accepted.handshake_completed()
    await dialled.handshake_completed()
    await echo_once(dialled, accepted)
    assert 0.015 < dialled.rtt < 0.2
    await client.aclose()
    await server.aclose()


class GreedyWire(Wire):
    """Opens a stream as soon as there is credit, before anybody is told of it."""

    def __init__(self, loop):
        super().__init__(loop)
        self.greedy = None
        self.taken = []

    def attach(self, driver, address):
        inject = driver.inject

        def inject_and_open(*arguments, **options):
            inject(*arguments, **options)
            if self.greedy is not None and not self.taken:
                stream = self.greedy.state.native.open(1)
                if stream is not None:
                    self.taken.append(stream)

        driver.inject = inject_and_open
        super().attach(driver, address)


async def test_credit_taken_by_another_does_not_silence_those_who_wait():
    loop = asyncio.get_running_loop()
    wire = GreedyWire(loop)
    transport = TransportConfig(max_uni_streams=2)
    drivers = []
    for secret, address in ((b"\1" * 32, ("10.0.0.1", 1)), (b"\2" * 32, ("10.0.0.2", 2))):
        engine = _native.Engine(
            secret, alpns=[ALPN], transport=transport.native(), clock=loop.time, seed=secret
        )
        drivers.append(Driver(engine, virtual=True))
        wire.attach(drivers[-1], address)
    client, server = drivers
    dialled = client.connect(("10.0.0.2", 2), _native.public_key(b"\2" * 32), [ALPN])
    accepted = (await server.accept()).accept()
    await accepted.handshake_completed()
    await dialled.handshake_completed()
    streams = [await dialled.open_uni() for _ in range(2)]
    waiting = [asyncio.ensure_future(dialled.open_uni()) for _ in range(2)]
    await asyncio.sleep(0.05)
    wire.greedy = dialled
    for stream in streams:
        await stream.finish()
    # The peer gives both credits in one frame.
    received = [await accepted.accept_uni() for _ in streams]
    for stream in received:
        assert await stream.read() == b""
    async with asyncio.timeout(2):
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert wire.taken
    for task in waiting:
        task.cancel()
    for driver in drivers:
        await driver.aclose(timeout=0)


@pytest.mark.skipif(sys.platform != "linux", reason="no segmentation offload elsewhere")
async def test_without_segmentation_offload_batches_go_out_one_by_one(quic_pair):
    """A socket that refuses batches, as some network cards and kernels do, is asked once only."""
    async with quic_pair() as pair:
        engine, peer = pair.client_node.driver.engine, pair.server_node.driver.engine
        if pair.client_node.slot.send_segments == 1:
            pytest.skip("this system has no segmentation offload")
        descriptor = engine.sockets()[0][0]
        with socket.socket(fileno=os.dup(descriptor)) as udp:
            # Without checksums Linux sends single datagrams, and fails batches with EINVAL.
            udp.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
        data = bytes(range(256)) * 4000

        async def send():
            async with pair.client.open_uni() as stream:
                await stream.write(data)
                await stream.finish()
                await stream.acked()

        async with asyncio.timeout(30):
            received, _ = await asyncio.gather(receive(pair.server, len(data)), send())
            assert received == data
            assert engine.stats()["gso_fallbacks"] == 1
            # The datagrams of the batch that failed have left, too.
            while peer.stats()["received_datagrams"] < engine.stats()["sent_datagrams"]:
                await asyncio.sleep(0.01)


async def receive(connection, size):
    stream = await connection.accept_uni()
    return await stream.read_all(limit=size)
