"""Port mapping against a real router's daemon, by each of the three protocols."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import router_daemon
from aioiroh import Endpoint, EndpointAddr, IpAddr
from aioiroh.net import SystemNetwork
from aioiroh.portmap import probe
from aioiroh.portmap.asking import Local
from aioiroh.portmap.protocols import NatPmp, Pcp, PortProtocol, Upnp
from nat import Nat
from router_daemon import RouterDaemon
from topology import Host, Internet

PORT = 4444
ALPN = b"test"


@pytest.fixture(scope="module", autouse=True)
def the_daemon_is_installed(require: Callable[[object, str], None]) -> None:
    problem = router_daemon.missing()
    require(problem is None, problem or "")


@pytest.fixture
def internet() -> Iterator[Internet]:
    with Internet() as internet:
        yield internet


@pytest.fixture
def host(internet: Internet) -> Host:
    """A host behind a router that lets nothing in by itself."""
    host = internet.host("host")
    host.plug(Nat.MODERATE)
    return host


@pytest.fixture
def outside(internet: Internet) -> Host:
    outside = internet.host("outside")
    outside.plug(Nat.NONE)
    return outside


def udp(host: Host) -> socket.socket:
    with host.namespace.inside():
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("0.0.0.0", PORT))
    made.setblocking(False)
    return made


async def ready(network: SystemNetwork, *names: str) -> None:
    """Until the daemon, which has just been started, answers by these protocols."""
    async with asyncio.timeout(20):
        while [name for name, problem in (await probe(network)).items() if not problem] != [*names]:
            pass


PROTOCOLS: dict[str, Callable[[Local], PortProtocol]] = {
    "PCP": lambda local: Pcp(local, bytes(range(12))),
    "NAT-PMP": NatPmp,
    "UPnP": Upnp,
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_what_comes_to_the_mapped_port_arrives(
    host: Host, outside: Host, tmp_path: Path, name: str
) -> None:
    uplink = host.uplinks[0]

    async def work() -> None:
        network = SystemNetwork()
        await ready(network, *(["UPnP"] if name == "UPnP" else ["PCP", "NAT-PMP"]))
        router = network.gateway()
        assert router is not None
        protocol = PROTOCOLS[name](Local(network, uplink.address, router))
        with udp(host) as inside, udp(outside) as sender:

            def arrives(place: tuple[str, int]) -> bool:
                # Within the machine a datagram is there as soon as it was sent.
                sender.sendto(b"x", place)
                try:
                    return inside.recvfrom(10) == (b"x", (outside.uplinks[0].public, PORT))
                except BlockingIOError:
                    return False

            assert not arrives((uplink.public, PORT))
            mapping = await protocol.obtain(PORT, None)
            assert str(mapping.external.ip) == uplink.public
            assert mapping.lifetime >= 3600
            assert arrives(mapping.external.pair)
            # Renewed, it is the same one.
            assert await protocol.obtain(PORT, mapping.external) == mapping
            await protocol.release(mapping)
            # The kernel keeps the connection that it has seen; a new one is not let in.
            uplink.forget()
            assert not arrives(mapping.external.pair)

    with RouterDaemon(uplink, tmp_path, pcp=name != "UPnP", upnp=name == "UPnP"):
        host.namespace.run(work)


def test_an_endpoint_is_dialled_at_its_mapped_port(
    internet: Internet, host: Host, outside: Host, tmp_path: Path
) -> None:
    uplink = host.uplinks[0]

    async def dial(target: EndpointAddr) -> None:
        async with (
            Endpoint.bind() as client,
            client.connect(target, alpn=ALPN, timeout=20) as connection,
            connection.open_uni() as stream,
        ):
            await stream.write(b"hello")

    async def work() -> None:
        await ready(SystemNetwork(), "PCP", "NAT-PMP", "UPnP")
        async with Endpoint.bind(alpns=[ALPN], port_mapping=True) as server:
            async with asyncio.timeout(20):
                addr = await server.watch_addr.wait_for(
                    lambda addr: any(str(a).startswith(f"ip:{uplink.public}:") for a in addr.addrs)
                )
            mapped = [a for a in addr.addrs if isinstance(a, IpAddr) and str(a.ip) == uplink.public]
            target = EndpointAddr(server.id, mapped)
            loop = asyncio.get_running_loop()
            dialling = loop.run_in_executor(
                None, lambda: outside.namespace.run(lambda: dial(target))
            )
            incoming = await server.accept()
            async with await incoming as connection:
                stream = await connection.accept_uni()
                assert await stream.read_all(limit=10) == b"hello"
            await dialling
        with udp(outside) as sender, udp(host) as inside:
            uplink.forget()
            sender.sendto(b"x", mapped[0].pair)
            with pytest.raises(BlockingIOError):
                inside.recv(10)

    with RouterDaemon(uplink, tmp_path):
        host.namespace.run(work)
