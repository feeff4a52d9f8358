"""Endpoints on chosen interfaces, and addresses that they are told of."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from aioiroh import AddressParsingError, Endpoint, IpAddr
from aioiroh.presets import Interface
from aioiroh.testing import Link, Nat, simulated

ALPN = b"binding"


async def echo(endpoint):
    async for incoming in endpoint.incoming():
        connection = await incoming.accept()
        await connection.closed()


@simulated()
async def test_only_what_an_interface_has(network):
    async with AsyncExitStack() as stack:
        server = network.host("server")
        still = await stack.enter_async_context(Endpoint.bind(network=server, alpns=[ALPN]))
        accepting = asyncio.ensure_future(echo(still))
        stack.callback(accepting.cancel)
        laptop = network.host("laptop")
        laptop.add_interface("wlan0", link=Link(latency=0.03))
        roamer = await stack.enter_async_context(
            Endpoint.bind(network=laptop, bind=[Interface("wlan0", 7000), Interface("usb0")])
        )
        wlan = laptop.interfaces["wlan0"]
        assert {(slot.host, slot.port) for slot in roamer.bound_sockets} == {
            (ip, 7000) for ip in wlan.addresses
        }
        assert {address.ip for address in roamer.addr.addrs} <= {
            IpAddr.from_pair((ip, 1)).ip for ip in wlan.addresses
        }
        async with roamer.connect(still.addr, alpn=ALPN) as connection:
            assert connection.paths.value[0].local in wlan.addresses
            # Another one appears, and the first is gone.
            usb = laptop.add_interface("usb0", link=Link(latency=0.01))
            laptop.changed()
            await asyncio.sleep(1)
            assert {slot.host for slot in roamer.bound_sockets} == {*wlan.addresses, *usb.addresses}
            wlan.up = False
            laptop.changed()
            await asyncio.sleep(3)
            assert {slot.host for slot in roamer.bound_sockets} == set(usb.addresses)
            assert {path.local for path in connection.paths.value} <= {*usb.addresses, None}
            async with connection.open_uni() as stream:
                await stream.write(b"x")
                await stream.finish()
                await stream.acked()


@simulated()
async def test_the_socket_that_leads_there(network):
    """Two networks without a way from one to the other, and a socket in each."""
    async with AsyncExitStack() as stack:
        one, two = network.segment("one"), network.segment("two")
        laptop = network.host("laptop", segment=one, addresses=["10.1.0.1"])
        laptop.add_interface("eth1", segment=two, addresses=["10.2.0.1"])
        endpoint = await stack.enter_async_context(
            Endpoint.bind(network=laptop, bind=[Interface("eth0"), Interface("eth1")])
        )
        for segment, ip in ((one, "10.1.0.2"), (two, "10.2.0.2")):
            host = network.host(ip, segment=segment, addresses=[ip])
            peer = await stack.enter_async_context(Endpoint.bind(network=host, alpns=[ALPN]))
            accepting = asyncio.ensure_future(echo(peer))
            stack.callback(accepting.cancel)
            async with endpoint.connect(peer.addr, alpn=ALPN, timeout=5) as connection:
                assert connection.paths.value[0].remote[0] == ip


@simulated()
async def test_addresses_that_it_is_told_of(network):
    """A router forwards a port, and nobody but the user knows."""
    async with AsyncExitStack() as stack:
        router = network.router("home", nat=Nat.kind("open"))
        host = network.host("server", segment=router.inside)
        public = router.outside.addresses[0]
        server = await stack.enter_async_context(
            Endpoint.bind(
                network=host,
                alpns=[ALPN],
                bind="0.0.0.0:7000",
                external_addrs=[f"{public}:7000"],
            )
        )
        outside = IpAddr.from_pair((public, 7000))
        assert server.addr.addrs[0] == outside or outside in server.addr.addrs
        with pytest.raises(AddressParsingError):
            server.add_external_addr("somewhere")
        server.add_external_addr(("192.0.2.1", 1))
        assert IpAddr.from_pair(("192.0.2.1", 1)) in server.addr.addrs
        assert server.remove_external_addr("192.0.2.1:1")
        assert not server.remove_external_addr("192.0.2.1:1")
        assert IpAddr.from_pair(("192.0.2.1", 1)) not in server.addr.addrs
