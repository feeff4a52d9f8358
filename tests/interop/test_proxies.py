"""Relays behind proxies that somebody else has written (pproxy)."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from aioiroh import Endpoint, Proxies
from relayed import ALPN, NOWHERE, Server, at, behind, echoing, exchange, refused

USED = (b"->", b"Unauthorized", b"SOCKS")
"""What the proxy says of a connection through it, and of those that it refuses."""


@asynccontextmanager
async def proxy(kind: str, login: str = "", *, tls: bool = False) -> AsyncIterator[str]:
    """A proxy that somebody uses, as host and port."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("proxy_server.py")),
        *(kind, login, "tls" if tls else ""),
        stdout=asyncio.subprocess.PIPE,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            port = int(await process.stdout.readline())
        yield f"127.0.0.1:{port}"
        # It may tell of a connection only after that is over.
        async with asyncio.timeout(20):
            line = await process.stdout.readline()
            while not any(word in line for word in USED):
                assert line, "the proxy ended by itself"
                line = await process.stdout.readline()
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize(("kind", "tls"), [("http", False), ("socks5", True), ("https", True)])
async def test_through_a_proxy(relay_server: Server, kind: str, tls: bool) -> None:
    inner, outer_tls = ("http", True) if kind == "https" else (kind, False)
    async with (
        relay_server(tls=tls) as relay,
        proxy(inner, "us er:p%w", tls=outer_tls) as where,
        at(relay, bind=(), proxy=f"{kind}://us%20er:p%25w@{where}") as client,
        at(relay, bind=()) as server,
        echoing(server),
        client.connect(behind(relay, server.id), alpn=ALPN, timeout=20) as connection,
    ):
        await exchange(connection, 2_000_000)


@pytest.mark.parametrize(
    ("kind", "login", "problem"),
    [
        ("http", "", "407 Proxy Authentication Required; put user:password@ into its URL"),
        ("socks5", "", "refuses"),
        ("socks5", "u:wrong@", "refuses"),
    ],
)
async def test_a_proxy_that_refuses(
    relay_server: Server, kind: str, login: str, problem: str
) -> None:
    async with relay_server() as relay, proxy(kind, "u:p") as where:
        bound = Endpoint.bind(bind=NOWHERE, relays=[relay.url], proxy=f"{kind}://{login}{where}")
        assert problem in await refused(bound)


async def test_no_proxy_and_one_that_is_not_there(relay_server: Server) -> None:
    async with relay_server() as relay:
        environment = {"ALL_PROXY": "socks5://127.0.0.1:9", "NO_PROXY": "127.0.0.0/8"}
        proxies = Proxies.from_environment(environment)
        async with at(relay, proxy=proxies) as endpoint:
            assert endpoint.home_relay is not None
        del environment["NO_PROXY"]
        proxies = Proxies.from_environment(environment)
        bound = Endpoint.bind(bind=NOWHERE, relays=[relay.url], proxy=proxies)
        assert "the socks5 proxy 127.0.0.1:9" in await refused(bound)
