"""What a relay server answers over HTTP and TLS, in virtual time."""

from __future__ import annotations

import asyncio

import pytest

from aioiroh import RelayState, SecretKey
from aioiroh.relayserver import Certificate
from aioiroh.relayserver.http import Listener
from aioiroh.relayserver.http import answer as http_answer
from aioiroh.testing import simulated
from relay_place import PEM, Raw, relay


async def ask(raw, line, *headers):
    raw.write("\r\n".join([f"{line} HTTP/1.1", *headers, "", ""]).encode())
    return await raw.head()


@simulated()
async def test_what_http_requests_get(network):
    async with relay(network) as place:
        raw = await place.raw()
        for line, status, body in [
            ("GET /ping", 200, b""),
            ("GET /ping?x=1", 200, b""),
            ("GET /healthz", 200, b'"status": "ok"'),
            ("GET /", 200, b"iroh"),
            ("GET /index.html", 200, b"iroh"),
            ("GET /robots.txt", 200, b"User-agent: *\nDisallow: /\n"),
            ("GET /derp", 404, b"Not Found"),
            ("HEAD /ping", 404, b"Not Found"),
            ("OPTIONS /relay", 404, b"Not Found"),
            ("GET /generate_204", 204, b""),
        ]:
            head, content = await ask(raw, line)
            assert head.startswith(f"HTTP/1.1 {status} "), line
            assert body in content and (body or not content), line
            assert "Strict-Transport-Security: max-age=63072000" in head
        head, _ = await ask(raw, "GET /generate_204", "X-Iroh-Challenge: ts_r.example")
        assert "X-Iroh-Response: response ts_r.example" in head
        head, _ = await ask(raw, "GET /generate_204", "X-Iroh-Challenge: <script>")
        assert "X-Iroh-Response" not in head


@simulated()
async def test_with_tls_the_other_port_only_checks_for_portals(network):
    async with relay(network, certificate=Certificate(PEM, PEM)) as place:
        raw = await network.host("asking").connect_tcp(Raw, *place.server.http_address)
        assert (await ask(raw, "GET /ping"))[0].startswith("HTTP/1.1 404")
        head, _ = await ask(raw, "GET /generate_204", "X-Iroh-Challenge: a")
        assert "X-Iroh-Response: response a" in head and "Strict" not in head


@simulated()
async def test_when_an_http_connection_ends(network):
    async with relay(network) as place:
        for line, *headers in [
            ("GET /ping", "Connection: close"),
            ("POST /ping", "Content-Length: 5"),
            ("POST /ping", "Transfer-Encoding: chunked"),
        ]:
            raw = await place.raw()
            assert "Connection: close" in (await ask(raw, line, *headers))[0]
            await raw.lost
        # One that asks and asks, one that asks slowly, one that does not wait for answers.
        raw = await place.raw()
        for _ in range(100):
            await ask(raw, "GET /ping")
        await raw.lost
        raw = await place.raw()
        started = network.loop.time()
        while not raw.lost.done():
            raw.write(b"G")
            await asyncio.sleep(1)
        assert 30 <= network.loop.time() - started < 32
        raw = await place.raw()
        raw.write(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 5000)
        await raw.lost


@simulated()
async def test_upgrades_that_are_refused(network):
    good = {
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "x",
        "Sec-WebSocket-Version": "13",
        "sec-websocket-protocol": "iroh-relay-v2",
    }
    async with relay(network) as place:
        raw = await place.raw()
        for name, value in [*((name, None) for name in good), ("Sec-WebSocket-Version", "8")]:
            headers = {**good, name: value}
            lines = [f"{name}: {value}" for name, value in headers.items() if value]
            head, body = await ask(raw, "GET /relay", *lines)
            assert head.startswith("HTTP/1.1 400 ") and body
            assert ("Sec-WebSocket-Version: 13" in head) == (value == "8")
        # The same connection may still do better.
        assert await raw.enter(SecretKey.generate()) == b"\x02"


@simulated()
async def test_the_certificate_can_be_replaced(network):
    async with relay(network, certificate=Certificate(PEM, PEM)) as place:
        async with place.endpoint() as stranger:
            status = await stranger.watch_home_relay.wait_for(
                lambda status: status and status.state is RelayState.DISCONNECTED
            )
            assert "TLS" in status.problem
        place.server.set_certificate(Certificate(PEM, PEM))
        raw = await place.raw()
        # Who speaks no TLS hears so, and is gone.
        raw.write(b"GET / HTTP/1.1\r\n\r\n")
        await raw.lost
        assert raw.received[:1] == b"\x15"
        assert place.server.http_address == (place.host.addresses[0], 80)
    with pytest.raises(ValueError, match="certificate"):
        Certificate(b"", PEM)
    with pytest.raises(ValueError, match="key"):
        Certificate(PEM, b"")


def test_who_asks_for_its_health_makes_no_work():
    asked = [http_answer(Listener.MAIN, "GET", "/healthz", {}) for _ in range(2)]
    assert asked[0].body is asked[1].body
