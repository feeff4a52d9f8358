"""The router: every connection to the handler of its protocol, whatever handlers do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import aioiroh
from aioiroh import (
    HANDLER_FAILED,
    ApplicationClosedError,
    BusyError,
    ConnectError,
    Connection,
    Endpoint,
    EndpointAddr,
    Hook,
    InvalidAlpnError,
    Reject,
    Router,
    TransportConfig,
    presets,
)

ECHO, OTHER = b"echo/1", b"other/1"


def bind(**options):
    return Endpoint.bind(preset=presets.loopback, **options)


async def echo(connection: Connection) -> None:
    await connection.serve(echo_stream)


async def echo_stream(stream) -> None:
    await stream.write(await stream.read_all(limit=1 << 20))


async def ask(connection: Connection, data: bytes = b"hello") -> bytes:
    async with connection.open_bi() as stream:
        await stream.write(data)
        await stream.finish()
        return await stream.read_all(limit=1 << 20)


async def until(condition) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def routed(handlers, **options) -> AsyncIterator[tuple[Router, Endpoint]]:
    """A router on a server, and a client."""
    async with bind() as server, bind() as client, Router(server, handlers, **options) as router:
        yield router, client


@pytest.mark.loops
async def test_each_protocol_has_its_handler():
    async def shout(connection: Connection) -> None:
        async with await connection.accept_bi() as stream:
            await stream.write((await stream.read_all(limit=100)).upper())
        await connection.closed()

    async with routed({ECHO: echo, OTHER: shout}) as (router, client):
        assert router.alpns == (ECHO, OTHER)
        for alpn, answer in ((ECHO, b"hello"), (OTHER, b"HELLO")):
            async with client.connect(router.endpoint, alpn=alpn) as connection:
                assert await ask(connection) == answer
        await until(lambda: len(router) == 0)


async def test_handlers_that_are_objects():
    class Handler:
        def __init__(self) -> None:
            self.shut = 0

        async def accept(self, connection: Connection) -> None:
            await connection.serve(echo_stream)

        async def shutdown(self) -> None:
            self.shut += 1

    handler = Handler()
    async with routed({ECHO: handler, OTHER: handler}) as (router, client):
        async with client.connect(router.endpoint, alpn=ECHO) as connection:
            assert await ask(connection) == b"hello"
        assert handler.shut == 0
    assert handler.shut == 1


async def test_return_closes_after_everything_has_arrived():
    async def talk(connection: Connection) -> None:
        async with connection.open_uni() as stream:
            await stream.write(bytes(3_000_000))

    async with routed({ECHO: talk}) as (router, client):
        connection = await client.connect(router.endpoint, alpn=ECHO)
        data = await (await connection.accept_uni()).read_all(limit=1 << 22)
        assert len(data) == 3_000_000
        reason = await connection.closed()
        assert isinstance(reason, ApplicationClosedError)
        assert (reason.code, reason.reason) == (0, b"")


async def test_a_returned_connection_stays_open():
    kept: list[Connection] = []

    async def keep(connection: Connection) -> Connection:
        kept.append(connection)
        return connection

    async with routed({ECHO: keep}) as (router, client):
        connection = await client.connect(router.endpoint, alpn=ECHO)
        await until(lambda: kept and not len(router))
        async with kept[0].open_uni() as stream:
            await stream.write(b"still here")
        assert await (await connection.accept_uni()).read_all(limit=99) == b"still here"
        kept.pop().close(3)
        assert (await connection.closed()).code == 3


@pytest.mark.loops
async def test_a_failing_handler_does_not_stop_the_router(caplog):
    async def fail(connection: Connection) -> None:
        raise ValueError("a bug")

    async with routed({ECHO: echo, OTHER: fail}) as (router, client):
        connection = await client.connect(router.endpoint, alpn=OTHER)
        reason = await connection.closed()
        assert isinstance(reason, ApplicationClosedError)
        assert reason.code == HANDLER_FAILED
        assert b"bug" not in reason.reason
        async with client.connect(router.endpoint, alpn=ECHO) as connection:
            assert await ask(connection) == b"hello"
    assert [record.exc_info[0] for record in caplog.records] == [ValueError]


async def test_a_handler_that_closes_with_its_own_code():
    async def reject(connection: Connection) -> None:
        connection.close(42, b"go away")

    async with routed({ECHO: reject}) as (router, client):
        connection = await client.connect(router.endpoint, alpn=ECHO)
        assert (await connection.closed()).code == 42


async def test_a_peer_that_leaves_is_no_failure(caplog):
    caplog.set_level(logging.INFO)

    async def wait(connection: Connection) -> None:
        await connection.accept_bi()

    async with routed({ECHO: wait}) as (router, client):
        connection = await client.connect(router.endpoint, alpn=ECHO)
        await until(lambda: len(router))
        connection.close(9)
        await until(lambda: not len(router))
    assert not caplog.records


@pytest.mark.loops
async def test_protocols_come_and_go():
    async with routed({}) as (router, client):
        with pytest.raises(ConnectError, match="refused"):
            await client.connect(router.endpoint, alpn=ECHO)
        router.add(ECHO, echo)
        connection = await client.connect(router.endpoint, alpn=ECHO)
        assert await ask(connection) == b"hello"
        router.add(OTHER, echo)
        assert router.remove(ECHO) is echo
        with pytest.raises(KeyError):
            router.remove(ECHO)
        with pytest.raises(ConnectError, match="does not serve"):
            await client.connect(router.endpoint, alpn=ECHO)
        # Those that run go on.
        assert await ask(connection, b"more") == b"more"
        async with client.connect(router.endpoint, alpn=[ECHO, OTHER]) as other:
            assert other.alpn == OTHER
            assert await ask(other) == b"hello"
        connection.close()
        with pytest.raises(InvalidAlpnError):
            router.add(b"", echo)
        assert router.alpns == (OTHER,)


async def test_accept_beside_a_router_raises():
    async with routed({ECHO: echo}) as (router, _):
        with pytest.raises(BusyError, match="router"):
            await router.endpoint.accept()
        with pytest.raises(BusyError):
            async with Router(router.endpoint, {OTHER: echo}):
                pass
        assert router.endpoint.alpns == (ECHO,)


async def test_the_endpoint_is_given_back():
    async with bind(alpns=[OTHER]) as server, bind() as client:
        async with Router(server, {ECHO: echo}):
            connection = await client.connect(server, alpn=ECHO)
            assert await ask(connection) == b"hello"
        reason = await connection.closed()
        assert isinstance(reason, ApplicationClosedError)
        assert reason.code == 0
        assert server.alpns == (OTHER,)
        dial = asyncio.ensure_future(client.connect(server, alpn=OTHER))
        (await (await server.accept())).close()
        await (await dial).closed()
        async with (
            Router(server, {ECHO: echo}),
            client.connect(server, alpn=ECHO) as connection,
        ):
            assert await ask(connection) == b"hello"


async def test_a_router_starts_once():
    async with bind() as server:
        router = Router(server, {ECHO: echo})
        with pytest.raises(RuntimeError):
            await router.serve_forever()
        await router.aclose()
        async with router:
            with pytest.raises(RuntimeError):
                router.start()
        await router.aclose()


async def test_a_router_needs_room():
    async with bind() as server:
        with pytest.raises(ValueError, match="max_handshakes"):
            Router(server, max_handshakes=0)


async def test_invalid_protocols():
    async with bind() as server:
        with pytest.raises(InvalidAlpnError):
            async with Router(server, {b"": echo}):
                pass
        async with Router(server, {ECHO: echo}):
            pass


async def test_shutdown_comes_before_cancellation():
    log: list[str] = []

    class Handler:
        async def accept(self, connection: Connection) -> None:
            try:
                await connection.accept_bi()
            except asyncio.CancelledError:
                log.append("cancelled")
                raise

        async def shutdown(self) -> None:
            log.append("shutdown")
            await asyncio.sleep(0)
            raise ValueError("shutdown fails")

    async with routed({ECHO: Handler()}) as (router, client):
        connection = await client.connect(router.endpoint, alpn=ECHO)
        await until(lambda: len(router))
    assert log == ["shutdown", "cancelled"]
    assert connection.close_reason is not None


@pytest.mark.loops
async def test_closing_the_endpoint_ends_the_router():
    async with routed({ECHO: echo}) as (router, client):
        connection = await client.connect(router.endpoint, alpn=ECHO)
        serving = asyncio.ensure_future(router.serve_forever())
        await asyncio.sleep(0.01)
        assert not serving.done()
        await router.endpoint.close()
        async with asyncio.timeout(1):
            await serving
        assert isinstance(await connection.closed(), ApplicationClosedError)


async def test_a_failed_engine_ends_the_router(caplog):
    async with bind() as server:
        with contextlib.suppress(aioiroh.EndpointFailedError):
            async with Router(server, {ECHO: echo}) as router:
                server._driver.engine.panic("endpoint")
                server._driver.touched()
                with pytest.raises(aioiroh.EndpointFailedError):
                    await router.serve_forever()


@pytest.mark.parametrize("verdict", ["accept", "retry", "reject", "ignore"])
async def test_the_filter_decides(verdict):
    seen = []

    def judge(incoming):
        seen.append(incoming.validated)
        return "accept" if incoming.validated else verdict

    async with routed({ECHO: echo}, incoming_filter=judge) as (router, client):
        dial = asyncio.ensure_future(client.connect(router.endpoint, alpn=ECHO, timeout=0.4))
        match verdict:
            case "accept" | "retry":
                async with await dial as connection:
                    assert await ask(connection) == b"hello"
                assert seen == ([False] if verdict == "accept" else [False, True])
            case "reject":
                with pytest.raises(ConnectError, match="refused"):
                    await dial
            case "ignore":
                with pytest.raises(TimeoutError):
                    await dial


async def test_who_has_proved_its_address_is_not_asked_again():
    async with routed({ECHO: echo}, incoming_filter=lambda _: "retry") as (router, client):
        with pytest.raises(ConnectError, match="refused"):
            await client.connect(router.endpoint, alpn=ECHO)


async def test_a_filter_that_fails_refuses(caplog):
    def judge(incoming):
        raise ValueError("a bug")

    async with routed({ECHO: echo}, incoming_filter=judge) as (router, client):
        with pytest.raises(ConnectError, match="refused"):
            await client.connect(router.endpoint, alpn=ECHO)
    assert "filter" in caplog.text


async def test_hooks_refuse_before_the_handler():
    class Refusal(Hook):
        async def after_handshake(self, connection):
            return Reject(11)

    called = []

    async def handler(connection: Connection) -> None:
        called.append(connection)

    async with (
        bind(hooks=[Refusal()]) as server,
        bind() as client,
        Router(server, {ECHO: handler}) as router,
    ):
        connection = await client.connect(server, alpn=ECHO)
        assert (await connection.closed()).code == 11
        await until(lambda: not len(router))
    assert not called


async def test_a_handler_accepts_in_its_own_way():
    class Narrow:
        async def on_accepting(self, incoming):
            if incoming.alpns != (ECHO,):
                incoming.refuse()
                return None
            return await incoming.accept(transport=TransportConfig(datagram_receive_buffer=None))

        async def accept(self, connection: Connection) -> None:
            await connection.serve(echo_stream)

    async with routed({ECHO: Narrow()}) as (router, client):
        async with client.connect(router.endpoint, alpn=ECHO) as connection:
            assert connection.max_datagram_size is None
            assert await ask(connection) == b"hello"
        with pytest.raises(ConnectError, match="refused"):
            await client.connect(router.endpoint, alpn=[ECHO, OTHER])


async def test_a_failing_on_accepting_is_logged(caplog):
    class Broken:
        async def on_accepting(self, incoming):
            raise ValueError("a bug")

        async def accept(self, connection: Connection) -> None:
            raise AssertionError

    async with routed({ECHO: Broken()}) as (router, client):
        with pytest.raises(ConnectError, match="refused"):
            await client.connect(router.endpoint, alpn=ECHO)
    assert "a bug" in caplog.text


async def test_too_many_connections_are_refused():
    async with routed({ECHO: echo}, max_connections=2) as (router, client):
        kept = [await client.connect(router.endpoint, alpn=ECHO) for _ in range(2)]
        with pytest.raises(ConnectError, match="refused"):
            await client.connect(router.endpoint, alpn=ECHO)
        kept.pop().close()
        await until(lambda: len(router) < 2)
        kept.append(await client.connect(router.endpoint, alpn=ECHO))
        for connection in kept:
            connection.close()


async def vanish(router: Router, client: Endpoint) -> None:
    """A peer begins a handshake and is never heard of again."""
    server = router.endpoint.addr
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as relay:
        relay.bind(("127.0.0.1", 0))
        relay.setblocking(False)
        target = EndpointAddr(server.id).with_ip(*relay.getsockname())
        dial = asyncio.ensure_future(client.connect(target, alpn=ECHO))
        initial = await asyncio.get_running_loop().sock_recv(relay, 65_536)
        relay.sendto(initial, server.ip_addrs[0].pair)
        dial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dial


async def test_handshakes_that_never_end_are_given_up(monkeypatch):
    monkeypatch.setattr("aioiroh.router.HANDSHAKE_TIMEOUT", 0.2)
    async with routed({ECHO: echo}, max_handshakes=2) as (router, client):
        for _ in range(2):
            await vanish(router, client)
        await until(lambda: len(router) == 2)
        async with asyncio.timeout(2), client.connect(router.endpoint, alpn=ECHO) as connection:
            assert await ask(connection) == b"hello"
        await until(lambda: not len(router))


async def test_with_many_handshakes_peers_must_prove_their_address():
    seen = []

    def judge(incoming):
        seen.append(incoming.validated)
        return "accept"

    options = {"retry_above": 1, "incoming_filter": judge}
    async with routed({ECHO: echo}, **options) as (router, client):
        await vanish(router, client)
        await until(lambda: len(router) == 1)
        async with client.connect(router.endpoint, alpn=ECHO) as connection:
            assert await ask(connection) == b"hello"
        assert seen == [False, True]


async def test_a_shutdown_that_hangs_is_given_up(monkeypatch, caplog):
    monkeypatch.setattr("aioiroh.router.SHUTDOWN_TIMEOUT", 0.1)

    class Handler:
        async def accept(self, connection: Connection) -> None:
            await connection.closed()

        async def shutdown(self) -> None:
            await asyncio.sleep(60)

    async with asyncio.timeout(3):
        async with routed({ECHO: Handler()}):
            pass
    assert "shutdown" in caplog.text


async def test_a_cancelled_close_still_ends_everything():
    class Handler:
        async def accept(self, connection: Connection) -> None:
            await connection.closed()

        async def shutdown(self) -> None:
            await asyncio.sleep(60)

    async with bind() as server, bind() as client:
        router = Router(server, {ECHO: Handler()})
        await router.__aenter__()
        connection = await client.connect(server, alpn=ECHO)
        closing = asyncio.ensure_future(router.aclose())
        await asyncio.sleep(0.05)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert len(router) == 0
        await connection.closed()
        await router.aclose()


@pytest.mark.loops
async def test_many_at_once_with_few_handshakes():
    async with routed({ECHO: echo}, max_handshakes=2) as (router, client):

        async def one(n: int) -> bytes:
            async with client.connect(router.endpoint, alpn=ECHO) as connection:
                return await ask(connection, str(n).encode())

        answers = await asyncio.gather(*map(one, range(50)))
        assert answers == [str(n).encode() for n in range(50)]


async def test_serve_is_a_router_with_its_endpoint():
    async with bind() as client:
        async with (
            aioiroh.serve({ECHO: echo}, preset=presets.loopback) as router,
            client.connect(router.endpoint.addr, alpn=ECHO) as connection,
        ):
            assert await ask(connection) == b"hello"
        assert router.endpoint.is_closed
        router = await aioiroh.serve({ECHO: echo}, preset=presets.loopback)
        async with client.connect(router.endpoint.addr, alpn=ECHO) as connection:
            assert await ask(connection) == b"hello"
        await router.aclose()
        assert router.endpoint.is_closed
        with pytest.raises(InvalidAlpnError):
            await aioiroh.serve({b"": echo}, preset=presets.loopback)


async def test_a_handler_may_close_the_router():
    async def stop(connection: Connection) -> None:
        await router.aclose()

    async with routed({ECHO: stop}) as (router, client):
        connection = await client.connect(router.endpoint, alpn=ECHO)
        async with asyncio.timeout(2):
            await router.serve_forever()
            await connection.closed()
