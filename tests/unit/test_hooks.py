"""Hooks: asked before dialling and after handshakes, in order; the first refusal counts."""

from __future__ import annotations

import asyncio

import pytest

from aioiroh import (
    ApplicationClosedError,
    Connection,
    Endpoint,
    EndpointAddr,
    Hook,
    LocallyRejectedError,
    Reject,
    presets,
)

ALPN = b"test/1"


def bind(*hooks: Hook, **options):
    return Endpoint.bind(preset=presets.loopback, hooks=hooks, **options)


class Recorder(Hook):
    """Notes what it is asked and answers what it was given."""

    def __init__(self, log: list[str], name: str, before=None, after=None) -> None:
        self.log, self.name, self.before, self.after = log, name, before, after

    async def before_connect(self, addr: EndpointAddr, alpn: bytes) -> Reject | None:
        self.log.append(f"{self.name} before {alpn.decode()}")
        if isinstance(self.before, Exception):
            raise self.before
        return self.before

    async def after_handshake(self, connection: Connection) -> Reject | None:
        self.log.append(f"{self.name} after {connection.side} {connection.alpn.decode()}")
        if isinstance(self.after, Exception):
            raise self.after
        return self.after


async def accept_one(server: Endpoint) -> Connection:
    return await (await server.accept())


@pytest.mark.loops
async def test_hooks_are_asked_in_order_on_both_sides():
    log: list[str] = []
    async with (
        bind(Recorder(log, "server"), alpns=[ALPN]) as server,
        bind(Recorder(log, "one"), Recorder(log, "two")) as client,
    ):
        accepted, dialled = await asyncio.gather(
            accept_one(server), client.connect(server.addr, alpn=[ALPN, b"other"])
        )
        dialled.close()
        await accepted.closed()
    assert [line for line in log if line.startswith("server")] == ["server after server test/1"]
    assert [line for line in log if not line.startswith("server")] == [
        "one before test/1",
        "two before test/1",
        "one after client test/1",
        "two after client test/1",
    ]


async def test_a_refusal_before_connecting_sends_nothing():
    log: list[str] = []
    hooks = Recorder(log, "one", before=Reject()), Recorder(log, "two")
    async with bind(alpns=[ALPN]) as server, bind(*hooks) as client:
        with pytest.raises(LocallyRejectedError, match="forbids"):
            await client.connect(server.addr, alpn=ALPN)
        assert client._driver.engine.stats()["sent_datagrams"] == 0
    assert log == ["one before test/1"]


@pytest.mark.loops
async def test_the_dialling_side_refuses_after_the_handshake():
    log: list[str] = []
    hooks = Recorder(log, "one", after=Reject(7, b"not you")), Recorder(log, "two")
    async with bind(alpns=[ALPN]) as server, bind(*hooks) as client:
        accepting = asyncio.ensure_future(accept_one(server))
        with pytest.raises(LocallyRejectedError, match="code 7"):
            await client.connect(server.addr, alpn=ALPN)
        try:
            reason = await (await accepting).closed()
        except ApplicationClosedError as error:
            # The refusal may come before the last packet of the handshake has been seen.
            reason = error
        assert isinstance(reason, ApplicationClosedError)
        assert (reason.code, reason.reason) == (7, b"not you")
    assert log == ["one before test/1", "two before test/1", "one after client test/1"]


@pytest.mark.loops
async def test_the_accepting_side_refuses_after_the_handshake():
    log: list[str] = []
    async with (
        bind(Recorder(log, "s", after=Reject(9, b"no")), alpns=[ALPN]) as server,
        bind() as c,
    ):
        accepting = asyncio.ensure_future(accept_one(server))
        connection = await c.connect(server.addr, alpn=ALPN)
        with pytest.raises(LocallyRejectedError):
            await accepting
        reason = await connection.closed()
        assert isinstance(reason, ApplicationClosedError)
        assert (reason.code, reason.reason) == (9, b"no")


async def test_a_hook_that_raises_refuses():
    log: list[str] = []
    async with bind(alpns=[ALPN]) as server:
        async with bind(Recorder(log, "h", before=OSError("no database"))) as client:
            with pytest.raises(OSError, match="no database"):
                await client.connect(server.addr, alpn=ALPN)
        async with bind(Recorder(log, "h", after=OSError("no database"))) as client:
            accepting = asyncio.ensure_future(accept_one(server))
            with pytest.raises(OSError, match="no database"):
                await client.connect(server.addr, alpn=ALPN)
            outcome = (await asyncio.gather(accepting, return_exceptions=True))[0]
            if isinstance(outcome, Connection):
                outcome = await outcome.closed()
            assert isinstance(outcome, ApplicationClosedError)


async def test_hooks_for_early_connections_run_after_the_handshake():
    log: list[str] = []
    async with bind(Recorder(log, "h", after=Reject(5)), alpns=[ALPN]) as server, bind() as client:
        dial = asyncio.ensure_future(client.connect(server.addr, alpn=ALPN))
        accepted = (await server.accept()).accept_early()
        assert log == []
        connection = await dial
        assert (await connection.closed()).code == 5
        assert log == ["h after server test/1"]
        assert accepted.close_reason is not None


async def test_hooks_of_a_dial_with_early_data():
    log: list[str] = []
    async with bind(alpns=[ALPN]) as server, bind(Recorder(log, "h")) as client:
        for early in (False, True):
            log.clear()
            accepting = asyncio.ensure_future(accept_one(server))
            connection = await client.connect(server.addr, alpn=ALPN, early_data=True)
            assert connection.is_early is early
            accepted = await accepting
            async with connection.open_uni() as stream:
                await stream.write(b"x")
            assert await (await accepted.accept_uni()).read_all(limit=9) == b"x"
            await connection.handshake_completed()
            await asyncio.sleep(0)
            assert log == ["h before test/1", "h after client test/1"]
            connection.close()
            await accepted.closed()
