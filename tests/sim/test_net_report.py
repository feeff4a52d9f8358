"""Endpoints that find out where they are: which relay is nearest, what the NAT does, what peers are told.

As a program it prints fingerprints of the packets of the seeds it is given.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from aioiroh import Endpoint, NetReportConfig, RelayUrl
from aioiroh.relayserver import DiscoveryServer, RelayServer
from aioiroh.relayserver.metrics import DiscoveryCounters
from aioiroh.testing import Link, Nat, simulated
from aioiroh.testing import run as run_simulation
from worlds import behind, router_of

PEM = Path(__file__).parent / "relays.pem"
QUIC_PORT = 7842


class Station:
    """A relay that can be closed and opened again."""

    def __init__(self, network, name, *, port=80, **host):
        self.host = network.host(f"{name}.relay.example", **host)
        self.url = RelayUrl(f"http://{self.host.name}:{port}/")
        self._port = port
        self.counters = DiscoveryCounters()
        self._stack = AsyncExitStack()

    async def open(self, *, discovery=True):
        await self._stack.enter_async_context(
            RelayServer.bind(network=self.host, http=("0.0.0.0", self._port))
        )
        if discovery:
            pem = PEM.read_bytes()
            server = DiscoveryServer(
                self.host, ("::", QUIC_PORT), chain=pem, key=pem, metrics=self.counters
            )
            self._stack.push_async_callback(server.aclose)

    async def close(self):
        await self._stack.aclose()


@asynccontextmanager
async def stations(network, discovery=True, **latencies):
    """Relays whose links have these latencies."""
    made = {name: Station(network, name, link=Link(latency=s)) for name, s in latencies.items()}
    async with AsyncExitStack() as stack:
        for station in made.values():
            await station.open(discovery=discovery)
            stack.push_async_callback(station.close)
        yield made


def bind(host, relays, **options):
    urls = [relay.url for relay in relays.values()]
    return Endpoint.bind(network=host, relays=urls, relay_ca=PEM, **options)


async def reported(endpoint):
    return await endpoint.watch_net_report.wait_for(lambda report: report is not None)


@simulated()
async def test_the_nearest_relay_is_home_within_two_round_trips(network):
    async with stations(network, far=0.15, near=0.02, middle=0.06) as relays:
        host = network.host("here", link=Link(latency=0.01))
        start = network.loop.time()
        async with bind(host, relays) as endpoint:
            report = await reported(endpoint)
            # Two answers over IPv4 and one over IPv6 are enough; nobody waits for the farthest.
            assert network.loop.time() - start < 2.5 * 2 * (0.06 + 0.01)
            assert report.preferred_relay == relays["near"].url
            assert report.udp_v4 and report.udp_v6
            assert (report.mapping_varies_by_dest_ipv4, report.captive_portal) == (False, None)
            assert report.relay_latency.get(relays["near"].url) == pytest.approx(0.06, rel=0.1)
            v4, v6 = endpoint.bound_sockets
            assert report.global_v4.pair == (host.addresses[0], v4.port)
            assert report.global_v6.pair == (host.addresses[1], v6.port)
            await endpoint.online()
            assert endpoint.home_relay.url == relays["near"].url
            assert endpoint.addr.relay_urls == (relays["near"].url,)
            # One connection of each IP version stays, to the home relay.
            await asyncio.sleep(60)
            kept = {
                name: relay.counters.qad_connections - relay.counters.qad_connections_closed
                for name, relay in relays.items()
            }
            assert kept == {"far": 0, "middle": 0, "near": 2}
        await asyncio.sleep(1)
        for relay in relays.values():
            assert relay.counters.qad_connections_errored == 0


@pytest.mark.parametrize(
    ("kind", "varies"), [("open", False), ("moderate", False), ("strict", True)]
)
@simulated()
async def test_a_nat_is_seen_through(network, kind, varies):
    async with stations(network, a=0.02, b=0.03) as relays:
        host = behind(network, kind, "here")
        async with bind(host, relays) as endpoint:
            report = await reported(endpoint)
            outside = router_of(host).outside.addresses[0]
            assert str(report.global_v4.ip) == outside
            assert report.mapping_varies_by_dest_ipv4 is varies
            assert {str(one.address.ip) for one in report.observed} == {outside}
            assert len({one.address for one in report.observed}) == (2 if varies else 1)
            assert report.global_v4 in endpoint.addr.ip_addrs


@simulated()
async def test_a_fixed_port_is_offered_where_the_nat_maps_by_destination(network):
    async with stations(network, a=0.02, b=0.03) as relays:
        host = behind(network, "strict", "here")
        async with bind(host, relays, bind="0.0.0.0:4433") as endpoint:
            report = await reported(endpoint)
            forwarded = (str(report.global_v4.ip), 4433)
            assert forwarded in [addr.pair for addr in endpoint.addr.ip_addrs]


@simulated()
async def test_without_udp_home_is_chosen_by_https_before_udp_is_given_up(network):
    async with stations(network, far=0.1, near=0.02) as relays:
        host = behind(network, "moderate", "here")
        router_of(host).carries_udp = False
        start = network.loop.time()
        async with bind(host, relays) as endpoint:
            await endpoint.online()
            assert network.loop.time() - start < 1.5
            assert endpoint.home_relay.url == relays["near"].url
            report = await reported(endpoint)
            assert not report.has_udp and report.global_v4 is None
            assert report.captive_portal is False
            assert set(report.relay_latency.https) == {relay.url for relay in relays.values()}


class Portal(asyncio.Protocol):
    """Sends everybody to a page of its own."""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(b"HTTP/1.1 302 Found\r\nlocation: http://hotel.example/\r\n\r\n")


@simulated()
async def test_a_captive_portal_is_noticed_and_its_end(network):
    station = Station(network, "a", port=8080)
    await station.open()
    portal = await station.host.listen_tcp(Portal, "0.0.0.0", 80)
    host = behind(network, "moderate", "here")
    router_of(host).carries_udp = False
    async with bind(host, {"a": station}) as endpoint:
        assert (await reported(endpoint)).captive_portal is True
        await asyncio.sleep(600)
        # All reports are full ones until somebody has got past the portal.
        counts = endpoint.metrics.net_report
        assert counts.reports == counts.reports_full > 20
        portal.close()
        router_of(host).carries_udp = True
        await asyncio.sleep(30)
        assert endpoint.net_report.has_udp and endpoint.net_report.captive_portal is None
    await station.close()


@pytest.mark.parametrize("https", [True, False])
@pytest.mark.parametrize("captive", [True, False])
@simulated()
async def test_measurements_are_left_out_that_nobody_wants(network, https, captive):
    config = NetReportConfig(https_probes=https, captive_portal_check=captive)
    async with stations(network, far=0.1, near=0.02) as relays:
        host = behind(network, "moderate", "here")
        router_of(host).carries_udp = False
        async with bind(host, relays, net_report=config) as endpoint:
            report = await reported(endpoint)
            assert len(report.relay_latency.https) == (2 if https else 0)
            assert report.captive_portal is (False if captive else None)
            # One is home in any case.
            await endpoint.online()


@simulated()
async def test_what_a_relay_at_home_sees_hides_nothing(network):
    """As the nearest one it is the home relay; but nobody outside can use the address at which it sees us."""
    async with stations(network, away=0.05) as relays:
        host = behind(network, "moderate", "here")
        inside = Station(network, "inside", segment=router_of(host).inside)
        await inside.open()
        async with bind(host, {**relays, "inside": inside}) as endpoint:
            report = await reported(endpoint)
            assert report.preferred_relay == inside.url
            await asyncio.sleep(290)
            assert endpoint.net_report.global_v4.pair[0] == host.addresses[0]
            outside = router_of(host).outside.addresses[0]
            assert outside in {str(address.ip) for address in endpoint.addr.ip_addrs}
        await inside.close()


@simulated()
async def test_udp_that_works_again_is_noticed_with_the_home_relay(network):
    async with stations(network, a=0.02, b=0.03) as relays:
        host = behind(network, "moderate", "here")
        router_of(host).up = False
        async with bind(host, relays) as endpoint:
            assert not (await reported(endpoint)).has_udp
            # Long enough that nobody is asked any more but in full reports.
            await asyncio.sleep(130)
            router_of(host).up = True
            start = network.loop.time()
            await endpoint.watch_net_report.wait_for(lambda report: report.has_udp)
            assert network.loop.time() - start < 45


@simulated()
async def test_without_relays_nothing_is_asked_and_nothing_waited_for(network):
    host = network.host("here")
    async with Endpoint.bind(network=host) as endpoint:
        await endpoint.online()
        await asyncio.sleep(600)
        assert endpoint.net_report is None
        assert network.log.count == 0


@simulated()
async def test_relays_that_are_all_down_are_waited_for(network):
    async with stations(network, a=0.02, b=0.03) as relays:
        for relay in relays.values():
            await relay.close()
        async with bind(network.host("here"), relays) as endpoint:
            report = await reported(endpoint)
            assert report.preferred_relay is None
            assert endpoint.home_relay is not None and not endpoint.home_relay.is_connected
            await relays["b"].open()
            # The other one is home for now; it is left when the next full report shows that it is gone.
            async with asyncio.timeout(60):
                await endpoint.online()
            assert endpoint.home_relay.url == relays["b"].url


@simulated()
async def test_a_home_relay_that_dies_is_replaced(network):
    async with (
        stations(network, far=0.1, near=0.02) as relays,
        bind(network.host("here"), relays) as endpoint,
    ):
        await endpoint.online()
        assert endpoint.home_relay.url == relays["near"].url
        start = network.loop.time()
        relays["near"].host.up = False
        await endpoint.watch_home_relay.wait_for(
            lambda status: status.url == relays["far"].url and status.is_connected
        )
        # The silence is noticed by a ping, then the relay has 10 s to come back.
        assert network.loop.time() - start < 40
        # It is not missed when it comes back, but a full report sees that it is much nearer.
        relays["near"].host.up = True
        await asyncio.sleep(400)
        assert endpoint.home_relay.url == relays["near"].url


@simulated()
async def test_a_home_relay_that_restarts_stays_home(network):
    async with (
        stations(network, far=0.1, near=0.02) as relays,
        bind(network.host("here"), relays) as endpoint,
    ):
        await endpoint.online()
        await relays["near"].close()
        await asyncio.sleep(4)
        await relays["near"].open()
        await asyncio.sleep(600)
        await endpoint.online()
        assert endpoint.home_relay.url == relays["near"].url
        assert endpoint.metrics.socket.relay_home_change == 1


@simulated()
async def test_home_does_not_change_with_the_weather(network):
    async with stations(network, a=0.030, b=0.033, c=0.036) as relays:
        host = network.host("here", link=Link(latency=0.01, jitter=0.02, loss=0.02))
        async with bind(host, relays) as endpoint:
            await asyncio.sleep(3000)
            assert endpoint.metrics.socket.relay_home_change <= 2
            # A report every 20 to 26 s, a full one every 5 minutes.
            assert 110 < endpoint.metrics.net_report.reports < 150
            assert 8 < endpoint.metrics.net_report.reports_full < 14


@simulated()
async def test_another_address_is_told_when_the_nat_has_forgotten(network):
    """As after a restart of the router: the kept connection goes on from another port."""
    async with stations(network, a=0.02, b=0.03) as relays:
        host = behind(network, "moderate", "here")
        router = router_of(host)
        router.nat = Nat(ports="random")
        async with bind(host, relays) as endpoint:
            before = (await reported(endpoint)).global_v4
            assert before in endpoint.addr.ip_addrs
            router.flush()
            await endpoint.watch_net_report.wait_for(lambda report: report.global_v4 != before)
            after = endpoint.net_report.global_v4
            assert after.ip == before.ip
            assert after in endpoint.addr.ip_addrs and before not in endpoint.addr.ip_addrs


@simulated()
async def test_a_relay_cannot_keep_us_busy_with_new_addresses(network):
    async with stations(network, a=0.02) as relays, bind(network.host("here"), relays) as endpoint:
        await reported(endpoint)
        question = next(iter(endpoint._where._reporter._kept.values()))
        before, published = endpoint.metrics.net_report.reports, endpoint.watch_addr.version
        for number in range(600):
            question._observed(("192.0.2.1", 1000 + number))
            await asyncio.sleep(0.1)
        # A report every 5 s at most, and the usual ones.
        assert 10 < endpoint.metrics.net_report.reports - before < 20
        assert endpoint.watch_addr.version - published < 20
        # What nobody can have is no address of ours.
        for strange in [("0.0.0.0", 1), ("224.0.0.1", 1), ("192.0.2.1", 0)]:
            question._observed(strange)
            await asyncio.sleep(6)
            assert endpoint.net_report.global_v4 is None


@simulated()
async def test_relays_that_come_and_go_are_asked_and_forgotten(network):
    async with (
        stations(network, a=0.05, b=0.01) as relays,
        Endpoint.bind(
            network=network.host("here"), relays=[relays["a"].url], relay_ca=PEM
        ) as endpoint,
    ):
        await endpoint.online()
        endpoint.insert_relay(relays["b"].url)
        await endpoint.watch_home_relay.wait_for(
            lambda status: status.url == relays["b"].url and status.is_connected
        )
        endpoint.remove_relay(relays["b"].url)
        endpoint.remove_relay(relays["a"].url)
        await endpoint.watch_net_report.wait_for(lambda report: report is None)
        assert not endpoint.addr.relay_urls
        packets = network.log.count
        await asyncio.sleep(600)
        assert endpoint.home_relay is None
        # Good-byes, and the idle relays left after a minute.
        assert network.log.count - packets < 100


async def wander(network):
    """An endpoint reports from behind a NAT that forgets, in bad weather."""
    async with stations(network, a=0.02, b=0.03, c=0.05) as relays:
        host = behind(network, "moderate", "here", Link(latency=0.01, jitter=0.01, loss=0.1))
        async with bind(host, relays) as endpoint:
            for _ in range(5):
                await asyncio.sleep(network.chance("pause").uniform(5, 60))
                router_of(host).flush()
            assert endpoint.net_report is not None
    return network.log.fingerprint()


def test_the_same_seed_gives_the_same_packets(twice):
    one, other = twice(__file__, [1, 2])
    assert one == other and len(set(one)) == 2


if __name__ == "__main__":
    for seed in map(int, sys.argv[1:]):
        print(run_simulation(wander, seed=seed))
