"""Who is let in by a relay server, in virtual time: access, proofs of keys, places."""

from __future__ import annotations

import asyncio
from base64 import b64encode

import pytest

from aioiroh import RelayConfig, SecretKey
from aioiroh.relayserver import Allow, Deny, Limits
from aioiroh.testing import simulated
from relay_place import UPGRADE, Raw, packet, relay


@simulated()
async def test_access_decides(network):
    seen, left = [], []

    async def access(request):
        seen.append(request)
        match request.token:
            case "sesame":
                return Allow()
            case "slow":
                await asyncio.sleep(3600)
            case "broken":
                raise RuntimeError("out of order")
            case "reason":
                return Deny("not on a Sunday")
        return Deny()

    def gone(*who):
        left.append(who)

    async with relay(network, access=access, on_disconnect=gone) as place:
        key = SecretKey.generate()
        raw = await place.client(key, query=b"?token=sesame&x=1")
        assert (seen[0].endpoint_id, seen[0].version) == (key.public, 2)
        assert seen[0].query == [("token", "sesame"), ("x", "1")]
        assert seen[0].remote == raw.transport.get_extra_info("sockname")[:2]
        for token, reason in [
            (b"", b"not authorized"),
            (b"?token=slow", b"not authorized"),
            (b"?token=broken", b"not authorized"),
            (b"?token=reason", b"not on a Sunday"),
        ]:
            denied = await place.raw()
            assert await denied.enter(key, query=token) == b"\x03" + bytes((len(reason),)) + reason
            await denied.lost
        assert (place.server.clients, left) == (1, [])
        raw.transport.close()
        await raw.lost
        await asyncio.sleep(1)
        assert left == [(key.public, seen[0].connection_id)]
        assert place.server.counters["access_denied"] == 4
        relays = [RelayConfig(place.server.url, auth_token="sesame")]
        async with place.endpoint(relays=relays) as endpoint:
            await endpoint.online()
        # Another rule, from now on.
        place.server.access = lambda _request: asyncio.sleep(0, Allow())
        await place.client(key)


@simulated()
async def test_nobody_is_judged_who_has_gone(network):
    began, ended = asyncio.Event(), asyncio.Event()

    async def access(_request):
        began.set()
        try:
            await asyncio.sleep(8)
        finally:
            ended.set()
        return Allow()

    async with relay(network, access=access, limits=Limits(pending=1)) as place:
        raw = await place.raw()
        entering = asyncio.create_task(raw.enter(SecretKey.generate()))
        await began.wait()
        raw.transport.abort()
        async with asyncio.timeout(1):
            await ended.wait()
        entering.cancel()
        # It has left its place to others.
        await place.client()


@simulated()
async def test_a_call_back_that_fails_holds_nothing_up(network):
    def gone(*_who):
        raise RuntimeError("out of order")

    async with relay(network, on_disconnect=gone) as place:
        raw, other = await place.client(), await place.client()
        raw.transport.close()
        await asyncio.sleep(1)
        assert place.server.clients == 1
    await other.lost


@simulated()
async def test_a_relay_that_drops_everybody_is_dialled_less_and_less(network):
    async def drop(server):
        while True:
            await asyncio.sleep(0.2)
            for endpoint_id in server.endpoint_ids:
                server.disconnect(endpoint_id)

    async with relay(network) as place, place.endpoint() as endpoint:
        await endpoint.online()
        dropping = asyncio.create_task(drop(place.server))
        await asyncio.sleep(60)
        accepted = place.server.counters["accepts"]
        dropping.cancel()
        assert accepted < 15
        await endpoint.online()


@simulated()
async def test_a_key_has_to_be_proved(network):
    async with relay(network) as place:
        raw = await place.raw()
        raw.write(UPGRADE % (b"", b64encode(bytes(16)), 2))
        await raw.head()
        await raw.frame()
        key = SecretKey.generate()
        raw.send(b"\x01" + bytes(key.public) + b"\x40" + bytes(key.sign(b"something else")))
        assert await raw.frame() == b"\x03\x11signature invalid"
        await raw.lost
        # Not in time.
        raw = await place.raw()
        raw.write(UPGRADE % (b"", b64encode(bytes(16)), 2))
        await raw.head()
        started = network.loop.time()
        await raw.lost
        assert 9.9 < network.loop.time() - started < 10.5
        # Frames before the answer.
        asked = asyncio.Event()
        place.server.access = lambda _request: asked.wait()
        raw = await place.raw()
        entering = asyncio.ensure_future(raw.enter(key))
        await asyncio.sleep(2)
        raw.send(packet(key, b"x"))
        await raw.lost
        with pytest.raises(AssertionError):
            await entering


@simulated()
async def test_there_is_room_for_so_many(network):
    async with relay(network, limits=Limits(connections=3, pending=2)) as place:
        first = [await place.raw() for _ in range(2)]
        late = await place.raw()
        await late.lost
        # These two are pending no more.
        for raw in first:
            await raw.enter(SecretKey.generate())
        third = await place.raw()
        await third.enter(SecretKey.generate())
        late = await place.raw()
        await late.lost
        assert place.server.counters["connections_refused"] == 2


@simulated()
async def test_one_address_cannot_take_all_places(network):
    async with relay(network, limits=Limits(pending=48)) as place:
        hostile, address = network.host("hostile"), place.server.http_address
        [*_, late] = [await hostile.connect_tcp(Raw, *address) for _ in range(4)]
        await late.lost
        # Others come in, and are not counted there any more.
        for _ in range(5):
            await place.client()
        await asyncio.sleep(31)
        raw = await hostile.connect_tcp(Raw, *address)
        assert await raw.enter(SecretKey.generate()) == b"\x02"
