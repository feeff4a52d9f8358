"""Peers that meet at upstream's relay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from aioiroh import (
    Connection,
    Endpoint,
    EndpointAddr,
    EndpointId,
    RelayAddr,
    RelayConfig,
    Router,
    SecretKey,
    blobs,
)
from aioiroh.errors import ConnectError
from commands import Process
from relayed import ALPN, NOWHERE, Server, at, behind, echoing, exchange, refused, two
from remote_peer import RemotePeer


@pytest.mark.parametrize("tls", [False, True])
async def test_two_of_ours(relay_server: Server, tls: bool) -> None:
    async with relay_server(tls=tls) as relay, two(relay, bind=()) as (client, server, connection):
        assert server.home_relay is not None and server.home_relay.is_connected
        assert server.addr.addrs == (RelayAddr(relay.url),)
        [path] = connection.paths.value
        assert path.relay == relay.url
        await exchange(connection, 5_000_000)
        counted = client.metrics.snapshot()["socket"]
        assert (counted["paths_relay"], counted["paths_direct"]) == (1, 0)


async def test_upstream_and_we(relay_server: Server, iroh_peer: Callable[..., RemotePeer]) -> None:
    async with (
        relay_server() as relay,
        at(relay, bind=()) as endpoint,
        echoing(endpoint),
        iroh_peer(alpns={"echo": "echo"}, addrs=[], relay=relay.url) as peer,
    ):
        target = behind(relay, EndpointId.parse(peer.id))
        async with endpoint.connect(target, alpn=ALPN, timeout=20) as connection:
            await exchange(connection, 3_000_000)
        where = {"peer": str(endpoint.id), "addrs": [], "relay": relay.url}
        known = await peer("connect", alpn="echo", **where)
        stream = (await peer("open", conn=known["conn"]))["stream"]
        await peer("write", stream=stream, pattern=3_000_000, finish=True)
        answer = await peer("read_all", stream=stream)
        assert (answer["length"], answer["pattern"]) == (3_000_000, True)


async def is_direct(connection: Connection) -> None:
    """Wait until a direct path carries the data, and the relay is in reserve."""
    wanted = {(True, "available"), (False, "backup")}
    try:
        async with asyncio.timeout(20):
            await connection.paths.wait_for(
                lambda paths: {(path.relay is None, path.status) for path in paths} == wanted
            )
    except TimeoutError:
        raise AssertionError(f"still {connection.paths.value}") from None


async def test_from_the_relay_to_a_direct_path(relay_server: Server) -> None:
    async with relay_server() as relay, two(relay) as (client, server, connection):
        await is_direct(connection)
        before = client.metrics.snapshot()["socket"]["send_ipv4"]
        await exchange(connection, 3_000_000)
        assert client.metrics.snapshot()["socket"]["send_ipv4"] - before > 3_000_000
        # Known by the relay only, and still dialled at once where it really is.
        async with client.connect(server.id, alpn=ALPN, timeout=20) as second:
            assert second.paths.value[0].relay is None
        await relay.stop()
        await exchange(connection, 100_000)


async def test_from_the_relay_to_a_direct_path_with_upstream(
    relay_server: Server, iroh_peer: Callable[..., RemotePeer]
) -> None:
    async with (
        relay_server() as relay,
        at(relay) as endpoint,
        iroh_peer(alpns={"echo": "echo"}, relay=relay.url) as peer,
    ):
        target = behind(relay, EndpointId.parse(peer.id))
        async with endpoint.connect(target, alpn=ALPN, timeout=20) as connection:
            await is_direct(connection)
            await exchange(connection, 1_000_000)
        endpoint.set_alpns([ALPN])
        where = {"peer": str(endpoint.id), "addrs": [], "relay": relay.url}
        dialling = asyncio.create_task(peer("connect", alpn="echo", **where))
        async with await (await endpoint.accept()) as connection:
            await is_direct(connection)
            await peer("close", conn=(await dialling)["conn"], code=0)


async def test_the_relay_in_reserve(relay_server: Server) -> None:
    """Dialled directly; the relay that the address names is opened besides."""
    async with (
        relay_server() as relay,
        at(relay) as server,
        at(relay) as client,
        echoing(server),
        client.connect(server.addr, alpn=ALPN, timeout=20) as connection,
    ):
        await is_direct(connection)


async def test_sendme_through_a_relay(relay_server: Server, sendme: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "data").write_bytes(bytes(range(256)) * 10_000)
    async with relay_server() as relay, at(relay) as endpoint:
        command = [str(sendme), "send", str(folder), "--relay", relay.url, "--ticket-type", "relay"]
        sender = await asyncio.create_subprocess_exec(
            *command, "--no-progress", cwd=tmp_path, stdout=asyncio.subprocess.PIPE
        )
        try:
            assert sender.stdout is not None
            async with asyncio.timeout(30):
                lines = [await sender.stdout.readline() for _ in range(3)]
            ticket = blobs.BlobTicket.parse(lines[2].split()[-1].decode())
            assert ticket.addr.addrs == (RelayAddr(relay.url),)
            async with blobs.MemoryStore() as store:
                got = await blobs.get(endpoint, ticket, into=store)
                assert got.received > 2_560_000
        finally:
            sender.kill()
            await sender.wait()


async def test_sendme_fetches_through_a_relay(
    relay_server: Server, sendme: Path, tmp_path: Path
) -> None:
    data = bytes(range(256)) * 10_000
    target = tmp_path / "target"
    target.mkdir()
    async with relay_server() as relay, at(relay) as endpoint, blobs.MemoryStore() as store:
        (tmp_path / "data").write_bytes(data)
        imported = await blobs.import_paths(store, [tmp_path / "data"])
        root = imported.root.hash
        ticket = blobs.BlobTicket(behind(relay, endpoint.id), root, blobs.BlobFormat.HASH_SEQ)
        async with Router(endpoint, {blobs.ALPN: blobs.Provider(store)}):
            receiver = await asyncio.create_subprocess_exec(
                *[str(sendme), "receive", str(ticket), "--relay", relay.url, "--no-progress"],
                cwd=target,
                stdout=asyncio.subprocess.PIPE,
            )
            try:
                async with asyncio.timeout(60):
                    await receiver.communicate()
            finally:
                if receiver.returncode is None:
                    receiver.kill()
            assert receiver.returncode == 0
        assert (target / "data").read_bytes() == data


async def test_the_commands_through_a_relay(relay_server: Server, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(range(256)) * 1000)
    async with relay_server() as relay:
        sender = Process(["send", "--relay", relay.url, tmp_path / "data"])
        try:
            text = await asyncio.to_thread(sender.until, lambda: sender.out, "ticket")
            ticket = blobs.BlobTicket.parse(text.strip())
            assert relay.url in ticket.addr.relay_urls
            # The receiver learns of the relay from the ticket, and of nothing else.
            addr = behind(relay, ticket.addr.id)
            only = blobs.BlobTicket(addr, ticket.hash, ticket.format)
            receiver = Process(["receive", only, "-o", tmp_path / "target"])
            try:
                await asyncio.to_thread(receiver.wait, 0)
            finally:
                receiver.kill()
        finally:
            sender.kill()
    assert (tmp_path / "target" / "data").read_bytes() == (tmp_path / "data").read_bytes()


async def test_a_relay_that_restarts_breaks_nothing(relay_server: Server) -> None:
    async with relay_server() as relay, two(relay, bind=()) as (client, server, connection):
        await exchange(connection, 100_000)
        await relay.stop()
        async with asyncio.timeout(20):
            for endpoint in (client, server):
                await endpoint.watch_home_relay.wait_for(
                    lambda status: status and not status.is_connected
                )
        assert client.home_relay is not None and client.home_relay.problem
        await relay.start()
        async with asyncio.timeout(30):
            await exchange(connection, 100_000)


async def test_who_is_not_let_in(relay_server: Server) -> None:
    ours = SecretKey.generate()
    async with relay_server(access={"denylist": [str(ours.public)]}) as relay:
        bound = Endpoint.bind(bind=NOWHERE, secret_key=ours, relays=[relay.url])
        assert await refused(bound) == "the relay refuses: not authorized"


async def test_a_token_opens_the_door(relay_server: Server) -> None:
    async with relay_server(access={"shared_token": ["open sesame"]}) as relay:
        relays = [RelayConfig(relay.url, auth_token="open sesame")]
        async with Endpoint.bind(bind=NOWHERE, relays=relays) as endpoint, asyncio.timeout(20):
            await endpoint.online()


async def test_the_same_key_twice(relay_server: Server) -> None:
    key = SecretKey.generate()
    async with relay_server() as relay, at(relay, secret_key=key) as first:
        async with at(relay, secret_key=key):
            async with asyncio.timeout(20):
                await first.watch_home_relay.wait_for(lambda status: status and status.problem)
        async with asyncio.timeout(20):
            await first.watch_home_relay.wait_for(lambda status: status and not status.problem)


async def test_a_certificate_that_nobody_vouches_for(relay_server: Server) -> None:
    async with relay_server(tls=True) as relay:
        assert "TLS" in await refused(Endpoint.bind(bind=NOWHERE, relays=[relay.url]))


async def test_without_relays_a_relay_is_no_way() -> None:
    async with Endpoint.bind(bind=NOWHERE) as endpoint:
        await endpoint.online()
        assert endpoint.home_relay is None
        target = EndpointAddr(SecretKey.generate().public, [RelayAddr("http://127.0.0.1:1/")])
        with pytest.raises(ConnectError, match="uses no relays"):
            await endpoint.connect(target, alpn=ALPN)
