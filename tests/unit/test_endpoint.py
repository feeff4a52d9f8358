"""Endpoints on loopback: binding, being dialled, closing."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import aioiroh
from aioiroh import (
    ApplicationClosedError,
    BindError,
    BusyError,
    ConnectError,
    Connection,
    Endpoint,
    EndpointClosedError,
    EndpointFailedError,
    InvalidAlpnError,
    IpAddr,
    SecretKey,
    TransportConfig,
    WrongLoopError,
    _native,
    presets,
)
from aioiroh.errors import AddressParsingError
from aioiroh.lookup import LookupService
from aioiroh.net import SystemNetwork
from aioiroh.quic.state import HANDLERS

ALPN = b"test/1"


def bind(**options):
    return Endpoint.bind(preset=presets.loopback, **options)


@asynccontextmanager
async def pair(**options) -> AsyncIterator[tuple[Endpoint, Endpoint]]:
    """A server that accepts ALPN, and a client."""
    async with bind(alpns=[ALPN], **options) as server, bind() as client:
        yield server, client


async def connected(server: Endpoint, client: Endpoint, **options) -> tuple[Connection, Connection]:
    """Both ends of a new connection: the server's, the client's."""

    async def accept() -> Connection:
        return await (await server.accept())

    return await asyncio.gather(accept(), client.connect(server.addr, alpn=ALPN, **options))


# --- binding


@pytest.mark.loops
async def test_a_request_is_answered():
    async with pair() as (server, client):

        async def answer() -> None:
            incoming = await server.accept()
            async with incoming.accept() as connection:
                stream = await connection.accept_bi()
                async with stream:
                    await stream.write((await stream.read_all(limit=100)).upper())

        task = asyncio.create_task(answer())
        async with (
            client.connect(server.addr, alpn=ALPN) as connection,
            connection.open_bi() as stream,
        ):
            assert connection.remote_id == server.id
            await stream.write(b"hello")
            await stream.finish()
            assert await stream.read_all(limit=100) == b"HELLO"
        await task


async def test_bind_without_a_context_manager():
    endpoint = await bind(alpns=[ALPN])
    assert not endpoint.is_closed
    await endpoint.close()
    assert endpoint.is_closed
    await endpoint.closed()
    await endpoint.close()


async def test_default_sockets_are_wildcards_with_granted_buffers():
    async with Endpoint.bind() as endpoint:
        sockets = endpoint.bound_sockets
        assert [slot.host for slot in sockets][:1] == ["0.0.0.0"]
        assert {slot.host for slot in sockets} <= {"0.0.0.0", "::"}
        for slot in sockets:
            assert slot.port > 0
            assert slot.receive_buffer > 0
            assert slot.send_buffer > 0


async def test_a_machine_without_ipv6():
    class WithoutIpv6(SystemNetwork):
        def bind_udp(self, host, address, options):
            if ":" in address[0]:
                raise OSError(errno.EAFNOSUPPORT, "no IPv6 here")
            return super().bind_udp(host, address, options)

    async with Endpoint.bind(network=WithoutIpv6()) as endpoint:
        assert [slot.host for slot in endpoint.bound_sockets] == ["0.0.0.0"]
    with pytest.raises(BindError, match=r"\[::\]:0"):
        await Endpoint.bind(bind="[::]:0", network=WithoutIpv6())


async def test_wildcard_sockets_are_told_as_interface_addresses():
    async with Endpoint.bind(bind="0.0.0.0:0") as endpoint:
        addresses = endpoint.addr.ip_addrs
        assert addresses
        assert {address.port for address in addresses} == {endpoint.bound_sockets[0].port}
        assert not any(address.ip.is_unspecified for address in addresses)


@pytest.mark.parametrize("form", [("127.0.0.1", 0), "127.0.0.1:0", ["127.0.0.1:0"]])
async def test_forms_of_bind_addresses(form):
    async with Endpoint.bind(bind=form) as endpoint:
        (slot,) = endpoint.bound_sockets
        assert slot.host == "127.0.0.1"
        assert [address.pair for address in endpoint.addr.ip_addrs] == [(slot.host, slot.port)]


async def test_a_taken_port_is_a_bind_error():
    async with bind() as first:
        taken = first.bound_sockets[0].port
        with pytest.raises(BindError, match=f"127.0.0.1:{taken}") as caught:
            await Endpoint.bind(bind=("127.0.0.1", taken))
        assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("address", ["localhost:1", "127.0.0.1", ("nowhere", 1)])
async def test_a_name_is_no_bind_address(address):
    with pytest.raises(AddressParsingError):
        await Endpoint.bind(bind=address)


@pytest.mark.parametrize("alpns", [[b""], [b"x" * 256], ["text"]])
async def test_invalid_alpns(alpns):
    with pytest.raises(InvalidAlpnError):
        await bind(alpns=alpns)


async def test_the_key_is_the_identity():
    key = SecretKey(bytes(range(32)))
    async with bind(secret_key=key) as endpoint:
        assert endpoint.id == key.public
        assert endpoint.secret_key == key
        assert endpoint.addr.id == key.public
    async with bind() as one, bind() as other:
        assert one.id != other.id


async def test_ports_can_be_chosen_again():
    async with bind() as endpoint:
        port = endpoint.bound_sockets[0].port
    async with Endpoint.bind(bind=("127.0.0.1", port)) as endpoint:
        assert endpoint.bound_sockets[0].port == port


def test_twice_in_a_row():
    async def main() -> None:
        async with pair() as (server, client):
            for connection in await connected(server, client):
                connection.close()

    for _ in range(2):
        asyncio.run(main())


def test_on_a_machine_with_loopback_only(require):
    code = """
import asyncio, aioiroh
async def main():
    async with aioiroh.Endpoint.bind(alpns=[b"a"]) as server, aioiroh.Endpoint.bind() as client:
        assert all(address.ip.is_loopback for address in server.addr.ip_addrs), server.addr
        task = asyncio.ensure_future(server.accept())
        dial = asyncio.ensure_future(client.connect(server.addr, alpn=b"a", timeout=5))
        ends = [await (await task), await dial]
        [end.close() for end in ends]
    print("fine")
asyncio.run(main())
"""

    def inside(command: str) -> subprocess.CompletedProcess[str]:
        shell = ["unshare", "-n", "sh", "-c", f"ip link set lo up; {command}"]
        return subprocess.run(shell, check=False, capture_output=True, text=True)

    require(inside("true").returncode == 0, "needs the right to make network namespaces")
    run = inside(f"exec {sys.executable} -c '{code}'")
    assert run.stdout == "fine\n", run.stderr


# --- being dialled


async def test_incoming_tells_who_knocks():
    async with pair() as (server, client):
        dial = asyncio.ensure_future(client.connect(server.addr, alpn=[b"other", ALPN]))
        incoming = await server.accept()
        assert incoming.remote_address[0] == "127.0.0.1"
        assert incoming.alpns == (b"other", ALPN)
        assert not incoming.validated
        assert incoming.may_retry
        async with incoming.accept() as connection:
            assert connection.alpn == (await dial).alpn == ALPN
            assert connection.remote_id == client.id


async def test_refuse_and_a_second_answer():
    async with pair() as (server, client):
        dial = asyncio.ensure_future(client.connect(server.addr, alpn=ALPN))
        incoming = await server.accept()
        incoming.refuse()
        with pytest.raises(RuntimeError):
            incoming.refuse()
        with pytest.raises(ConnectError, match="refused") as caught:
            await dial
        (attempt,) = caught.value.attempts
        assert attempt.address == server.addr.addrs[0]


async def test_retry_proves_the_address():
    async with pair() as (server, client):
        dial = asyncio.ensure_future(client.connect(server.addr, alpn=ALPN))
        assert (await server.accept()).retry()
        incoming = await server.accept()
        assert incoming.validated
        assert not incoming.retry()
        (await incoming).close()
        await (await dial).closed()


async def test_ignored_peers_hear_nothing():
    async with pair() as (server, client):
        dial = asyncio.ensure_future(client.connect(server.addr, alpn=ALPN, timeout=0.3))
        (await server.accept()).ignore()
        with pytest.raises(TimeoutError):
            await dial


async def test_an_unanswered_peer_is_refused_when_forgotten():
    async with pair() as (server, client):
        dial = asyncio.ensure_future(client.connect(server.addr, alpn=ALPN))
        incoming = await server.accept()
        del incoming
        gc.collect()
        with pytest.raises(ConnectError, match="refused"):
            await dial


async def test_too_many_undecided_peers_are_refused():
    async with pair(max_incoming=2) as (server, client):
        dials = [asyncio.ensure_future(client.connect(server.addr, alpn=ALPN)) for _ in range(5)]
        done, _ = await asyncio.wait(dials, return_when=asyncio.FIRST_EXCEPTION)
        for dial in done:
            with pytest.raises(ConnectError, match="refused"):
                await dial
        for _ in range(2):
            (await (await server.accept())).close()
        outcomes = await asyncio.gather(*dials, return_exceptions=True)
        assert sum(isinstance(outcome, Connection) for outcome in outcomes) == 2


async def test_retry_above_makes_peers_prove_their_address():
    async with pair(retry_above=1) as (server, client):
        dials = [asyncio.ensure_future(client.connect(server.addr, alpn=ALPN)) for _ in range(2)]
        knocks = [await server.accept(), await server.accept()]
        assert sorted(knock.validated for knock in knocks) == [False, True]
        for knock in knocks:
            (await knock).close()
        await asyncio.gather(*dials)


async def test_the_iteration_over_incoming_ends_with_the_endpoint():
    async with bind(alpns=[ALPN]) as server, bind() as client:

        async def count() -> int:
            n = 0
            async for incoming in server.incoming():
                (await incoming).close()
                n += 1
            return n

        counting = asyncio.ensure_future(count())
        for _ in range(3):
            await (await client.connect(server.addr, alpn=ALPN)).closed()
        await server.close()
        assert await counting == 3


async def test_accept_with_other_settings():
    async with pair() as (server, client):
        dial = asyncio.ensure_future(client.connect(server.addr, alpn=b"special"))
        incoming = await server.accept()
        accepted = await incoming.accept(
            alpns=[b"special"], transport=TransportConfig(max_bidi_streams=1)
        )
        connection = await dial
        await connection.open_bi()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await connection.open_bi()
        accepted.close()
        await connection.closed()


async def test_set_alpns():
    async with pair() as (server, client):
        assert server.alpns == (ALPN,)
        server.set_alpns([b"a", b"b"])
        assert server.alpns == (b"a", b"b")
        dial = asyncio.ensure_future(client.connect(server.addr, alpn=[b"b", b"a"]))
        accepted = await (await server.accept())
        # The order of the accepting side counts.
        assert accepted.alpn == b"a"
        (await dial).close()
        await accepted.closed()
        with pytest.raises(InvalidAlpnError):
            server.set_alpns([b""])


async def test_an_endpoint_without_alpns_refuses():
    async with bind() as silent, bind() as client:
        with pytest.raises(ConnectError, match="refused"):
            await client.connect(silent.addr, alpn=ALPN)


async def test_early_acceptance_can_send_at_once():
    async with pair() as (server, client):
        dial = asyncio.ensure_future(client.connect(server.addr, alpn=ALPN))
        connection = (await server.accept()).accept_early()
        assert connection.is_early
        async with connection.open_uni() as stream:
            await stream.write(b"early bird")
        dialled = await dial
        assert await (await dialled.accept_uni()).read_all(limit=100) == b"early bird"
        assert await connection.handshake_completed() is False
        assert connection.remote_id == client.id
        connection.close()
        await dialled.closed()


# --- closing


@pytest.mark.loops
async def test_close_tells_the_peers():
    async with bind(alpns=[ALPN]) as server, bind() as client:
        accepted, dialled = await connected(server, client)
        await server.close()
        reason = await dialled.closed()
        assert isinstance(reason, ApplicationClosedError)
        assert (reason.code, reason.reason) == (0, b"")
        assert accepted.close_reason is not None


async def test_everything_raises_after_close():
    endpoint = await bind(alpns=[ALPN])
    addr = endpoint.addr
    waiting = asyncio.ensure_future(endpoint.accept())
    await asyncio.sleep(0)
    await endpoint.close()
    with pytest.raises(EndpointClosedError):
        await waiting
    with pytest.raises(EndpointClosedError):
        await endpoint.accept()
    with pytest.raises(EndpointClosedError):
        await endpoint.connect(addr, alpn=ALPN)
    with pytest.raises(EndpointClosedError):
        endpoint.set_alpns([ALPN])
    assert endpoint.addr == addr
    assert "closed" in repr(endpoint)


async def test_close_ends_dials_and_handshakes():
    async with bind() as silent:
        port = silent.bound_sockets[0].port
    client = await bind()
    key = SecretKey.generate().public
    target = aioiroh.EndpointAddr(key).with_ip("127.0.0.1", port)
    dial = asyncio.ensure_future(client.connect(target, alpn=ALPN))
    await asyncio.sleep(0.05)
    await client.close()
    with pytest.raises(EndpointClosedError):
        await dial


async def test_two_closes_at_once():
    async with bind(alpns=[ALPN]) as server, bind() as client:
        _, dialled = await connected(server, client)
        await asyncio.gather(client.close(), client.close())
        assert dialled.close_reason is not None
        assert client.is_closed


async def test_close_under_load():
    async with bind(alpns=[ALPN]) as server, bind() as client:

        async def sink() -> None:
            async for incoming in server.incoming():
                connection = await incoming
                while True:
                    await connection.accept_uni()

        serving = asyncio.ensure_future(sink())
        connection = await client.connect(server.addr, alpn=ALPN)

        async def pour() -> None:
            async with connection.open_uni() as stream:
                while True:
                    await stream.write(bytes(100_000))

        pouring = [asyncio.ensure_future(pour()) for _ in range(10)]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(4):
            await client.close()
            await server.close()
        outcomes = await asyncio.gather(*pouring, serving, return_exceptions=True)
        assert all(isinstance(outcome, ConnectionError) for outcome in outcomes), outcomes


@pytest.mark.loops
async def test_cancelling_close_lets_go_of_the_sockets():
    async with bind(alpns=[ALPN]) as server:
        client = await bind()
        ends = await connected(server, client)
        port = client.bound_sockets[0].port
        closing = asyncio.ensure_future(client.close())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        async with Endpoint.bind(bind=("127.0.0.1", port)):
            await ends[0].closed()


def test_a_cancelled_main_closes_its_endpoint():
    closed = []

    async def main() -> None:
        async with pair() as (server, client):
            try:
                ends = await connected(server, client)
                asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)
                await ends[0].closed()
            finally:
                closed.append((server, client))

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert all(endpoint.is_closed for endpoint in closed[0])


async def test_an_endpoint_that_is_forgotten_warns():
    forgotten = [await bind()]
    forgotten.clear()
    with pytest.warns(ResourceWarning, match="unclosed"):
        gc.collect()


async def test_another_loop():
    async with bind(alpns=[ALPN]) as endpoint:

        async def elsewhere() -> None:
            with pytest.raises(WrongLoopError):
                await endpoint.connect(endpoint.addr, alpn=ALPN)
            with pytest.raises(WrongLoopError):
                await endpoint.accept()
            with pytest.raises(WrongLoopError):
                await endpoint.close()

        await asyncio.to_thread(asyncio.run, elsewhere())
        assert not endpoint.is_closed


async def test_a_failed_engine_fails_everything(caplog):
    async with bind(alpns=[ALPN]) as server, bind() as client:
        waiting = asyncio.ensure_future(server.accept())
        closed = asyncio.ensure_future(server.closed())
        await asyncio.sleep(0)
        server._driver.engine.panic("endpoint")
        server._driver.touched()
        for task in (waiting, closed):
            with pytest.raises(EndpointFailedError):
                await task
        assert server.is_closed
        with pytest.raises(EndpointFailedError):
            await server.connect(client.addr, alpn=ALPN)


# --- what is told and counted


async def test_metrics_and_events(caplog):
    caplog.set_level(logging.DEBUG, "aioiroh.events")
    async with pair() as (server, client):
        accepted, dialled = await connected(server, client)
        dialled.close()
        await accepted.closed()
        for endpoint in (server, client):
            socket = endpoint.metrics.snapshot()["socket"]
            assert socket["num_conns_opened"] == socket["num_conns_closed"] == 1
            assert socket["send_ipv4"] > 1200
            assert socket["recv_data_ipv4"] > 1200
            assert socket["recv_datagrams"] > 1
            assert socket["send_ipv6"] == 0
            assert socket["paths_direct"] == 1
            assert socket["transport_ip_paths_added"] == 1
            assert socket["transport_ip_paths_removed"] == 1
    told = [(record.event, record.fields) for record in caplog.records if hasattr(record, "event")]
    names = [name for name, _ in told]
    for name in ("conn.connecting", "conn.incoming"):
        assert names.count(name) == 1
    for name in ("conn.connected", "path.open", "conn.closed"):
        assert names.count(name) == 2
    sides = {
        fields["side"]: fields["remote_id"] for name, fields in told if name == "conn.connected"
    }
    assert sides == {"client": str(server.id), "server": str(client.id)}


async def test_a_second_path_is_counted_and_remembered():
    # Multipath: the client adds a path from the same to another address of the server.
    both = ("127.0.0.1:0", "127.0.0.2:0")
    async with (
        Endpoint.bind(bind=both, alpns=[ALPN]) as server,
        # A policy that has no wishes: both paths stay.
        Endpoint.bind(path_selector=lambda _paths, _selected: None) as client,
    ):
        accepted, dialled = await connected(server, client)
        (other,) = [
            (slot.host, slot.port)
            for slot in server.bound_sockets
            if (slot.host, slot.port) != dialled.paths.value[0].remote
        ]
        opened = asyncio.ensure_future(dialled.paths.wait_for(lambda paths: len(paths) == 2))
        await asyncio.sleep(0)
        dialled.state.native.open_path(other, None, "backup")
        client._driver.touched()
        async with asyncio.timeout(5):
            await opened
        assert client.metrics.snapshot()["socket"]["transport_ip_paths_added"] == 2
        assert IpAddr.from_pair(other) in client._remotes.addresses(bytes(server.id))
        dialled.close()
        await accepted.closed()
        assert client.metrics.snapshot()["socket"]["transport_ip_paths_removed"] == 2


async def test_what_is_known_of_a_peer():
    async with pair() as (server, client):
        assert client.remote_info(server.id) is None
        nowhere = IpAddr.from_pair(("127.0.0.1", 9))
        target = server.addr.with_ip("127.0.0.1", 9)
        dialling = asyncio.ensure_future(client.connect(target, alpn=ALPN))
        accepted = await (await server.accept()).accept()
        dialled = await dialling
        (used, other) = client.remote_info(server.id).addresses
        assert (used.addr, used.source) == (server.addr.addrs[0], "application")
        assert used.is_active and used.last_used == 0.0
        assert (other.addr, other.is_active, other.last_used) == (nowhere, False, None)
        (back,) = server.remote_info(client.id).addresses
        assert (back.source, back.last_used) == ("peer", 0.0)
        dialled.close()
        await accepted.closed()
        (left,) = server.remote_info(client.id).addresses
        assert not left.is_active and left.last_used is not None


async def test_a_lookup_service_that_does_not_close_is_left(monkeypatch, caplog):
    monkeypatch.setattr("aioiroh.endpoint.LOOKUP_CLOSE_TIMEOUT", 0.05)

    class Stuck(LookupService):
        provenance = "stuck"

        async def aclose(self):
            await asyncio.sleep(60)

    async with asyncio.timeout(2):
        async with bind(lookup=[Stuck()]):
            pass
    assert "did not close" in caplog.text


async def test_watching_the_address():
    async with bind() as endpoint:
        assert endpoint.watch_addr.value == endpoint.addr
        watching = asyncio.ensure_future(endpoint.watch_addr.changed(endpoint.watch_addr.version))
        await asyncio.sleep(0)
    with pytest.raises(EndpointClosedError):
        await watching


async def test_key_log(tmp_path):
    path = tmp_path / "keys"
    async with bind(alpns=[ALPN]) as server, bind(keylog=path) as client:
        for connection in await connected(server, client):
            connection.close()
    assert "CLIENT_TRAFFIC_SECRET_0" in path.read_text()


# --- hooks and claims


async def test_a_claimed_endpoint_does_not_accept():
    async with bind(alpns=[ALPN]) as endpoint:
        release = endpoint._doorway.claim(lambda knock: True)
        with pytest.raises(BusyError, match="router"):
            await endpoint.accept()
        with pytest.raises(BusyError):
            endpoint._doorway.claim(lambda knock: True)
        release()
        waiting = asyncio.ensure_future(endpoint.accept())
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            endpoint._doorway.claim(lambda knock: True)
        waiting.cancel()


# --- one-liners


async def test_a_lone_connection_closes_its_endpoint():
    async with bind(alpns=[ALPN]) as server:

        async def answer() -> None:
            async for incoming in server.incoming():
                connection = await incoming
                async with connection, await connection.accept_bi() as stream:
                    await stream.write(await stream.read_all(limit=10))

        serving = asyncio.ensure_future(answer())
        async with (
            aioiroh.connect(server.addr, alpn=ALPN, preset=presets.loopback) as connection,
            connection.open_bi() as stream,
        ):
            await stream.write(b"x")
            await stream.finish()
            assert await stream.read_all(limit=10) == b"x"
        connection = await aioiroh.connect(server.addr, alpn=ALPN, preset=presets.loopback)
        connection.close()
        await asyncio.sleep(0.5)
        serving.cancel()


async def test_a_lone_connection_that_fails_closes_its_endpoint():
    async with bind() as silent:
        with pytest.raises(ConnectError):
            await aioiroh.connect(silent.addr, alpn=ALPN, preset=presets.loopback)


async def test_news_of_a_connection_that_was_closed_here_are_harmless():
    """The engine may have more to tell of it: what happened before the close, or while it drains."""
    async with pair() as (server, client):
        _, connection = await connected(server, client)
        state = connection.state
        connection.close()
        identity = bytes(server.id), ALPN
        for kind, a, b in (
            (_native.EV_PATH_ESTABLISHED, 1, (("127.0.0.1", 9), None)),
            (_native.EV_CONNECTED, 0, identity),
        ):
            HANDLERS[kind](state, a, b)
        assert "connections=0" in repr(client)
