"""The lookup registry, the memory lookup, and what is published."""

from __future__ import annotations

import asyncio
import gc
from contextlib import aclosing

import pytest

from aioiroh.address import EndpointAddr, IpAddr, RelayAddr, RelayUrl
from aioiroh.errors import AioirohError, LookupFailedError
from aioiroh.keys import SecretKey
from aioiroh.lookup import (
    EndpointData,
    LookupContext,
    LookupItem,
    LookupRegistry,
    LookupService,
    MemoryLookup,
    ip_only,
    relay_only,
)
from aioiroh.metrics import Metrics
from aioiroh.net import SystemNetwork

loops = pytest.mark.loops

SECRET = SecretKey(bytes(range(32)))
ID = SECRET.public
OTHER = SecretKey(bytes(32)).public
IP = IpAddr.parse("10.0.0.1:1")
IP2 = IpAddr.parse("10.0.0.2:2")
RELAY = RelayAddr(RelayUrl("https://relay.example"))


def registry(addr_filter=None):
    context = LookupContext(SECRET, SystemNetwork(), Metrics())
    return LookupRegistry(context, addr_filter=addr_filter)


class Scripted(LookupService):
    """Gives `answers` in turn; numbers are turns to wait, exceptions are raised."""

    def __init__(self, provenance, *answers):
        self.provenance = provenance
        self.answers = answers
        self.published = []
        self.log = []

    async def start(self, context):
        self.log.append(("start", context.secret_key))

    def publish(self, data):
        self.published.append(data)

    def resolve(self, id):
        return self._answers(id) if self.answers else None

    async def _answers(self, id):
        try:
            for answer in self.answers:
                if isinstance(answer, Exception):
                    raise answer
                if isinstance(answer, int):
                    for _ in range(answer):
                        await asyncio.sleep(0)
                else:
                    yield answer
        finally:
            self.log.append("closed")

    async def aclose(self):
        self.log.append("aclose")


def item(*addrs, id=ID, provenance="test"):
    return LookupItem(id, EndpointData(addrs), provenance)


# --- values ---------------------------------------------------------------------------------------


def test_endpoint_data_keeps_order_and_drops_repetitions():
    data = EndpointData([IP2, RELAY, IP, IP2], "hi")
    assert data.addrs == (IP2, RELAY, IP)
    assert data == EndpointData((IP2, RELAY, IP), "hi") != EndpointData((IP2, RELAY, IP))
    assert LookupItem(ID, data, "x").addr == EndpointAddr(ID, [RELAY, IP, IP2])


def test_user_data_is_bounded_in_bytes():
    assert EndpointData(user_data="é" * 122).user_data == "é" * 122
    with pytest.raises(ValueError):
        EndpointData(user_data="é" * 123)


def test_filters():
    addrs = [IP, RELAY, IP2]
    assert list(relay_only(addrs)) == [RELAY]
    assert list(ip_only(addrs)) == [IP, IP2]


# --- memory ---------------------------------------------------------------------------------------


async def resolved(service, id=ID):
    stream = service.resolve(id)
    return None if stream is None else [item async for item in stream]


async def test_memory_lookup():
    now = 5.0
    memory = MemoryLookup(clock=lambda: now)
    assert await resolved(memory) is None
    memory.add(EndpointAddr(ID, [IP2]), "old")
    memory.add(EndpointAddr(ID, [IP, IP2]))
    assert await resolved(memory) == [
        LookupItem(ID, EndpointData([IP2, IP]), "memory_lookup", 5_000_000)
    ]
    assert memory.set(EndpointAddr(ID, [RELAY]), "new") == EndpointData([IP2, IP])
    assert memory.get(ID) == EndpointData([RELAY], "new")
    memory.provenance = "mine"
    assert [item.provenance for item in await resolved(memory)] == ["mine"]
    assert memory.remove(ID) == EndpointData([RELAY], "new")
    assert memory.remove(ID) is None and memory.get(ID) is None
    memory.add(str(OTHER))
    assert memory.get(OTHER) == EndpointData()


# --- registry -------------------------------------------------------------------------------------


async def collect(lookups, id=ID):
    return [answer async for answer in lookups.resolve(id)]


@loops
async def test_no_service():
    with pytest.raises(LookupFailedError, match="no lookup service is configured"):
        await collect(registry())


@loops
async def test_answers_come_as_they_arrive():
    lookups = registry()
    for service in (
        Scripted("slow", 20, item(IP)),
        Scripted("fast", 1, item(IP2), 40, item(RELAY)),
        Scripted("mute"),
    ):
        await lookups.add(service)
    assert len(lookups) == 3
    assert await collect(lookups) == [item(IP2), item(IP), item(RELAY)]


@loops
async def test_a_failing_service_does_not_end_the_others():
    lookups = registry()
    await lookups.add(Scripted("broken", item(IP), OSError("unplugged")))
    await lookups.add(Scripted("good", 10, item(IP2)))
    assert await collect(lookups) == [item(IP), item(IP2)]


@loops
async def test_without_an_answer_all_causes_are_told():
    lookups = registry()
    await lookups.add(Scripted("broken", OSError("unplugged")))
    await lookups.add(Scripted("worse", ValueError("nonsense")))
    await lookups.add(Scripted("empty", 1))
    with pytest.raises(LookupFailedError) as caught:
        await collect(lookups)
    assert sorted(map(type, caught.value.errors), key=repr) == [OSError, ValueError]
    assert "unplugged" in str(caught.value) and "nonsense" in str(caught.value)
    assert isinstance(caught.value, ConnectionError) and isinstance(caught.value, AioirohError)
    assert caught.value.errors[0].__notes__ == ["lookup service: broken"]


@loops
async def test_a_service_that_fails_to_begin_is_a_failing_service():
    class Broken(Scripted):
        def resolve(self, id):
            raise RuntimeError("cannot even begin")

    lookups = registry()
    await lookups.add(Broken("broken"))
    await lookups.add(Scripted("good", item(IP)))
    assert await collect(lookups) == [item(IP)]


@loops
async def test_answers_for_another_id_are_ignored(caplog):
    lookups = registry()
    await lookups.add(Scripted("confused", item(IP, id=OTHER), item(IP2)))
    assert await collect(lookups) == [item(IP2)]
    assert "confused" in caplog.text


@loops
async def test_leaving_early_cancels_what_is_still_asked():
    lookups = registry()
    endless = Scripted("endless", item(IP), 10**6)
    await lookups.add(endless)
    async with aclosing(lookups.resolve(ID)) as answers:
        async for answer in answers:
            assert answer == item(IP)
            break
    assert endless.log[-1] == "closed"
    assert len(asyncio.all_tasks()) == 1


@loops
async def test_cancelling_the_reader_cancels_the_services():
    lookups = registry()
    endless = Scripted("endless", 10**6)
    await lookups.add(endless)
    reader = asyncio.create_task(collect(lookups))
    for _ in range(10):
        await asyncio.sleep(0)
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    gc.collect()
    for _ in range(10):
        await asyncio.sleep(0)
    assert endless.log[-1] == "closed"


@loops
async def test_a_talkative_service_waits_for_the_reader():
    lookups = registry()
    given = 0

    class Talkative(LookupService):
        provenance = "talkative"

        async def resolve(self, id):
            nonlocal given
            while given < 1000:
                given += 1
                yield item(IP)

    await lookups.add(Talkative())
    async with aclosing(lookups.resolve(ID)) as answers:
        await anext(answers)
        for _ in range(100):
            await asyncio.sleep(0)
        assert given < 50
    given = 0
    assert len(await collect(lookups)) == 1000


@loops
async def test_plain_iterators_will_do():
    class Plain(LookupService):
        provenance = "plain"

        def resolve(self, id):
            return self

        def __aiter__(self):
            self.left = [item(IP)]
            return self

        async def __anext__(self):
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop()

    lookups = registry()
    await lookups.add(Plain())
    assert await collect(lookups) == [item(IP)]


@loops
async def test_publishing():
    lookups = registry(relay_only)
    first, late = Scripted("first"), Scripted("late")
    await lookups.add(first)
    assert first.log == [("start", SECRET)] and first.published == []
    lookups.publish(EndpointData([IP, RELAY], "hi"))
    await lookups.add(late)
    assert first.published == late.published == [EndpointData([RELAY], "hi")]


@loops
async def test_publishing_outlives_a_broken_service(caplog):
    class Broken(Scripted):
        def publish(self, data):
            raise OSError("disk full")

        async def aclose(self):
            raise OSError("still full")

    lookups = registry()
    good = Scripted("good")
    await lookups.add(Broken("broken"))
    await lookups.add(good)
    lookups.publish(EndpointData([IP]))
    assert good.published == [EndpointData([IP])]
    await lookups.clear()
    assert good.log[-1] == "aclose" and len(lookups) == 0
    assert caplog.text.count("broken did not") == 2
    with pytest.raises(LookupFailedError):
        await collect(lookups)


@loops
async def test_a_failing_start_is_the_caller_s_business():
    class Broken(Scripted):
        async def start(self, context):
            raise OSError("no network")

    lookups = registry()
    with pytest.raises(OSError, match="no network"):
        await lookups.add(Broken("broken"))
    assert len(lookups) == 0
