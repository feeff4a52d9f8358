"""Port mapping against models of routers, in virtual time: good ones, silent ones, hostile ones."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from aioiroh import Endpoint, IpAddr
from aioiroh.metrics import Metrics
from aioiroh.portmap import PortMapper, probe
from aioiroh.testing import Host, VirtualNetwork, simulated

PORT = 4444
EXTERNAL = IpAddr.parse("11.0.0.7:40000")
DAY = 86_400

Answer = Callable[[bytes], list[bytes]]


def silent(_request: bytes) -> list[bytes]:
    return []


@dataclass
class Model:
    """A router. What it is asked by UDP goes to `answer`, port 5351, and `found`, port 1900."""

    answer: Answer = silent
    found: Answer = silent
    asked: list[bytes] = field(default_factory=list)


class _Port(asyncio.DatagramProtocol):
    def __init__(self, model: Model, name: str) -> None:
        self._model, self._name = model, name

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if self._name == "answer":
            self._model.asked.append(data)
        for reply in getattr(self._model, self._name)(data):
            self._transport.sendto(reply, addr)


async def router(network: VirtualNetwork, host: Host, model: Model, name: str = "router") -> Host:
    """Makes the model the host's router."""
    machine = network.host(name, ipv6=False)
    for port, what in ((5351, "answer"), (1900, "found")):
        await machine.open_udp(lambda what=what: _Port(model, what), "0.0.0.0", port)  # type: ignore[misc]
    host.router = machine.addresses[0]
    return machine


def pcp(
    lifetime: int = 7200, external: IpAddr = EXTERNAL, result: int = 0, **changes: bytes
) -> Answer:
    """A server of PCP; `changes` replaces fields of its replies."""

    def answer(request: bytes) -> list[bytes]:
        if request[0] != 2:
            return []
        head = bytes([2, request[1] | 0x80, 0, result]) + lifetime.to_bytes(4, "big") + bytes(16)
        if request[1] == 0:
            return [head[:3] + b"\0" + head[4:]]
        nonce = changes.get("nonce", request[24:36])
        ports = changes.get("port", request[40:42]) + external.port.to_bytes(2, "big")
        ip = bytes(10) + b"\xff\xff" + external.ip.packed
        return [head + nonce + request[36:40] + ports + ip]

    return answer


def natpmp(lifetime: int = 7200, external: IpAddr = EXTERNAL) -> Answer:
    """A server that has only NAT-PMP."""

    def answer(request: bytes) -> list[bytes]:
        if request[0] != 0:
            return [bytes([0, request[1] | 0x80, 0, 1]) + bytes(4)]
        head = bytes([0, request[1] | 0x80, 0, 0]) + bytes(4)
        if request[1] == 0:
            return [head + external.ip.packed]
        asked = request[4:6] + external.port.to_bytes(2, "big")
        return [head + asked + lifetime.to_bytes(4, "big")]

    return answer


@asynccontextmanager
async def mapping(host: Host) -> AsyncIterator[tuple[PortMapper, Metrics]]:
    metrics = Metrics()
    mapper = PortMapper(host, PORT, metrics.portmap, metrics.net_report, lambda: None)
    mapper.start()
    try:
        yield mapper, metrics
    finally:
        await mapper.aclose()


def ended(model: Model) -> bool:
    """Whether the last request that changes anything ends the mapping."""
    [*_, last] = [request for request in model.asked if request[1] == 1]
    return last[4:8] == bytes(4) if last[0] == 2 else last[6:] == bytes(6)


@simulated(time_limit=8 * DAY)
@pytest.mark.parametrize("answer", [pcp(), natpmp()], ids=["PCP", "NAT-PMP"])
async def test_it_is_kept_and_given_back(network: VirtualNetwork, answer: Answer) -> None:
    host, model = network.host("host"), Model(answer)
    await router(network, host, model)
    async with mapping(host) as (mapper, metrics):
        assert await mapper.external.wait_for(lambda external: external) == EXTERNAL
        version = mapper.external.version
        await asyncio.sleep(DAY)
        assert (mapper.external.value, mapper.external.version) == (EXTERNAL, version)
        # At half of its two hours each time.
        assert metrics.portmap.mapping_attempts == 24
        assert not ended(model)
    assert ended(model)


@simulated(time_limit=8 * DAY)
async def test_a_router_that_is_silent_costs_nothing(network: VirtualNetwork) -> None:
    host, model = network.host("host"), Model()
    await router(network, host, model)
    async with mapping(host) as (mapper, metrics):
        await asyncio.sleep(DAY)
        assert mapper.external.value is None
        assert metrics.portmap.mapping_attempts == 0
        assert len(model.asked) < 300
        # A change of the network is looked at right away.
        model.answer = pcp()
        mapper.network_changed()
        async with asyncio.timeout(1):
            assert await mapper.external.wait_for(lambda external: external) == EXTERNAL


@simulated(time_limit=8 * DAY)
async def test_without_a_router_nobody_is_asked(network: VirtualNetwork) -> None:
    host = network.host("host")
    async with mapping(host) as (mapper, metrics):
        await asyncio.sleep(DAY)
        assert len(network.log) == 0
        assert (mapper.external.value, metrics.portmap.probes_started) == (None, 0)
        assert await probe(host) == {}
        await router(network, host, Model(pcp()))
        mapper.network_changed()
        assert await mapper.external.wait_for(lambda external: external) == EXTERNAL


@simulated(time_limit=8 * DAY)
async def test_it_is_gone_when_the_router_renews_it_no_more(network: VirtualNetwork) -> None:
    host, model = network.host("host"), Model(pcp())
    await router(network, host, model)
    async with mapping(host) as (mapper, _):
        await mapper.external.wait_for(lambda external: external)
        model.answer = silent
        started = host.monotonic()
        await mapper.external.wait_for(lambda external: external is None)
        # The two hours are used to the end, or nearly.
        assert 7000 < host.monotonic() - started < 7300
        # Halving the rest each time is a dozen of attempts, three datagrams each; then all begins anew.
        assert len(model.asked) < 60
        model.answer = pcp()
        await mapper.external.wait_for(lambda external: external)


@simulated(time_limit=8 * DAY)
async def test_another_router_is_asked(network: VirtualNetwork) -> None:
    host, first, second = network.host("host"), Model(pcp()), IpAddr.parse("11.0.0.8:1")
    await router(network, host, first)
    async with mapping(host) as (mapper, _):
        await mapper.external.wait_for(lambda external: external)
        await router(network, host, Model(pcp(external=second)), "another")
        mapper.network_changed()
        assert await mapper.external.wait_for(lambda external: external == second)


@simulated(time_limit=8 * DAY)
async def test_a_router_that_starts_again_is_asked_again(network: VirtualNetwork) -> None:
    host, model = network.host("host"), Model(pcp())
    await router(network, host, model)
    async with mapping(host) as (mapper, metrics):
        await mapper.external.wait_for(lambda external: external)
        version, moved = mapper.external.version, IpAddr.parse("11.0.0.7:40001")
        model.answer = pcp(external=moved)
        mapper.network_changed()
        assert await mapper.external.wait_for(lambda external: external == moved)
        assert mapper.external.version == version + 1
        assert metrics.portmap.external_address_updated == 2


def everything(*answers: Answer) -> Answer:
    return lambda request: [reply for answer in answers for reply in answer(request)]


def noise(request: bytes) -> list[bytes]:
    good = pcp()(request) or [b"\0"]
    return [b"", b"\0" * 3, request, good[0][:30], good[0] + bytes(1200), bytes(60), b"\xff" * 60]


@simulated(time_limit=8 * DAY)
@pytest.mark.parametrize(
    "answer",
    [
        pcp(nonce=bytes(12)),
        pcp(port=b"\0\1"),
        pcp(result=2),
        pcp(lifetime=1),
        pcp(lifetime=0),
        pcp(external=IpAddr.parse("192.168.1.1:40000")),
        pcp(external=IpAddr.parse("127.0.0.1:40000")),
        pcp(external=IpAddr.parse("100.64.0.1:40000")),
        pcp(external=IpAddr.parse("224.0.0.1:40000")),
        pcp(external=IpAddr.parse("11.0.0.7:0")),
        natpmp(external=IpAddr.parse("0.0.0.0:40000")),
        noise,
    ],
)
async def test_what_makes_no_sense_is_no_mapping(network: VirtualNetwork, answer: Answer) -> None:
    host, model = network.host("host"), Model(answer)
    await router(network, host, model)
    async with mapping(host) as (mapper, _):
        await asyncio.sleep(DAY)
        assert mapper.external.value is None
        assert len(model.asked) < 500


@simulated(time_limit=8 * DAY)
async def test_noise_does_not_hide_an_answer(network: VirtualNetwork) -> None:
    host = network.host("host")
    await router(network, host, Model(everything(noise, pcp())))
    async with mapping(host) as (mapper, _):
        assert await mapper.external.wait_for(lambda external: external) == EXTERNAL


@simulated(time_limit=8 * DAY)
async def test_a_lifetime_without_an_end_is_renewed_all_the_same(network: VirtualNetwork) -> None:
    host, model = network.host("host"), Model(pcp(lifetime=0xFFFF_FFFF))
    await router(network, host, model)
    async with mapping(host) as (_, metrics):
        await asyncio.sleep(7 * DAY)
        assert metrics.portmap.mapping_attempts == 14


@simulated(time_limit=8 * DAY)
async def test_nobody_but_the_router_is_listened_to(network: VirtualNetwork) -> None:
    host, model = network.host("host"), Model()
    stranger = network.host("stranger", ipv6=False)
    await router(network, host, model)
    spy = await stranger.open_udp(lambda: _Port(Model(), "answer"), "0.0.0.0", 5351)

    def elsewhere(request: bytes) -> list[bytes]:
        for port in range(49_152, 49_400):
            for reply in pcp()(request):
                spy._transport.sendto(reply, (host.addresses[0], port))
        return []

    model.answer = elsewhere
    async with mapping(host) as (mapper, _):
        await asyncio.sleep(100)
        assert mapper.external.value is None


@simulated(time_limit=8 * DAY)
async def test_an_endpoint_tells_of_it(network: VirtualNetwork) -> None:
    host, model = network.host("host"), Model(pcp())
    await router(network, host, model)
    async with Endpoint.bind(network=host, port_mapping=True) as endpoint:
        addr = await endpoint.watch_addr.wait_for(lambda addr: EXTERNAL in addr.addrs)
        assert addr == endpoint.addr
        assert endpoint.metrics.snapshot()["net_report"]["portmap_attempts"] == 1
    assert ended(model)


@simulated(time_limit=8 * DAY)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"relays": ["http://relay.invalid"], "port_mapping": False},
        {"bind": "127.0.0.1:0", "port_mapping": True},
        {"bind": (), "port_mapping": True},
    ],
)
async def test_an_endpoint_that_does_not_want_it(
    network: VirtualNetwork, options: dict[str, Any]
) -> None:
    host, model = network.host("host"), Model(pcp())
    await router(network, host, model)
    async with Endpoint.bind(network=host, **options):
        await asyncio.sleep(100)
    assert model.asked == []


@simulated(time_limit=8 * DAY)
async def test_an_endpoint_that_is_forgotten(network: VirtualNetwork) -> None:
    host, model = network.host("host"), Model(pcp())
    await router(network, host, model)
    forgotten = [await Endpoint.bind(network=host, port_mapping=True)]
    await forgotten[0].watch_addr.wait_for(lambda addr: EXTERNAL in addr.addrs)
    forgotten.clear()
    with pytest.warns(ResourceWarning, match="unclosed"):
        gc.collect()
    await asyncio.sleep(1)
    assert ended(model)


# --- UPnP

FOUND = (
    "HTTP/1.1 200 OK\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n"
    "LOCATION: http://{}/description.xml\r\n\r\n"
)
KIND = "urn:schemas-upnp-org:service:WANIPConnection:1"
DESCRIPTION = f"<root><service><serviceType>{KIND}</serviceType><controlURL>/control</controlURL></service></root>"
FAULT = "<UPnPError><errorCode>{}</errorCode><errorDescription>no</errorDescription></UPnPError>"


@dataclass
class UpnpModel:
    """A router with UPnP. `faults`: the codes with which it refuses the next wishes for a mapping."""

    faults: list[int] = field(default_factory=list)
    address: str = str(EXTERNAL.ip)
    description: str = DESCRIPTION
    mapped: dict[int, tuple[str, int, int]] = field(default_factory=dict)
    """By external port: who, which port of it, for how many seconds."""
    requests: int = 0

    def answer(self, request: str) -> tuple[int, str]:
        self.requests += 1
        if request.startswith("GET /description.xml "):
            return 200, self.description
        action = request.partition(f'SOAPAction: "{KIND}#')[2].partition('"')[0]
        inner = ""
        match action:
            case "GetExternalIPAddress":
                inner = f"<NewExternalIPAddress>{self.address}</NewExternalIPAddress>"
            case "AddPortMapping" if self.faults:
                return 500, FAULT.format(self.faults.pop(0))
            case "AddPortMapping":
                place = _value(request, "InternalClient"), int(_value(request, "InternalPort"))
                duration = int(_value(request, "LeaseDuration"))
                self.mapped[int(_value(request, "ExternalPort"))] = (*place, duration)
            case "DeletePortMapping":
                del self.mapped[int(_value(request, "ExternalPort"))]
            case _:
                return 404, "<what/>"
        return 200, f"<e><u:{action}Response>{inner}</u:{action}Response></e>"


def _value(request: str, name: str) -> str:
    return request.partition(f"<New{name}>")[2].partition("<")[0]


class _Web(asyncio.Protocol):
    def __init__(self, model: UpnpModel) -> None:
        self._model, self._request = model, ""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._request += data.decode()
        head, _, body = self._request.partition("\r\n\r\n")
        if len(body) >= int(head.partition("Content-Length: ")[2].partition("\r")[0] or 0):
            status, text = self._model.answer(self._request)
            self._transport.write(f"HTTP/1.1 {status} x\r\n\r\n{text}".encode())
            self._transport.close()


async def upnp_router(network: VirtualNetwork, host: Host, model: UpnpModel) -> Host:
    where = ""
    machine = await router(network, host, Model(found=lambda _: [FOUND.format(where).encode()]))
    where = f"{machine.addresses[0]}:80"
    await machine.listen_tcp(lambda: _Web(model), "0.0.0.0", 80)
    return machine


@simulated(time_limit=8 * DAY)
@pytest.mark.parametrize(
    ("faults", "seconds", "keeps"),
    [([], 7200, True), ([718, 727], 7200, False), ([725], 0, True), ([725, 718], 0, False)],
)
async def test_upnp(network: VirtualNetwork, faults: list[int], seconds: int, keeps: bool) -> None:
    """Also with a router that has given the port away, or that does not know of an end."""
    host, model = network.host("host", ipv6=False), UpnpModel([*faults])
    await upnp_router(network, host, model)
    async with mapping(host) as (mapper, _):
        external = await mapper.external.wait_for(lambda external: external)
        assert external is not None and external.ip == EXTERNAL.ip
        assert (external.port == PORT) == keeps
        assert model.mapped == {external.port: (host.addresses[0], PORT, seconds)}
        await asyncio.sleep(DAY)
        assert mapper.external.value == external
        assert model.mapped == {external.port: (host.addresses[0], PORT, seconds)}
    assert model.mapped == {}


@simulated(time_limit=8 * DAY)
@pytest.mark.parametrize(
    "model",
    [
        UpnpModel(faults=[501] * 1000),
        UpnpModel(faults=[718] * 1000),
        UpnpModel(address="192.168.1.1"),
        UpnpModel(address=""),
        UpnpModel(address="example.com"),
        UpnpModel(description="<root/>"),
        UpnpModel(description="<root>"),
        UpnpModel(description="x" * (1 << 20)),
        UpnpModel(description='<!DOCTYPE a [<!ENTITY b "c">]>' + DESCRIPTION),
        UpnpModel(description=DESCRIPTION.replace("/control", "http://192.0.2.1/control")),
    ],
)
async def test_upnp_in_vain(network: VirtualNetwork, model: UpnpModel) -> None:
    host = network.host("host", ipv6=False)
    await upnp_router(network, host, model)
    async with mapping(host) as (mapper, _):
        await asyncio.sleep(DAY)
        assert mapper.external.value is None
        assert model.mapped == {}
        assert 0 < model.requests < 300


@simulated(time_limit=8 * DAY)
async def test_nobody_is_sent_elsewhere(network: VirtualNetwork) -> None:
    host, victim = network.host("host", ipv6=False), network.host("victim", ipv6=False)
    model = UpnpModel()
    await victim.listen_tcp(lambda: _Web(model), "0.0.0.0", 80)
    where = FOUND.format(f"{victim.addresses[0]}:80").encode()
    await router(network, host, Model(found=lambda _: [where]))
    async with mapping(host) as (mapper, _):
        await asyncio.sleep(DAY)
        assert (mapper.external.value, model.requests) == (None, 0)


@simulated(time_limit=8 * DAY)
async def test_a_router_that_keeps_one_waiting_does_not_hold_up_the_end(
    network: VirtualNetwork,
) -> None:
    host, model = network.host("host", ipv6=False), UpnpModel()
    machine = await upnp_router(network, host, model)
    async with mapping(host) as (mapper, _):
        await mapper.external.wait_for(lambda external: external)
        machine.up = False
        started = host.monotonic()
    assert host.monotonic() - started <= 0.5


@simulated()
@pytest.mark.parametrize("answer", [pcp(), natpmp()], ids=["PCP", "NAT-PMP"])
async def test_what_is_granted_while_it_ends_is_given_back(
    network: VirtualNetwork, answer: Answer
) -> None:
    host, asked = network.host("host"), asyncio.Event()

    def granting(request: bytes) -> list[bytes]:
        if request[1] == 1:
            asked.set()
        return answer(request)

    model = Model(granting)
    await router(network, host, model)
    async with mapping(host) as (mapper, _):
        await asked.wait()
        assert mapper.external.value is None
    assert ended(model)


@simulated()
async def test_probe(network: VirtualNetwork) -> None:
    host = network.host("host", ipv6=False)
    await upnp_router(network, host, UpnpModel())
    assert await probe(host) == {"PCP": "no answer", "NAT-PMP": "no answer", "UPnP": ""}
    await router(network, host, Model(natpmp()), "another")
    assert await probe(host) == {
        "PCP": "unsupported version",
        "NAT-PMP": "",
        "UPnP": "no answer",
    }
