"""Sockets that are set aside: what they carry, and what they tell of."""

from __future__ import annotations

import asyncio
import socket

import pytest

from aioiroh import _native
from aioiroh.keys import SecretKey
from aioiroh.net import UdpOptions
from aioiroh.quic import Driver


class Knocks:
    """Notes what knocks."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, tuple[str, int], int | None]] = []
        self.news = asyncio.Event()

    def __call__(self, slot: int, source: tuple[str, int], port: int | None) -> None:
        self.heard.append((slot, source, port))
        self.news.set()


@pytest.fixture
def plain():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(5)
        yield sock


async def test_probes_leave_and_knocks_are_told(plain):
    driver = Driver(_native.Engine(bytes(SecretKey(b"k" * 32))))
    driver.on_knock = knocks = Knocks()
    try:
        ordinary, aside = (driver.add_udp("127.0.0.1", 0, UdpOptions()) for _ in range(2))
        driver.engine.set_aside(aside.index)
        here = plain.getsockname()
        driver.engine.probe([ordinary.index, aside.index], *(here[0], [here[1]]))
        got = [plain.recvfrom(100) for _ in range(2)]
        assert {source[1] for _, source in got} == {ordinary.port, aside.port}
        probe = got[0][0]
        assert all(data == probe for data, _ in got)
        # No packet of QUIC: not even an upstream endpoint would look at it twice.
        assert len(probe) == 10 and not probe[0] & 0x40
        assert driver.engine.stats()["sent_probes"] == 2

        async def send(data: bytes, port: int) -> None:
            knocks.news.clear()
            plain.sendto(data, ("127.0.0.1", port))
            await asyncio.wait_for(knocks.news.wait(), 5)

        await send(probe, aside.port)
        assert knocks.heard.pop() == (aside.index, here, here[1])
        # Anything else that comes through says as much, save for the port.
        await send(b"something", aside.port)
        assert knocks.heard.pop() == (aside.index, here, None)
        knocks.news.clear()
        # At an ordinary socket it says nothing; and neither from an address that is pinned to the slot.
        driver.engine.pin(here, aside.index)
        for port in (ordinary.port, aside.port):
            plain.sendto(probe, ("127.0.0.1", port))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            other.sendto(probe, ("127.0.0.1", aside.port))
            await asyncio.wait_for(knocks.news.wait(), 5)
            assert knocks.heard == [(aside.index, ("127.0.0.1", other.getsockname()[1]), here[1])]
        with pytest.raises(ValueError, match="no such slot"):
            driver.engine.set_aside(99)
        with pytest.raises(ValueError, match="no such slot"):
            driver.engine.pin(here, 99)
    finally:
        await driver.aclose()
