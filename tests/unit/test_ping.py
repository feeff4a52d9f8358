"""The ping protocol, on a simulated network."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from aioiroh import BiStream, Connection, Endpoint, Router, ping
from aioiroh.errors import DecodeError, StreamResetError
from aioiroh.router import Handler
from aioiroh.testing import Link, VirtualNetwork, run, simulated


@asynccontextmanager
async def asked(
    network: VirtualNetwork, handler: Handler = ping.answer, *alpns: bytes
) -> AsyncIterator[Connection]:
    """A connection to who answers with `handler`, 20 ms away."""
    near, far = (
        network.host("near", link=Link(latency=0.01)),
        network.host("far", link=Link(latency=0.0)),
    )
    async with (
        Endpoint.bind(network=near) as ours,
        Endpoint.bind(network=far) as theirs,
        Router(theirs, dict.fromkeys(alpns or ping.HANDLERS, handler)),
        ours.connect(theirs.addr, alpn=[*ping.HANDLERS]) as connection,
    ):
        yield connection


@simulated()
async def test_how_long_an_answer_takes(network: VirtualNetwork) -> None:
    async with asked(network) as connection:
        assert connection.alpn == ping.REPEATED_ALPN
        for _ in range(10):
            assert await ping.ping(connection) == pytest.approx(0.02, abs=0.002)


@simulated()
async def test_upstreams_protocol_is_spoken_with_who_has_no_other(network: VirtualNetwork) -> None:
    async with asked(network, ping.answer, ping.ALPN) as connection:
        assert connection.alpn == b"iroh/ping/0"
        assert await ping.ping(connection) > 0


@pytest.mark.parametrize("question", [b"", b"PIN", b"PONG", b"PING!", b"x" * 10_000])
def test_only_a_ping_is_answered(question: bytes) -> None:
    async def scenario(network: VirtualNetwork) -> None:
        async with asked(network) as connection:
            async with connection.open_bi() as stream:
                await stream.write(question)
                await stream.finish()
                with pytest.raises(StreamResetError):
                    await stream.read_all(limit=4)
            # The connection goes on.
            assert await ping.ping(connection) > 0

    run(scenario)


@pytest.mark.parametrize("reply", [b"", b"PING", b"PONG!", b"y" * 10_000])
def test_only_a_pong_is_an_answer(reply: bytes) -> None:
    async def lie(stream: BiStream) -> None:
        await stream.read_all(limit=4)
        await stream.write(reply)
        await stream.finish()

    async def serve(connection: Connection) -> None:
        await connection.serve(lie)

    async def scenario(network: VirtualNetwork) -> None:
        async with asked(network, serve) as connection:
            with pytest.raises(DecodeError, match="another protocol"):
                await ping.ping(connection)

    run(scenario)
