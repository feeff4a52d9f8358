"""What our relay answers to HTTP is what upstream's answers."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
from collections.abc import Callable

import pytest

from relay_server import RelayServer

Server = Callable[..., RelayServer]

UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Protocol": "iroh-relay-v1, iroh-relay-v2",
}
REQUESTS: list[tuple[str, str, dict[str, str]]] = [
    *(
        (method, path, {})
        for method in ("GET", "POST", "HEAD", "OPTIONS")
        for path in ("/ping", "/generate_204", "/healthz", "/robots.txt", "/derp", "/relay")
    ),
    ("GET", "/ping?x=1", {}),
    ("GET", "/ping/", {}),
    ("GET", "/", {}),
    ("GET", "/index.html", {}),
    *(
        ("GET", "/generate_204", {"X-Iroh-Challenge": challenge})
        for challenge in (
            "ts_r.example",
            "a" * 63,
            "a" * 64,
            "ä".encode().decode("latin-1"),
            "a b",
            "",
        )
    ),
    *(("GET", "/relay", {**UPGRADE, name: "x"}) for name in UPGRADE if name != "Connection"),
    *(
        ("GET", "/relay", {key: value for key, value in UPGRADE.items() if key != name})
        for name in UPGRADE
        if name != "Connection"
    ),
    ("GET", "/relay", {**UPGRADE, "Upgrade": "WebSocket"}),
    ("GET", "/relay", UPGRADE),
    ("GET", "/relay", {**UPGRADE, "Sec-WebSocket-Protocol": "iroh-relay-v1"}),
    ("GET", "/relay?token=x", {**UPGRADE, "Sec-WebSocket-Protocol": "v9,iroh-relay-v2"}),
]
COMPARED = {
    "access-control-allow-origin",
    "content-security-policy",
    "sec-websocket-accept",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "strict-transport-security",
    "upgrade",
    "x-iroh-response",
}
Answer = tuple[int, dict[str, str], bytes]


def answers(url: str) -> list[Answer]:
    """Each on a connection of its own. Of a page and of a refusal only the status and headers are compared."""
    scheme, _, host = url.rstrip("/").partition("://")
    given = []
    for method, path, headers in REQUESTS:
        if scheme == "https":
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, timeout=20, context=context
            )
        else:
            connection = http.client.HTTPConnection(host, timeout=20)
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value.encode("latin-1"))
        connection.endheaders()
        response = connection.getresponse()
        body = b"" if response.status == 101 else response.read()
        kept = {n.lower(): v for n, v in response.getheaders() if n.lower() in COMPARED}
        if path == "/healthz" and response.status == 200:
            body = json.dumps(sorted(json.loads(body))).encode()
        elif response.status == 400 or b"<html" in body.lower():
            body = b""
        given.append((response.status, kept, body))
        connection.close()
    return given


async def both(theirs: str, ours: str) -> None:
    expected = await asyncio.to_thread(answers, theirs)
    got = await asyncio.to_thread(answers, ours)
    for request, want, have in zip(REQUESTS, expected, got, strict=True):
        assert have == want, request


@pytest.mark.parametrize("tls", [False, True])
async def test_the_same_answers(upstream_relay: Server, our_relay: Server, tls: bool) -> None:
    async with upstream_relay(tls=tls) as theirs, our_relay(tls=tls) as ours:
        await both(theirs.url, ours.url)
        if tls:
            await both(theirs.plain_url, ours.plain_url)
