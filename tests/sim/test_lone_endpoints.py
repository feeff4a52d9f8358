"""Endpoints that nobody holds any more: they end by themselves, with relays as without."""

from __future__ import annotations

import asyncio
import gc
import warnings
import weakref

import pytest

from aioiroh import Endpoint
from aioiroh.testing import simulated
from worlds import ALPN, CERTIFICATE, RELAY_URL, behind, relay


def bind(host, **options):
    return Endpoint.bind(
        network=host, alpns=[ALPN], relays=[RELAY_URL], relay_ca=CERTIFICATE, **options
    )


async def accept_one(endpoint):
    return await (await endpoint.accept()).accept()


async def end_of(*references: weakref.ref, within: float) -> None:
    async with asyncio.timeout(within):
        while any(reference() is not None for reference in references):
            gc.collect()
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("wait", [0.0, 60.0])
@simulated()
async def test_an_endpoint_with_relays_that_nobody_holds_ends(network, wait):
    async with relay(network) as server:
        endpoint = await bind(network.host("lone"))
        await endpoint.online()
        await asyncio.sleep(wait)
        assert server.clients == 1
        gone = weakref.ref(endpoint), weakref.ref(endpoint._driver)
        del endpoint
        with pytest.warns(ResourceWarning, match="unclosed <aioiroh engine"):
            await end_of(*gone, within=10)
        await asyncio.sleep(1)
        assert server.clients == 0
        before = network.log.count
        await asyncio.sleep(120)
        assert network.log.count == before


@simulated()
async def test_a_connection_keeps_the_relays_that_it_needs(network):
    hosts = [behind(network, "strict", name) for name in ("near", "far")]
    async with relay(network) as server, bind(hosts[1], guess_ports=False) as far:
        await far.online()
        accepting = asyncio.ensure_future(accept_one(far))
        dialler = await bind(hosts[0], guess_ports=False)
        await dialler.online()
        gone = weakref.ref(dialler), weakref.ref(dialler._driver)
        near = await dialler.connect(far.addr, alpn=ALPN)
        accepted = await accepting
        del dialler
        gc.collect()
        await asyncio.sleep(60)
        assert server.clients == 2
        async with near.open_uni() as stream:
            await stream.write(b"still there")
        assert await (await accepted.accept_uni()).read_all(limit=100) == b"still there"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del near, stream
            await end_of(*gone, within=10)
        await accepted.closed()
        assert server.clients == 1


@simulated()
async def test_an_endpoint_that_is_closed_leaves_nothing(network):
    async with relay(network):
        endpoint = await bind(network.host("closed"))
        await endpoint.online()
        gone = weakref.ref(endpoint), weakref.ref(endpoint._driver)
        await endpoint.close()
        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            del endpoint
            await end_of(*gone, within=10)
