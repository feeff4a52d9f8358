"""Dialling: which addresses are tried, what happens when they fail, what is learnt."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest

from aioiroh import (
    ConnectError,
    ConnectionLostError,
    ConnectTimeoutError,
    CustomAddr,
    Endpoint,
    EndpointAddr,
    EndpointTicket,
    Incoming,
    InvalidAlpnError,
    IpAddr,
    LookupItem,
    LookupService,
    MemoryLookup,
    NoAddressError,
    PeerTransportError,
    SecretKey,
    SelfConnectError,
    TransportConfig,
    TransportError,
    presets,
)
from aioiroh.lookup import EndpointData
from aioiroh.paths import remotes

ALPN = b"test/1"
UNREPEATED = TransportConfig(initial_rtt=20)
"""The first packet is repeated after a minute only: what works sooner has not waited for that."""
SOON = 10
"""Seconds: plenty on a busy machine, and less than what dials wait for."""


def bind(**options):
    return Endpoint.bind(preset=presets.loopback, **options)


@asynccontextmanager
async def serving(**options) -> AsyncIterator[Endpoint]:
    """An endpoint that completes every handshake and keeps the connections."""
    kept = []
    options.setdefault("alpns", [ALPN])

    async def complete(incoming: Incoming) -> None:
        # One handshake must not wait for another: the peer of either may be gone.
        with suppress(ConnectionLostError):
            kept.append(await incoming)

    async with bind(**options) as endpoint, asyncio.TaskGroup() as group:

        async def accept() -> None:
            async for incoming in endpoint.incoming():
                group.create_task(complete(incoming))

        group.create_task(accept())
        yield endpoint
        await endpoint.close()


@contextmanager
def silence() -> Iterator[tuple[str, int]]:
    """An address where somebody listens and never answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()


def somebody() -> EndpointAddr:
    return EndpointAddr(SecretKey.generate().public)


def sent(endpoint: Endpoint) -> int:
    return endpoint._driver.engine.stats()["sent_datagrams"]


def reasons(error: ConnectError) -> dict[str, str]:
    return {str(attempt.address): attempt.reason for attempt in error.attempts}


# --- what can be dialled


@pytest.mark.parametrize("form", ["addr", "ticket", "text", "endpoint"])
async def test_forms_of_targets(form):
    async with serving() as server, bind() as client:
        ticket = EndpointTicket(server.addr)
        target = {"addr": server.addr, "ticket": ticket, "text": str(ticket), "endpoint": server}
        async with client.connect(target[form], alpn=ALPN) as connection:
            assert connection.remote_id == server.id
            assert connection.alpn == ALPN


async def test_over_ipv6(require):
    require(socket.has_ipv6, "needs IPv6")
    async with serving(bind="[::1]:0") as server, Endpoint.bind() as client:
        async with client.connect(server.addr, alpn=ALPN) as connection:
            assert connection.paths.value[0].remote[0] == "::1"
        assert client.metrics.snapshot()["socket"]["send_ipv6"] > 0


async def test_nothing_is_sent_for_a_call_that_cannot_work():
    async with serving() as server, bind() as client:
        with pytest.raises(SelfConnectError):
            await client.connect(client.addr, alpn=ALPN)
        for alpn in (b"", [], [ALPN, b""], b"x" * 256):
            with pytest.raises(InvalidAlpnError):
                await client.connect(server.addr, alpn=alpn)
        with pytest.raises(NoAddressError, match="give an address"):
            await client.connect(server.id, alpn=ALPN)
        with pytest.raises(TypeError):
            await client.connect(17, alpn=ALPN)
        assert sent(client) == 0


async def test_one_of_several_protocols_is_agreed_on():
    async with serving(alpns=[b"new", b"old"]) as server, bind() as client:
        async with client.connect(server.addr, alpn=[b"newest", b"old"]) as connection:
            assert connection.alpn == b"old"
        async with client.connect(server.addr, alpn=[b"old", b"new"]) as connection:
            assert connection.alpn == b"new"


async def test_settings_for_one_connection():
    async with bind(alpns=[ALPN]) as server, bind() as client:
        transport = TransportConfig(datagram_receive_buffer=None)
        dial = asyncio.ensure_future(client.connect(server.addr, alpn=ALPN, transport=transport))
        accepted = await (await server.accept())
        assert accepted.max_datagram_size is None
        assert (await dial).max_datagram_size is not None
        accepted.close()
        await (await dial).closed()


# --- failures, each with its reason


@pytest.mark.loops
async def test_another_key_answers():
    async with serving() as server, bind() as client:
        wrong = EndpointAddr(SecretKey.generate().public, server.addr.addrs)
        with pytest.raises(ConnectError) as caught:
            await client.connect(wrong, alpn=ALPN)
        assert list(reasons(caught.value).values()) == ["another key answers there"]
        assert isinstance(caught.value.__cause__, TransportError)
        assert isinstance(caught.value, ConnectionError)
        assert not isinstance(caught.value, TimeoutError)


async def test_the_protocol_is_not_served():
    async with serving() as server, bind() as client:
        with pytest.raises(ConnectError, match="does not serve the protocol") as caught:
            await client.connect(server.addr, alpn=b"other")
        assert isinstance(caught.value.__cause__, PeerTransportError)
        assert caught.value.__cause__.code == 0x178


@pytest.mark.loops
async def test_nobody_answers_in_time():
    with silence() as address:
        async with bind() as client:
            with pytest.raises(ConnectTimeoutError, match=r"within 0\.2 s") as caught:
                async with asyncio.timeout(SOON):
                    await client.connect(somebody().with_ip(*address), alpn=ALPN, timeout=0.2)
            assert list(reasons(caught.value).values()) == ["no answer"]
            assert isinstance(caught.value, (ConnectError, TimeoutError))
            assert client._driver.connection_count <= 1


async def test_nobody_answers_before_the_idle_timeout():
    with silence() as address:
        async with bind() as client:
            # The timeout is never shorter than three probes.
            transport = TransportConfig(idle_timeout=0.3, initial_rtt=0.02)
            with pytest.raises(ConnectTimeoutError, match="no answer"):
                await client.connect(somebody().with_ip(*address), alpn=ALPN, transport=transport)


async def test_a_timeout_around_the_call():
    with silence() as address:
        async with bind() as client:
            with pytest.raises(TimeoutError) as caught:
                async with asyncio.timeout(0.1):
                    await client.connect(somebody().with_ip(*address), alpn=ALPN, timeout=9)
            assert not isinstance(caught.value, ConnectError)


@pytest.mark.loops
@pytest.mark.parametrize("spread", [False, True])
async def test_cancellation_tears_the_dial_down(spread):
    with silence() as one, silence() as other:
        async with bind(transport=TransportConfig(initial_rtt=0.05)) as client:
            target = somebody().with_ip(*one)
            if spread:
                target = target.with_ip(*other)
            dial = asyncio.ensure_future(client.connect(target, alpn=ALPN))
            await asyncio.sleep(0.05)
            assert client._driver.connection_count == 1
            dial.cancel()
            with pytest.raises(asyncio.CancelledError):
                await dial
            before = sent(client)
            async with asyncio.timeout(5):
                while client._driver.connection_count:
                    await asyncio.sleep(0.05)
            # The close itself at most: nothing is repeated.
            assert sent(client) <= before + 2
            assert not client._roster.dials


async def test_addresses_that_cannot_be_used():
    async with bind() as client:
        key = SecretKey.generate().public
        own = client.addr.addrs[0]
        target = EndpointAddr(
            key,
            [
                own,
                CustomAddr(1, b"x"),
                IpAddr.parse("[2001:db8::1]:1"),
                IpAddr.parse("127.0.0.1:0"),
                IpAddr.parse("0.0.0.0:1"),
                IpAddr.parse("224.0.0.1:1"),
                IpAddr.parse("[fd15:70a:510b::1]:12345"),
            ],
        ).with_relay("https://relay.example")
        with pytest.raises(ConnectError) as caught:
            await client.connect(target, alpn=ALPN)
        assert not isinstance(caught.value, NoAddressError)
        assert sent(client) == 0
        found = reasons(caught.value)
        assert len(found) == 8
        assert found[str(own)] == "an address of this endpoint itself"
        assert found["ip:[2001:db8::1]:1"] == "no IPv6 socket is bound"
        assert found["ip:[fd15:70a:510b::1]:12345"] == "reserved"
        assert found["relay:https://relay.example/"] == "this endpoint uses no relays"


@pytest.mark.parametrize("spread", [False, True])
async def test_where_nothing_can_be_sent(spread):
    # A socket bound to loopback cannot send elsewhere.
    async with bind() as client:
        target = somebody().with_ip("192.0.2.77", 5)
        if spread:
            target = target.with_ip("192.0.2.78", 5)
        with pytest.raises(ConnectError, match="cannot send there") as caught:
            async with asyncio.timeout(SOON):
                await client.connect(target, alpn=ALPN)
        assert len(caught.value.attempts) == len(target.addrs)


# --- several addresses


@pytest.mark.loops
async def test_a_live_address_among_dead_ones():
    with silence() as dead:
        async with serving() as server, bind() as client:
            target = server.addr.with_ip(*dead).with_ip("192.0.2.77", 5)
            async with (
                asyncio.timeout(SOON),
                client.connect(target, alpn=ALPN, transport=UNREPEATED) as connection,
            ):
                assert connection.paths.value[0].remote == server.addr.addrs[0].pair
                async with connection.open_uni() as stream:
                    await stream.write(b"x")
            # The unspread address is what was learnt.
            known = client._remotes.addresses(bytes(server.id))
            assert known == (server.addr.addrs[0],)


async def test_another_key_among_the_addresses():
    async with serving() as server, serving() as stranger, bind() as client:
        for _ in range(10):
            target = EndpointAddr(server.id, [*server.addr.addrs, *stranger.addr.addrs])
            connection = await client.connect(target, alpn=ALPN, timeout=3)
            assert connection.remote_id == server.id
            connection.close()
            await asyncio.sleep(0)
            client._remotes.__init__(client._network.monotonic)


async def test_somebody_who_refuses_among_the_addresses():
    async with serving() as server, bind() as closed, bind() as client:
        for _ in range(5):
            target = EndpointAddr(server.id, [*server.addr.addrs, *closed.addr.addrs])
            connection = await client.connect(target, alpn=ALPN, timeout=3)
            assert connection.remote_id == server.id
            connection.close()


async def test_several_addresses_fail_each_for_its_reason():
    with silence() as dead:
        async with serving() as stranger, bind() as closed, bind() as client:
            addrs = [*stranger.addr.addrs, *closed.addr.addrs, IpAddr.from_pair(dead)]
            target = EndpointAddr(SecretKey.generate().public, addrs)
            with pytest.raises(ConnectTimeoutError) as caught:
                await client.connect(target, alpn=ALPN, timeout=0.5)
            found = reasons(caught.value)
            assert found[str(stranger.addr.addrs[0])] == "another key answers there"
            assert found[str(closed.addr.addrs[0])] == "it refused the connection"
            assert found[f"ip:{dead[0]}:{dead[1]}"] == "no answer"


async def test_more_addresses_than_one_route_takes():
    async with serving() as server, bind() as client:
        port = server.addr.addrs[0].port
        target = EndpointAddr(
            server.id, [IpAddr.parse(f"127.0.0.{n}:{port}") for n in range(1, 100)]
        )
        async with client.connect(target, alpn=ALPN, timeout=3) as connection:
            assert connection.remote_id == server.id


# --- lookup


class Slow(LookupService):
    """Gives its answers one by one, each after a delay."""

    provenance = "slow"

    def __init__(self, *answers: tuple[float, EndpointAddr]) -> None:
        self.answers = answers
        self.cancelled = 0

    async def resolve(self, id):
        try:
            for delay, addr in self.answers:
                await asyncio.sleep(delay)
                yield LookupItem(id, EndpointData(addr.addrs), self.provenance)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


@pytest.mark.loops
async def test_an_id_alone():
    memory = MemoryLookup()
    async with serving() as server, bind(lookup=[memory]) as client:
        with pytest.raises(NoAddressError) as caught:
            await client.connect(server.id, alpn=ALPN)
        assert caught.value.__cause__ is not None
        memory.set(server.addr)
        for target in (server.id, str(server.id)):
            async with client.connect(target, alpn=ALPN) as connection:
                assert connection.remote_id == server.id


async def test_lookup_services_come_and_go():
    memory = MemoryLookup()
    async with serving() as server, bind() as client:
        memory.set(server.addr)
        await client.lookup.add(memory)
        async with client.connect(server.id, alpn=ALPN):
            pass
        await client.lookup.remove(memory)
        client._remotes.__init__(client._network.monotonic)
        with pytest.raises(NoAddressError):
            await client.connect(server.id, alpn=ALPN)


async def test_own_addresses_are_published():
    published = []

    class Notice(LookupService):
        provenance = "notice"

        def publish(self, data):
            published.append(data)

    async with bind(lookup=[Notice()]) as endpoint:
        await endpoint.lookup.add(Notice())
        assert [data.addrs for data in published] == [endpoint.addr.addrs] * 2


async def test_an_address_that_is_found_late_is_tried_at_once():
    with silence() as dead:
        async with serving() as server:
            slow = Slow((0.2, server.addr), (60, server.addr))
            async with bind(lookup=[slow]) as client:
                target = EndpointAddr(server.id).with_ip(*dead)
                async with asyncio.timeout(SOON):
                    async with client.connect(
                        target, alpn=ALPN, transport=UNREPEATED
                    ) as connection:
                        assert connection.remote_id == server.id
                    while not slow.cancelled:
                        await asyncio.sleep(0)


async def test_lookup_goes_on_after_a_wrong_answer():
    async with serving() as server, serving() as stranger:
        slow = Slow((0, stranger.addr), (0.2, server.addr))
        async with (
            bind(lookup=[slow]) as client,
            client.connect(server.id, alpn=ALPN, timeout=3) as connection,
        ):
            assert connection.remote_id == server.id


async def test_a_failing_service_is_named():
    class Broken(LookupService):
        provenance = "broken"

        async def resolve(self, id):
            raise OSError("no network today")
            yield

    async with bind(lookup=[Broken()]) as client:
        with pytest.raises(NoAddressError, match="no network today"):
            await client.connect(somebody().id, alpn=ALPN)


async def test_a_service_that_does_not_start_fails_the_bind():
    class Broken(LookupService):
        provenance = "broken"

        async def start(self, context):
            raise OSError("no such service")

    with pytest.raises(OSError, match="no such service"):
        await bind(lookup=[Broken()])


# --- what connections teach


async def test_both_sides_remember_where_the_other_is(monkeypatch):
    async with serving() as server, serving() as client:
        connection = await client.connect(server.addr, alpn=ALPN)
        while not server._roster.count:
            await asyncio.sleep(0)
        # While it is open, and for a moment after.
        (await server.connect(client.id, alpn=ALPN)).close()
        connection.close()
        await asyncio.sleep(0.05)
        again = await client.connect(server.id, alpn=ALPN)
        again.close()
        monkeypatch.setattr(remotes, "REMEMBER_FOR", 0.01)
        await asyncio.sleep(0.05)
        with pytest.raises(NoAddressError):
            await client.connect(server.id, alpn=ALPN)


# --- early data


@pytest.mark.loops
@pytest.mark.parametrize("spread", [False, True])
async def test_early_data(spread):
    async with bind(alpns=[ALPN]) as server, bind() as client:

        async def answer() -> None:
            async for incoming in server.incoming():
                connection = incoming.accept_early()
                stream = await connection.accept_bi()
                async with stream:
                    await stream.write(await stream.read_all(limit=100))
                await connection.closed()

        task = asyncio.ensure_future(answer())
        target = server.addr
        with silence() as dead:
            if spread:
                target = target.with_ip(*dead)
            for early in (False, True):
                connection = await client.connect(target, alpn=ALPN, early_data=True)
                assert connection.is_early is early
                async with connection, connection.open_bi() as stream:
                    await stream.write(b"soon")
                    await stream.finish()
                    assert await stream.read_all(limit=100) == b"soon"
                    assert await connection.handshake_completed() is early
                    assert connection.remote_id == server.id
                await asyncio.sleep(0.05)
        task.cancel()


async def test_early_data_nobody_answers():
    async with bind(alpns=[ALPN]) as server, bind() as client:
        dial = asyncio.ensure_future(client.connect(server.addr, alpn=ALPN, early_data=True))
        accepted = await (await server.accept())
        connection = await dial
        # The ticket comes after the handshake.
        async with connection.open_uni() as stream:
            await stream.write(b"x")
        await (await accepted.accept_uni()).read_all(limit=10)
        connection.close()
        await accepted.closed()
        with silence() as dead:
            target = EndpointAddr(server.id).with_ip(*dead)
            client._remotes.__init__(client._network.monotonic)
            connection = await client.connect(
                target,
                alpn=ALPN,
                early_data=True,
                transport=TransportConfig(idle_timeout=0.3, initial_rtt=0.02),
            )
            assert connection.is_early
            with pytest.raises(TimeoutError):
                await connection.handshake_completed()
