"""Relays behind proxies that somebody else has written (pproxy)."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pproxy
import pytest

from aioiroh import Endpoint, Proxies
from relay_server import CERTIFICATE
from relayed import ALPN, NOWHERE, Server, at, behind, echoing, exchange, refused


@asynccontextmanager
async def proxy(kind: str, login: str = "") -> AsyncIterator[tuple[str, list[str]]]:
    """A proxy, as host and port, and what it was asked for."""
    asked: list[str] = []
    suffix = f"/#{login}" if login else ""
    server = await pproxy.Server(f"{kind}://127.0.0.1:0{suffix}").start_server(
        # Else it remembers for a month who has logged in from where.
        {"rserver": [], "verbose": asked.append, "authtime": -1}
    )
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()


@asynccontextmanager
async def encrypted(target: str) -> AsyncIterator[str]:
    """The same, reached by TLS."""
    host, port = target.split(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection(host, int(port))
        await asyncio.gather(pump(reader, ours), pump(theirs, writer), return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(("kind", "tls"), [("http", False), ("socks5", True), ("https", True)])
async def test_through_a_proxy(relay_server: Server, kind: str, tls: bool) -> None:
    inner = "http" if kind == "https" else kind
    async with relay_server(tls=tls) as relay, proxy(inner, "us er:p%w") as (where, asked):
        async with encrypted(where) as outer:
            url = f"{kind}://us%20er:p%25w@{outer if kind == 'https' else where}"
            options: dict[str, Any] = {"proxy": url, "bind": ()}
            async with (
                at(relay, **options) as client,
                at(relay, bind=()) as server,
                echoing(server),
                client.connect(behind(relay, server.id), alpn=ALPN, timeout=20) as connection,
            ):
                await exchange(connection, 2_000_000)
        assert len(asked) == 1


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
    async with relay_server() as relay, proxy(kind, "u:p") as (where, _):
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
