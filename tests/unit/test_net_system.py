"""The real network: interfaces, clock, chance."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from aioiroh.net import SystemNetwork, watching


def test_interface_addresses():
    addresses = SystemNetwork().local_addresses()
    loopback = [address for address in addresses if address.ip == "127.0.0.1"]
    assert [(address.prefix, address.is_loopback) for address in loopback] == [(8, True)]
    for address in addresses:
        ip = ipaddress.ip_address(address.ip)
        assert 0 < address.prefix <= ip.max_prefixlen
        assert address.is_loopback == ip.is_loopback
        assert bool(address.scope) <= address.is_link_local


def test_clock_and_chance():
    network = SystemNetwork()
    assert network.monotonic() <= network.monotonic()
    assert network.wall_clock() > 1.7e9
    assert network.engine_clock is None
    assert len(network.secret(32)) == 32
    assert 0 <= network.random.random() < 1


WATCH = """
import asyncio, subprocess
from aioiroh.net import SystemNetwork

def ip(*words):
    subprocess.run(["ip", *words], check=True)

async def main():
    network = SystemNetwork()
    assert list(network.outward_addresses()) == []
    changed = asyncio.Event()
    end = network.watch(changed.set)
    for words in (
        ("link", "add", "one", "type", "veth", "peer", "name", "two"),
        ("link", "set", "two", "up"),
        ("link", "set", "one", "up"),
        ("address", "add", "198.51.100.7/24", "dev", "one"),
        ("route", "add", "default", "dev", "one"),
        ("route", "delete", "default"),
        ("address", "delete", "198.51.100.7/24", "dev", "one"),
    ):
        changed.clear()
        ip(*words)
        await asyncio.wait_for(changed.wait(), 10)
        if words[:2] == ("route", "add"):
            assert list(network.outward_addresses()) == ["198.51.100.7"]
    end()
    await asyncio.sleep(0)
    changed.clear()
    ip("link", "delete", "one")
    await asyncio.sleep(0.05)
    assert not changed.is_set()

asyncio.run(main())
"""


def test_the_system_tells_of_changes(require: Callable[[object, str], None]):
    if sys.platform != "linux":
        pytest.skip("netlink is Linux's")
    require(shutil.which("ip"), "the command ip (iproute2)")
    namespace = ["unshare", *(["--user", "--map-root-user"] if os.getuid() else []), "--net"]
    subprocess.run([*namespace, sys.executable, "-c", WATCH], check=True, timeout=60)


async def test_elsewhere_it_is_time_to_look(monkeypatch: pytest.MonkeyPatch):
    def no_netlink(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(watching, "_watch_netlink", no_netlink)
    monkeypatch.setattr(watching, "POLL_INTERVAL", 0.01)
    looked = asyncio.Event()
    end = SystemNetwork().watch(looked.set)
    await asyncio.wait_for(looked.wait(), 10)
    end()


@pytest.mark.loops
async def test_listening_and_names():
    network = SystemNetwork()
    assert "127.0.0.1" in await network.resolve("localhost")
    assert list(await network.resolve("192.0.2.7")) == ["192.0.2.7"]
    accepted = asyncio.get_running_loop().create_future()

    class Taking(asyncio.Protocol):
        def connection_made(self, transport):
            accepted.set_result(transport)

    listener = await network.listen_tcp(Taking, "127.0.0.1", 0)
    ip, port = listener.address
    assert ip == "127.0.0.1"
    await network.connect_tcp(asyncio.Protocol, "localhost", port)
    (await accepted).abort()
    listener.close()
    await listener.wait_closed()
    with pytest.raises(ConnectionRefusedError):
        await network.connect_tcp(asyncio.Protocol, ip, port)
    again = await network.listen_tcp(Taking, ip, port)
    assert again.address == listener.address
    again.close()
    await again.wait_closed()


@pytest.mark.loops
async def test_listening_everywhere():
    network = SystemNetwork()
    accepted = asyncio.Queue()

    class Taking(asyncio.Protocol):
        def connection_made(self, transport):
            accepted.put_nowait(transport)

    listener = await network.listen_tcp(Taking, "::", 0)
    ip, port = listener.address
    for host in ["127.0.0.1"] + (["::1"] if ip == "::" else []):
        await network.connect_tcp(asyncio.Protocol, host, port)
        (await accepted.get()).abort()
    listener.close()
    await listener.wait_closed()


@pytest.mark.loops
@pytest.mark.filterwarnings("error")
async def test_a_dial_that_is_cancelled_leaves_no_socket():
    network = SystemNetwork()
    listener = await network.listen_tcp(asyncio.Protocol, "127.0.0.1", 0)
    for turns in range(12):
        dial = asyncio.ensure_future(network.connect_tcp(asyncio.Protocol, *listener.address))
        for _ in range(turns):
            await asyncio.sleep(0)
        dial.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await dial
        # A socket that nobody has closed fails the test.
        gc.collect()
    listener.close()


async def test_a_dial_that_is_cancelled_disturbs_no_other_socket():
    """The number of a closed socket is given to the next one at once."""
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:

        def listening(backlog: int) -> tuple[str, int]:
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            listener.listen(backlog)
            return listener.getsockname()

        def dialling() -> socket.socket:
            dialling = stack.enter_context(socket.socket())
            dialling.setblocking(False)
            return dialling

        async def connect() -> None:
            await loop.sock_connect(dialling(), listening(5))

        full = listening(0)
        # It has no room for a second one, and Linux does not answer.
        await loop.sock_connect(dialling(), full)
        dial = asyncio.create_task(SystemNetwork().connect_tcp(asyncio.Protocol, *full))
        for _ in range(5):
            await asyncio.sleep(0)
        dial.cancel()
        async with asyncio.timeout(10):
            await asyncio.gather(*(asyncio.create_task(connect()) for _ in range(3)))
        with pytest.raises(asyncio.CancelledError):
            await dial
