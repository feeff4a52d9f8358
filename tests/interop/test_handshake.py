"""How connections come about, or do not, between ours and upstream's endpoints."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aioiroh import (
    ApplicationClosedError,
    ConnectError,
    Connection,
    ConnectTimeoutError,
    Endpoint,
    EndpointAddr,
    Hook,
    LocallyRejectedError,
    PeerTransportError,
    Reject,
    Router,
    SecretKey,
    TransportConfig,
    TransportError,
)
from meeting import ALPN, LOOPBACK, Meet, address, join, where
from remote_peer import PeerError

REFUSED, UNKNOWN_CA, NO_APPLICATION_PROTOCOL = 0x02, 0x100 + 48, 0x100 + 120
QUEUE = {ALPN.decode(): "queue"}


def bind(**options: Any) -> Any:
    return Endpoint.bind(bind=LOOPBACK, **{"alpns": [ALPN], **options})


@contextlib.contextmanager
def silent_address() -> Iterator[str]:
    """A port that takes datagrams and never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{sock.getsockname()[1]}"


def closed_address() -> str:
    """A port where nobody listens: the system says so."""
    with silent_address() as addr:
        return addr


async def failed_handshake(peer: Any) -> dict[str, Any]:
    """How the peer judges the first handshake with us that did not work out."""
    async with asyncio.timeout(10):
        while not (failed := await peer.failed_handshakes()):
            await asyncio.sleep(0.02)
    first: dict[str, Any] = failed[0]
    return first


async def test_both_know_who_the_other_is(make_peer: Callable[..., Any], meet: Meet) -> None:
    async with meet(make_peer) as link:
        assert bytes(link.ours.remote_id).hex() == link.peer.id
        assert link.ours.alpn == ALPN
        (path,) = link.ours.paths.value
        host, _, port = link.peer.addrs[0].rpartition(":")
        assert (path.id, path.remote, path.status) == (0, (host, int(port)), "available")
        assert 0 < path.rtt < 0.5 and 0 < link.ours.rtt < 0.5
        stats = link.ours.stats()
        assert stats


@pytest.mark.parametrize("we_dial", [True, False], ids=["we dial", "they dial"])
async def test_ipv6(make_peer: Callable[..., Any], we_dial: bool) -> None:
    async with (
        Endpoint.bind(bind="[::1]:0", alpns=[ALPN]) as endpoint,
        make_peer(addr="[::1]:0", alpns=QUEUE) as peer,
    ):
        link = await join(we_dial, endpoint, peer)
        async with link.ours:
            assert link.ours.paths.value[0].remote[0] == "::1"
            link.ours.send_datagram(b"six")
            assert await link.theirs("read_datagram") == {"hex": b"six".hex()}


@pytest.mark.parametrize("we_dial", [True, False], ids=["we dial", "they dial"])
async def test_wildcard_sockets(make_peer: Callable[..., Any], we_dial: bool) -> None:
    async with Endpoint.bind(alpns=[ALPN]) as endpoint, make_peer(alpns=QUEUE) as peer:
        port = endpoint.bound_sockets[0].port
        if we_dial:
            ours = await endpoint.connect(address(peer), alpn=ALPN)
        else:
            known = {"peer": bytes(endpoint.id).hex(), "addrs": [f"127.0.0.1:{port}"]}
            dialling = asyncio.create_task(peer("connect", alpn=ALPN.decode(), **known))
            ours = await (await endpoint.accept())
            await dialling
        async with ours:
            assert ours.paths.value[0].remote[0] == "127.0.0.1"


# --- the wrong one answers ------------------------------------------------------------------------


async def test_we_dial_a_key_that_is_not_there(make_peer: Callable[..., Any]) -> None:
    async with bind() as endpoint, make_peer(alpns=QUEUE) as peer:
        wrong = EndpointAddr(SecretKey.generate().public, address(peer).addrs)
        with pytest.raises(ConnectError) as failed:
            await endpoint.connect(wrong, alpn=ALPN)
        (attempt,) = failed.value.attempts
        assert str(attempt.address) == f"ip:{peer.addrs[0]}" or peer.addrs[0] in str(attempt)
        assert "another key" in attempt.reason
        cause = failed.value.__cause__
        assert isinstance(cause, TransportError) and cause.code == UNKNOWN_CA
        theirs = await failed_handshake(peer)
        assert theirs["code"] == UNKNOWN_CA, theirs


async def test_they_dial_a_key_that_is_not_ours(make_peer: Callable[..., Any]) -> None:
    async with bind() as endpoint, make_peer() as peer:
        wrong = {**where(endpoint), "peer": bytes(SecretKey.generate().public).hex()}
        dialling = asyncio.create_task(peer("connect", alpn=ALPN.decode(), **wrong))
        with pytest.raises(PeerTransportError) as ours:
            await (await endpoint.accept())
        assert ours.value.code == UNKNOWN_CA
        with pytest.raises(PeerError) as theirs:
            await dialling
        assert theirs.value.code == UNKNOWN_CA, theirs.value.details


async def test_we_ask_for_an_unknown_protocol(make_peer: Callable[..., Any]) -> None:
    async with bind() as endpoint, make_peer(alpns=QUEUE) as peer:
        with pytest.raises(ConnectError) as failed:
            await endpoint.connect(address(peer), alpn=b"unknown")
        assert "ALPN" in failed.value.attempts[0].reason
        cause = failed.value.__cause__
        assert isinstance(cause, PeerTransportError) and cause.code == NO_APPLICATION_PROTOCOL
        theirs = await failed_handshake(peer)
        assert theirs["code"] == NO_APPLICATION_PROTOCOL, theirs


async def test_they_ask_for_an_unknown_protocol(make_peer: Callable[..., Any]) -> None:
    async with bind() as endpoint, make_peer() as peer:
        dialling = asyncio.create_task(peer("connect", alpn="unknown", **where(endpoint)))
        with pytest.raises(TransportError) as ours:
            await (await endpoint.accept())
        assert ours.value.code == NO_APPLICATION_PROTOCOL
        with pytest.raises(PeerError, match="known protocol") as theirs:
            await dialling
        assert theirs.value.code == NO_APPLICATION_PROTOCOL, theirs.value.details


async def test_the_accepting_sides_order_of_protocols_counts(
    iroh_peer: Callable[..., Any], wheel_peer: Callable[..., Any]
) -> None:
    served = [b"a", b"b", b"c"]
    roles = {alpn.decode(): "queue" for alpn in served}
    async with bind(alpns=served) as endpoint, iroh_peer(alpns=roles) as peer:
        for offered in (["c"], ["c", "b"], ["x", "c", "a", "b"]):
            chosen = min(set(offered) & set(roles))
            ours = await endpoint.connect(address(peer), alpn=[alpn.encode() for alpn in offered])
            assert ours.alpn == chosen.encode()
            assert (await peer("accept"))["alpn"] == chosen
            ours.close()

            first, *more = offered
            dialling = asyncio.create_task(
                peer("connect", alpn=first, more_alpns=more, **where(endpoint))
            )
            incoming = await endpoint.accept()
            assert incoming.alpns == tuple(alpn.encode() for alpn in offered)
            ours = await incoming
            assert ours.alpn == chosen.encode()
            assert (await dialling)["alpn"] == chosen
            ours.close()

    async with bind() as endpoint, wheel_peer(alpns=roles) as peer:
        ours = await endpoint.connect(address(peer), alpn=[b"x", b"c", b"b"])
        assert ours.alpn == b"b"
        ours.close()


async def test_protocols_change_while_serving(make_peer: Callable[..., Any]) -> None:
    async def hello(connection: Connection) -> None:
        async with connection.open_uni() as stream:
            await stream.write(connection.alpn)

    async def refused() -> int | None:
        with pytest.raises(PeerError) as failed:
            await peer("connect", alpn="new", **where(endpoint))
        return failed.value.code

    async with bind() as endpoint, Router(endpoint) as router, make_peer() as peer:
        # Who serves nothing at all does not even look at what is asked for.
        assert await refused() == REFUSED
        router.add(b"old", hello)
        assert await refused() == NO_APPLICATION_PROTOCOL
        router.add(b"new", hello)
        known = await peer("connect", alpn="new", **where(endpoint))
        stream = await peer("accept_stream", uni=True, conn=known["conn"])
        assert (await peer("read_all", stream=stream["stream"]))["hex"] == b"new".hex()
        # The handler has returned.
        closed = await peer("closed", conn=known["conn"])
        assert closed["code"] == 0
        router.remove(b"new")
        assert await refused() == NO_APPLICATION_PROTOCOL


# --- addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("we_dial", [True, False], ids=["we dial", "they dial"])
async def test_dead_addresses_cost_nothing(make_peer: Callable[..., Any], we_dial: bool) -> None:
    with silent_address() as silent:
        dead = [silent, closed_address(), "127.0.0.9:9", "192.0.2.1:9", "[::1]:9"]
        async with bind() as endpoint, make_peer(alpns=QUEUE) as peer:
            async with asyncio.timeout(10):
                if we_dial:
                    # The first packet is repeated after a minute only; nobody waits for that.
                    slow = TransportConfig(initial_rtt=20)
                    ours = await endpoint.connect(address(peer, dead), alpn=ALPN, transport=slow)
                else:
                    known = where(endpoint)
                    known["addrs"] = [*dead, *known["addrs"]]
                    dialling = asyncio.create_task(peer("connect", alpn=ALPN.decode(), **known))
                    ours = await (await endpoint.accept())
                    await dialling
            async with ours, ours.open_bi() as stream:
                await stream.write(b"x")


async def test_an_address_where_somebody_else_lives_is_struck_off(
    make_peer: Callable[..., Any],
) -> None:
    async with bind() as endpoint, make_peer(alpns=QUEUE) as other, make_peer(alpns=QUEUE) as peer:
        # Whoever is asked first may answer first.
        for _ in range(10):
            async with endpoint.connect(address(peer, other.addrs), alpn=ALPN, timeout=5) as ours:
                assert bytes(ours.remote_id).hex() == peer.id
        # They would wait for those that we have left in the middle of a handshake.
        await other.kill()
        await peer.kill()


async def test_nobody_answers(make_peer: Callable[..., Any]) -> None:
    async with bind() as endpoint, make_peer(alpns=QUEUE) as peer:
        with silent_address() as silent:
            nowhere = EndpointAddr(address(peer).id).with_ip("127.0.0.1", int(silent[10:]))
            with pytest.raises(ConnectTimeoutError) as failed:
                await endpoint.connect(nowhere, alpn=ALPN, timeout=0.5)
            assert failed.value.attempts[0].reason == "no answer"
        # And now at the right address.
        async with endpoint.connect(address(peer), alpn=ALPN) as ours:
            assert ours.alpn == ALPN


# --- the door -------------------------------------------------------------------------------------


async def test_they_refuse(make_peer: Callable[..., Any]) -> None:
    async with bind() as endpoint, make_peer(alpns=QUEUE) as peer:
        await peer("door", mode="refuse")
        with pytest.raises(ConnectError) as failed:
            await endpoint.connect(address(peer), alpn=ALPN)
        assert "refused" in failed.value.attempts[0].reason
        cause = failed.value.__cause__
        assert isinstance(cause, PeerTransportError) and cause.code == REFUSED
        await peer("door", mode="accept")
        async with endpoint.connect(address(peer), alpn=ALPN):
            await peer("accept")


async def test_we_refuse(make_peer: Callable[..., Any]) -> None:
    async with bind() as endpoint, make_peer() as peer:
        for drop in (False, True):
            dialling = asyncio.create_task(peer("connect", alpn=ALPN.decode(), **where(endpoint)))
            incoming = await endpoint.accept()
            assert incoming.alpns == (ALPN,)
            if not drop:
                incoming.refuse()
            # One that is let go of is refused, too.
            del incoming
            with pytest.raises(PeerError) as failed:
                await dialling
            assert failed.value.code == REFUSED, failed.value.details
            assert "refused" in failed.value.text


async def test_they_ignore(make_peer: Callable[..., Any]) -> None:
    async with bind() as endpoint, make_peer(alpns=QUEUE) as peer:
        await peer("door", mode="ignore")
        with pytest.raises(ConnectTimeoutError):
            await endpoint.connect(address(peer), alpn=ALPN, timeout=0.7)
        short = TransportConfig(idle_timeout=1)
        with pytest.raises(ConnectTimeoutError):
            await endpoint.connect(address(peer), alpn=ALPN, transport=short)
        await peer.kill()


async def test_we_ignore(make_peer: Callable[..., Any]) -> None:
    """The peer tries again, since nothing was answered, and then gets in."""
    async with bind() as endpoint, make_peer() as peer:
        dialling = asyncio.create_task(peer("connect", alpn=ALPN.decode(), **where(endpoint)))
        (await endpoint.accept()).ignore()
        async with await (await endpoint.accept()) as ours:
            assert ours.alpn == ALPN
            await dialling


async def test_we_ignore_to_the_end(iroh_peer: Callable[..., Any]) -> None:
    async with bind() as endpoint, iroh_peer(transport={"idle_timeout": 1}) as peer:
        dialling = asyncio.create_task(peer("connect", alpn=ALPN.decode(), **where(endpoint)))
        ignoring = asyncio.create_task(ignore_all(endpoint))
        with pytest.raises(PeerError) as failed:
            await dialling
        assert failed.value.kind == "timed_out"
        ignoring.cancel()


async def ignore_all(endpoint: Endpoint) -> None:
    async for incoming in endpoint.incoming():
        incoming.ignore()


async def test_they_ask_us_to_prove_our_address(make_peer: Callable[..., Any]) -> None:
    async with bind() as endpoint, make_peer(alpns=QUEUE) as peer:
        # Who is let in through this door has proved its address.
        await peer("door", mode="retry")
        async with endpoint.connect(address(peer), alpn=ALPN, timeout=10) as ours:
            await peer("accept")
            assert ours.alpn == ALPN


async def test_we_ask_them_to_prove_their_address(make_peer: Callable[..., Any]) -> None:
    async with bind() as endpoint, make_peer() as peer:
        dialling = asyncio.create_task(peer("connect", alpn=ALPN.decode(), **where(endpoint)))
        incoming = await endpoint.accept()
        assert not incoming.validated and incoming.may_retry
        assert incoming.retry()
        incoming = await endpoint.accept()
        assert incoming.validated and not incoming.may_retry
        assert not incoming.retry()
        async with await incoming as ours:
            await dialling
            assert bytes(ours.remote_id).hex() == peer.id


async def test_under_load_the_engine_asks_by_itself(make_peer: Callable[..., Any]) -> None:
    async with bind(retry_above=0) as endpoint, make_peer() as peer:
        dialling = asyncio.create_task(peer("connect", alpn=ALPN.decode(), **where(endpoint)))
        incoming = await endpoint.accept()
        assert incoming.validated
        async with await incoming:
            await dialling


# --- hooks ----------------------------------------------------------------------------------------


class Doorman(Hook):
    async def after_handshake(self, connection: Connection) -> Reject | None:
        return Reject(401, b"not you")


async def test_a_hook_refuses_and_they_learn_why(make_peer: Callable[..., Any]) -> None:
    async with bind(hooks=[Doorman()]) as endpoint, make_peer(alpns=QUEUE) as peer:
        known = await asyncio.gather(
            peer("connect", alpn=ALPN.decode(), **where(endpoint)),
            refuse_next(endpoint),
        )
        closed = await peer("closed", conn=known[0]["conn"])
        assert closed["code"] == 401 and "not you" in str(closed)

        with pytest.raises(LocallyRejectedError):
            await endpoint.connect(address(peer), alpn=ALPN)
        # To the peer the handshake may have looked complete before the refusal came, or not.
        assert "not you" in str(await their_view(peer))


async def refuse_next(endpoint: Endpoint) -> None:
    with pytest.raises(LocallyRejectedError):
        await (await endpoint.accept())


async def their_view(peer: Any) -> Any:
    accepting = asyncio.create_task(peer("accept"))
    failing = asyncio.create_task(failed_handshake(peer))
    done, _ = await asyncio.wait([accepting, failing], return_when=asyncio.FIRST_COMPLETED)
    failing.cancel()
    if accepting in done:
        return await peer("closed", conn=accepting.result()["conn"])
    accepting.cancel()
    return failing.result()


# --- many -----------------------------------------------------------------------------------------


async def test_200_connections_to_them(make_peer: Callable[..., Any]) -> None:
    async with bind() as endpoint, make_peer(alpns={ALPN.decode(): "echo"}) as peer:

        async def one(number: int) -> None:
            async with (
                endpoint.connect(address(peer), alpn=ALPN) as ours,
                ours.open_bi() as stream,
            ):
                await stream.write(b"%d" % number)
                await stream.finish()
                assert await stream.read_all(limit=10) == b"%d" % number

        for number in range(200):
            await one(number)
        await asyncio.gather(*map(one, range(200)))


@pytest.mark.parametrize("in_flight", [1, 50])
async def test_200_connections_to_us(make_peer: Callable[..., Any], in_flight: int) -> None:
    served = 0

    async def count(connection: Connection) -> None:
        nonlocal served
        served += 1
        closed = await connection.closed()
        assert isinstance(closed, ApplicationClosedError) and closed.code == 0

    async with bind() as endpoint, Router(endpoint, {ALPN: count}), make_peer() as peer:
        told = await peer(
            "bench_connects", count=200, in_flight=in_flight, alpn=ALPN.decode(), **where(endpoint)
        )
        assert told["seconds"] < 60
        async with asyncio.timeout(5):
            while served < 200:
                await asyncio.sleep(0.01)


async def test_200_living_connections(make_peer: Callable[..., Any]) -> None:
    async with (
        bind() as endpoint,
        make_peer(alpns={ALPN.decode(): "echo"}) as peer,
    ):
        connections = await asyncio.gather(
            *(endpoint.connect(address(peer), alpn=ALPN) for _ in range(200))
        )
        for number, connection in enumerate(connections):
            connection.send_datagram(b"%d" % number)
        for number, connection in enumerate(connections):
            assert await connection.read_datagram() == b"%d" % number
        for connection in connections:
            connection.close()
