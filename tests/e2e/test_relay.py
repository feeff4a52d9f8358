"""`aioiroh relay` with our endpoints as its clients."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import threading
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from aioiroh import (
    Endpoint,
    EndpointAddr,
    RelayAddr,
    RelayConfig,
    RelayState,
    Router,
    SecretKey,
    blobs,
    ping,
)
from commands import Process
from relay_process import RelayProcess

CERTIFICATE = Path(__file__).parents[2] / "rust" / "relay" / "tests" / "relay.test.pem"
RENEWED = Path(__file__).with_name("renewed.test.pem")
PLAIN = 'http_bind_addr = "127.0.0.1:0"\nmetrics_bind_addr = "127.0.0.1:0"\n'

Serve = Callable[..., RelayProcess]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """`serve(text of the file, *options)`: a relay, killed at the end of the test."""
    relays: list[RelayProcess] = []

    def run(text: str = "", *options: object, **popen: Any) -> RelayProcess:
        (tmp_path / "relay.toml").write_text(PLAIN + text)
        relays.append(RelayProcess(tmp_path / "relay.toml", *options, **popen))
        return relays[-1]

    yield run
    for relay in relays:
        relay.kill()


@asynccontextmanager
async def at(relay: RelayProcess, **options: Any) -> AsyncIterator[Endpoint]:
    """An endpoint that has nothing but the relay, and is there."""
    url = options.pop("url", None) or relay.url()
    options = {"relays": [url], "bind": (), **options}
    async with Endpoint.bind(**options) as endpoint:
        async with asyncio.timeout(20):
            await endpoint.online()
        yield endpoint


async def refused(**options: Any) -> str:
    """Why an endpoint cannot get to its relay."""
    async with Endpoint.bind(bind="127.0.0.1:0", **options) as endpoint, asyncio.timeout(20):
        status = await endpoint.watch_home_relay.wait_for(
            lambda status: status and status.state is RelayState.DISCONNECTED
        )
        assert status is not None and status.problem is not None
        return status.problem


async def test_two_meet_and_are_counted(serve: Serve) -> None:
    relay = serve()
    async with at(relay) as ours, at(relay) as theirs, Router(theirs, ping.HANDLERS):
        target = EndpointAddr(theirs.id, [RelayAddr(relay.url())])
        async with ours.connect(target, alpn=ping.REPEATED_ALPN) as connection:
            assert await ping.ping(connection) > 0
        counted = await asyncio.to_thread(relay.metrics)
    assert counted["accepts_total"] == 2 and counted["got_ping_total"] >= 2
    assert counted["send_packets_sent_total"] > 4 and counted["bytes_recv_total"] > 2400
    assert counted["bytes_rx_ratelimited_total"] == 0
    assert counted["qad_connections_total"] == 0


def test_what_it_serves_besides(serve: Serve) -> None:
    relay = serve()
    with urllib.request.urlopen(relay.url() + "healthz", timeout=20) as answer:
        assert json.loads(answer.read())["status"] == "ok"
        told = parsedate_to_datetime(answer.headers["Date"])
        assert abs((told - datetime.now(UTC)).total_seconds()) < 60
    # Metrics are on every path of their own listener, and on no other.
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(relay.url() + "metrics", timeout=20)


async def test_lists_that_are_changed_while_it_runs(serve: Serve, tmp_path: Path) -> None:
    """Who is on the new list is sent away, and does not get in again."""
    key = SecretKey.generate()
    relay = serve()
    async with at(relay, secret_key=key) as known, at(relay) as other:
        text = (
            f'access.denylist = ["{key.public}"]\n[limits.client.rx]\nbytes_per_second = 1000000\n'
        )
        (tmp_path / "relay.toml").write_text(PLAIN + text)
        relay.reload()
        await relay.heard("the configuration was read again")
        async with asyncio.timeout(20):
            status = await known.watch_home_relay.wait_for(
                lambda status: status and "not authorized" in (status.problem or "")
            )
        assert status is not None and not status.is_connected
        assert (await relay.heard("a client was refused"))["endpoint_id"] == str(key.public)
        assert other.home_relay is not None and other.home_relay.is_connected
        # A mistake changes nothing, and what needs a restart is said.
        (tmp_path / "relay.toml").unlink()
        relay.reload()
        record = await relay.heard("the configuration was not changed")
        assert record["message"].endswith("relay.toml: No such file or directory")
        (tmp_path / "relay.toml").write_text(PLAIN + "acess = 1\n")
        relay.reload()
        record = await relay.heard("the configuration was not changed", 2)
        assert "did you mean access?" in record["message"] and record["level"] == "error"
        (tmp_path / "relay.toml").write_text('http_bind_addr = "127.0.0.1:1"\n')
        relay.reload()
        record = await relay.heard("these changes need a restart")
        assert record["keys"] == "http_bind_addr, metrics_bind_addr"
        async with asyncio.timeout(20):
            await known.online()


async def test_a_token_from_the_environment(serve: Serve) -> None:
    text = 'access.shared_token = ["not this one"]\n'
    relay = serve(text, env={"IROH_RELAY_ACCESS_TOKEN": "open sesame"})
    assert "not authorized" in await refused(relays=[relay.url()])
    async with at(relay, relays=[RelayConfig(relay.url(), auth_token="open sesame")]):
        pass


async def test_commands_with_a_token_and_a_certificate_of_our_own(
    serve: Serve, start: Callable[..., Process], tmp_path: Path
) -> None:
    """The token is in the ticket, so its receiver comes in, too; both know the CA from their environment."""
    relay = serve(
        f"""
        access.shared_token = ["open sesame"]
        [tls]
        cert_mode = "Manual"
        https_bind_addr = "127.0.0.1:0"
        manual_cert_path = "{CERTIFICATE}"
        manual_key_path = "{CERTIFICATE}"
        """
    )
    url = await asyncio.to_thread(relay.url, "https") + "?token=open%20sesame"
    (tmp_path / "data").write_bytes(b"through the relay")
    trusting = {"AIOIROH_RELAY_CA": str(CERTIFICATE)}
    sender = start("send", "--relay", url, tmp_path / "data", env=trusting)
    text = await asyncio.to_thread(sender.until, lambda: sender.out, "ticket")
    ticket = blobs.BlobTicket.parse(text.strip())
    assert [*ticket.addr.relay_urls] == [url]

    def only_at(url: str) -> blobs.BlobTicket:
        addr = EndpointAddr(ticket.addr.id, [RelayAddr(url)])
        return blobs.BlobTicket(addr, ticket.hash, ticket.format)

    receiver = start("receive", only_at(url), "-o", tmp_path / "target", env=trusting)
    await asyncio.to_thread(receiver.wait, 0)
    assert (tmp_path / "target" / "data").read_bytes() == b"through the relay"
    stranger = start("list", only_at(url.partition("?")[0]), "--timeout", 2, env=trusting)
    await asyncio.to_thread(stranger.wait, 4)


class Doorman(BaseHTTPRequestHandler):
    """Lets in whoever is in `welcome`."""

    welcome: ClassVar[set[str]] = set()

    def do_POST(self) -> None:
        known = self.headers["X-Iroh-Endpoint-Id"] in self.welcome
        good = known and self.headers["Authorization"] == "Bearer ours"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"true" if good else b"false")

    def log_message(self, format: str, *args: object) -> None:
        """It writes nothing."""


async def test_a_service_decides(serve: Serve) -> None:
    key = SecretKey.generate()
    Doorman.welcome.add(str(key.public))
    with ThreadingHTTPServer(("127.0.0.1", 0), Doorman) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}/"
            text = f'access.http = {{ url = "{url}", bearer_token = "not this" }}\n'
            relay = serve(text, env={"IROH_RELAY_HTTP_BEARER_TOKEN": "ours"})
            async with at(relay, secret_key=key):
                assert "not authorized" in await refused(relays=[relay.url()])
        finally:
            server.shutdown()
            thread.join()


async def test_a_certificate_that_is_renewed(serve: Serve, tmp_path: Path) -> None:
    pem = tmp_path / "relay.pem"
    pem.write_bytes(CERTIFICATE.read_bytes())
    relay = serve(
        f"""
        enable_quic_addr_discovery = true
        [tls]
        cert_mode = "Manual"
        https_bind_addr = "127.0.0.1:0"
        quic_bind_addr = "127.0.0.1:0"
        manual_cert_path = "{pem}"
        manual_key_path = "{pem}"
        """
    )
    url = relay.url("https")
    assert relay.said("the relay is ready")["quic"].startswith("127.0.0.1:")
    async with at(relay, url=url, relay_ca=CERTIFICATE) as early:
        assert "TLS" in await refused(relays=[url], relay_ca=RENEWED)
        pem.write_bytes(b"half of it")
        relay.reload()
        assert "no certificate" in (await relay.heard("the configuration was not"))["message"]
        pem.write_bytes(RENEWED.read_bytes())
        relay.reload()
        await relay.heard("the configuration was read again")
        async with at(relay, url=url, relay_ca=RENEWED):
            assert early.home_relay is not None and early.home_relay.is_connected
        assert "TLS" in await refused(relays=[url], relay_ca=CERTIFICATE)
    # On the plain port there is only the check for captive portals.
    with pytest.raises(urllib.error.HTTPError, match="404"):
        await asyncio.to_thread(urllib.request.urlopen, relay.url() + "healthz", timeout=20)


async def test_stopping(serve: Serve) -> None:
    # As long as clients need to go, and no longer.
    relay = serve("", "--drain", 1000)
    async with at(relay) as endpoint:
        relay.process.signal(signal.SIGTERM)
        assert (await relay.heard("the relay stops"))["clients"] == 1
        await asyncio.to_thread(relay.process.wait, 0)
        async with asyncio.timeout(20):
            await endpoint.watch_home_relay.wait_for(
                lambda status: status and not status.is_connected
            )
    assert relay.log[-1]["message"] == "the relay has stopped"
    relay = serve("", "--drain", 1000)
    relay.said("the relay is ready")
    relay.process.signal(signal.SIGINT)
    relay.process.wait(0)


async def test_development_is_plain_http(serve: Serve) -> None:
    relay = serve('[tls]\ncert_mode = "LetsEncrypt"\ncontact = "us@relay.example"\n', "--dev")
    async with at(relay):
        assert "https" not in relay.said("the relay is ready")


def test_it_takes_all_the_files_it_may_open(serve: Serve) -> None:
    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 4000))

    # Each connection is one, and it keeps some for itself.
    assert serve(preexec_fn=few).said("the relay is ready")["connections"] == 4000 - 128


def test_text_for_people(start: Callable[..., Process], tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text(PLAIN)
    relay = start("relay", "-c", path, env={"RUST_LOG": "warn,iroh_relay=info"})
    line = relay.until(lambda: relay.err, "a line")
    assert "INFO    the relay is ready http=127.0.0.1:" in line


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        (PLAIN, 0, "The configuration is right."),
        ("enable_relais = true", 2, "did you mean enable_relay?"),
        ('[tls]\ncert_mode = "LetsEncrypt"', 2, "no ACME client"),
    ],
)
def test_checking(
    text: str, code: int, says: str, start: Callable[..., Process], tmp_path: Path
) -> None:
    path = tmp_path / "relay.toml"
    path.write_text(text)
    assert says in start("relay", "-c", path, "--check").wait(code).err
    if code:
        assert says in start("relay", "-c", path).wait(code).err


def test_an_address_that_is_taken(
    serve: Serve, start: Callable[..., Process], tmp_path: Path
) -> None:
    taken = serve().said("the relay is ready")["http"]
    path = tmp_path / "other.toml"
    path.write_text(f'http_bind_addr = "{taken}"\nenable_metrics = false\n')
    assert taken in start("relay", "-c", path).wait(1).err


def test_no_such_file(start: Callable[..., Process]) -> None:
    assert "does not exist" in start("relay", "-c", os.devnull + "x").wait(2).err
