"""Random operations on a connection over a bad wire: nothing hangs, lies or leaks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random

import pytest

from aioiroh import _native
from aioiroh.errors import (
    ConnectionLostError,
    IncompleteReadError,
    StreamClosedError,
    StreamResetError,
    StreamStoppedError,
)
from aioiroh.quic import Driver, TransportConfig

ALPN = b"test/1"
STREAMS = 40
PATTERN = random.Random(0).randbytes(1 << 17)


class BadWire:
    """Two virtual slots; what passes between them is delayed, reordered, doubled and lost."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.loop = asyncio.get_running_loop()
        self.ends: dict[tuple[str, int], tuple[Driver, int]] = {}

    def attach(self, driver: Driver, address: tuple[str, int]) -> None:
        slot = driver.add_virtual(*address, lambda slot: self.carry(driver, slot, address))
        self.ends[address] = (driver, slot)

    def carry(self, driver: Driver, slot: int, source: tuple[str, int]) -> None:
        for destination, _, ecn, size, data in driver.take_output(slot, 1000):
            for start in range(0, len(data), size or len(data)):
                datagram = data[start : start + (size or len(data))]
                copies = self.chance.choices((0, 1, 2), (5, 90, 5))[0]
                for _ in range(copies):
                    self.loop.call_later(
                        self.chance.random() / 200,
                        self.deliver,
                        destination,
                        source,
                        datagram,
                        ecn,
                    )

    def deliver(self, destination, source, datagram, ecn) -> None:
        driver, slot = self.ends[destination]
        if not driver.closing:
            driver.inject(slot, source, datagram, destination=destination[0], ecn=ecn)


class Party:
    """One end: opens streams and serves those of the other, as chance has it."""

    def __init__(self, connection, chance: random.Random) -> None:
        self.connection = connection
        self.chance = chance
        self.complete = 0

    async def open_streams(self) -> None:
        await asyncio.gather(*(self.one_stream() for _ in range(STREAMS)))

    async def one_stream(self) -> None:
        chance = self.chance
        await asyncio.sleep(chance.random() / 10)
        seed = chance.randrange(1 << 16)
        size = chance.choice([0, 1, 100, 5000, 60_000])
        data = PATTERN[seed : seed + size]
        stream = await self.connection.open_bi()
        end = chance.choices(("finish", "reset", "leave", "drop"), (6, 1, 2, 1))[0]
        message = seed.to_bytes(2, "big") + data
        try:
            if end == "finish":
                # The peer echoes while it reads, so both directions have to move.
                echoed, _ = await asyncio.gather(
                    stream.read_all(limit=size), self.write_and_finish(stream.send, message)
                )
                assert echoed == data
                self.complete += 1
                return
            writing = asyncio.create_task(self.interrupted_write(stream.send, message))
            await asyncio.sleep(chance.random() / 20)
            writing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writing
            if end == "reset":
                stream.reset(chance.randrange(100))
            elif end == "leave":
                async with stream:
                    pass
        except (StreamStoppedError, StreamResetError) as error:
            assert error.code in (0, 7)
            stream.reset()

    async def write_and_finish(self, send, message: bytes) -> None:
        await self.interrupted_write(send, message)
        await send.finish()
        if self.chance.random() < 0.5:
            await send.acked()

    async def interrupted_write(self, send, data: bytes) -> None:
        """All of `data`, in spite of cancellations in between."""
        start = send.bytes_written
        while (done := send.bytes_written - start) < len(data):
            piece = data[done : done + self.chance.randrange(1, 30_000)]
            await self.interrupted(send.write(piece), 0.3)

    async def interrupted(self, operation, likelihood: float):
        """What `operation` returns, or None because it was cancelled."""
        task = asyncio.create_task(operation)
        try:
            if self.chance.random() < likelihood:
                for _ in range(self.chance.randrange(3)):
                    await asyncio.sleep(0)
                task.cancel()
            await asyncio.wait([task])
        finally:
            task.cancel()
        return None if task.cancelled() else task.result()

    async def answer(self, stream) -> None:
        chance = self.chance
        if chance.random() < 0.1:
            stream.reset(7)
            return
        checked = 0
        try:
            header = await stream.read_exactly(2)
        except IncompleteReadError:
            return
        expected = PATTERN[int.from_bytes(header, "big") :]
        while True:
            data = await self.interrupted(stream.read(chance.randrange(1, 10_000)), 0.3)
            if data is None:
                continue
            if not data:
                return
            assert data == expected[checked : checked + len(data)]
            checked += len(data)
            await self.interrupted_write(stream.send, data)


@pytest.mark.loops
@pytest.mark.parametrize("seed", range(3))
async def test_random_operations_on_a_bad_wire(loop_kind, seed, caplog):
    chance = random.Random(seed)
    loop = asyncio.get_running_loop()
    wire = BadWire(chance)
    transport = TransportConfig(
        max_bidi_streams=chance.choice([3, 100]),
        stream_receive_window=chance.choice([2_000, 100_000]),
        send_window=chance.choice([10_000, 1_000_000]),
    )
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
    async with asyncio.timeout(60):
        await accepted.handshake_completed()
        await dialled.handshake_completed()
        parties = Party(dialled, chance), Party(accepted, chance)
        serving = [
            asyncio.create_task(party.connection.serve(party.answer, limit=chance.choice([2, 50])))
            for party in parties
        ]
        await asyncio.gather(*(party.open_streams() for party in parties))
        assert min(party.complete for party in parties) > STREAMS // 4
        async with dialled:
            pass
        await accepted.closed()
        await asyncio.gather(*serving)
    assert caplog.text == ""
    gc.collect()
    for connection in (dialled, accepted):
        state = connection.state
        for table in (state.reading, state.writing, state.sending, state.waiting):
            assert table == {}
        assert state.stop_codes == {}
    for driver in drivers:
        await driver.aclose(timeout=0)


@pytest.mark.parametrize("seed", range(3))
async def test_an_end_in_the_middle_of_everything(seed):
    chance = random.Random(seed)
    loop = asyncio.get_running_loop()
    wire = BadWire(chance)
    drivers = []
    for secret, address in ((b"\1" * 32, ("10.0.0.1", 1)), (b"\2" * 32, ("10.0.0.2", 2))):
        drivers.append(
            Driver(_native.Engine(secret, alpns=[ALPN], clock=loop.time, seed=secret), virtual=True)
        )
        wire.attach(drivers[-1], address)
    client, server = drivers
    dialled = client.connect(("10.0.0.2", 2), _native.public_key(b"\2" * 32), [ALPN])
    accepted = (await server.accept()).accept()
    await accepted.handshake_completed()
    await dialled.handshake_completed()
    parties = Party(dialled, chance), Party(accepted, chance)
    tasks = [asyncio.create_task(party.connection.serve(party.answer)) for party in parties]
    tasks += [asyncio.create_task(party.open_streams()) for party in parties]
    await asyncio.sleep(chance.random() / 5)
    chance.choice((dialled, accepted)).close(3)
    async with asyncio.timeout(10):
        await dialled.closed()
        await accepted.closed()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        assert result is None or isinstance(result, ConnectionLostError | StreamClosedError), result
    for driver in drivers:
        await driver.aclose(timeout=0)
