"""What is seen of our relay from outside is what is seen of upstream's: by scrapers, and by its peers."""

from __future__ import annotations

import asyncio
import json
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aioiroh import relayserver
from aioiroh.relayserver import ConfigError, read_config
from aioiroh.relayserver.metrics import OURS
from commands import Process
from relay_process import RelayProcess
from relay_server import CERTIFICATE, RelayServer, free_port
from remote_peer import RemotePeer

SECURE = f"""
enable_quic_addr_discovery = true
http_bind_addr = "127.0.0.1:0"
metrics_bind_addr = "127.0.0.1:0"
[tls]
cert_mode = "Reloading"
https_bind_addr = "127.0.0.1:0"
quic_bind_addr = "127.0.0.1:0"
manual_cert_path = "{CERTIFICATE}"
manual_key_path = "{CERTIFICATE}"
"""


@pytest.fixture
def secure_relay(tmp_path: Path) -> Iterator[RelayProcess]:
    """`aioiroh relay` with everything that needs a certificate."""
    path = tmp_path / "relay.toml"
    path.write_text(SECURE)
    relay = RelayProcess(path)
    yield relay
    relay.kill()


def described(text: str) -> dict[str, str]:
    """From the names of samples to their types."""
    kinds = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE"))
    samples = [line.split()[0] for line in text.splitlines() if not line.startswith("#")]
    return {name: kinds.get(name) or kinds[name.removesuffix("_total")] for name in samples}


def test_the_same_metrics(iroh_relay: Path, secure_relay: RelayProcess, tmp_path: Path) -> None:
    ports = free_port(), free_port()
    path = tmp_path / "upstream.toml"
    path.write_text(
        f'http_bind_addr = "127.0.0.1:{ports[0]}"\nmetrics_bind_addr = "127.0.0.1:{ports[1]}"\n'
    )
    upstream = subprocess.Popen([iroh_relay, "--config-path", path])
    try:
        theirs = described(_fetched(f"http://127.0.0.1:{ports[1]}/metrics"))
    finally:
        upstream.kill()
        upstream.wait()
    ours = described(_fetched(secure_relay.url("metrics") + "metrics"))
    assert ours.keys() - theirs.keys() == {f"relayserver_{name}_total" for name in OURS}
    # Upstream's binary leaves out some of those that it declares and never counts.
    assert theirs.items() <= ours.items()


def _fetched(url: str) -> str:
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(url, timeout=20) as answer:
                text: str = answer.read().decode()
                return text
        except urllib.error.URLError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


KEYS = """
    enable_relay http_bind_addr tls enable_quic_addr_discovery limits enable_metrics metrics_bind_addr
    key_cache_capacity access access.allowlist access.denylist access.http access.http.url
    access.http.bearer_token access.shared_token
    tls.https_bind_addr tls.quic_bind_addr tls.hostname tls.cert_mode tls.cert_dir tls.manual_cert_path
    tls.manual_key_path tls.prod_tls tls.contact tls.dangerous_http_only
    limits.accept_conn_limit limits.accept_conn_burst limits.client limits.client.rx
    limits.client.rx.bytes_per_second limits.client.rx.max_burst_bytes
"""
"""All that upstream's file may say (`Config` in its main.rs)."""


def test_the_same_keys(iroh_relay: Path, tmp_path: Path) -> None:
    """Both know each of them: they complain of a value that none can have."""
    path = tmp_path / "relay.toml"
    for key in KEYS.split():
        needed = {
            "access.http.bearer_token": 'access.http.url = "http://127.0.0.1/"\n',
            "tls": "",
            "tls.cert_mode": "",
        }.get(key, 'tls.cert_mode = "Manual"\n' if key.startswith("tls.") else "")
        path.write_text(f"{needed}{key} = [[1]]\n")
        theirs = subprocess.run(
            [iroh_relay, "--config-path", path],
            check=False,
            capture_output=True,
            text=True,
            timeout=20,
        )
        assert theirs.returncode and "config must be valid toml" in theirs.stderr, (key, theirs)
        with pytest.raises(ConfigError, match=rf"relay\.toml: {key}\b") as ours:
            read_config(path)
        assert "unknown key" not in str(ours.value)


def test_for_development_it_is_where_upstreams_is(tmp_path: Path) -> None:
    """Port 3340, and over IPv4, too, though it is bound to `[::]`."""
    relay = Process(["relay", "--dev"], cwd=tmp_path)
    try:
        line = relay.until(lambda: relay.err, "a line")
        assert "http=[::]:3340 metrics=[::]:9090" in line
        assert json.loads(_fetched("http://127.0.0.1:3340/healthz"))["status"] == "ok"
    finally:
        relay.kill()


async def test_our_doctor_asks_upstreams_relay(
    upstream_relay: Callable[..., RelayServer], our_relay: Callable[..., RelayServer]
) -> None:
    async with upstream_relay(tls=True) as theirs, our_relay() as ours:
        urls = [relay.url for relay in (theirs, ours)]
        asked = ["doctor", "--json", "--relay-ca", CERTIFICATE]
        looked = Process([*asked, "--relay", urls[0], "--relay", urls[1]])
        try:
            await asyncio.to_thread(looked.wait, None)
        finally:
            looked.kill()
    sections = {event.get("name"): event for event in looked.events}
    for relay, url in zip(sections["relays"]["relays"], urls, strict=True):
        assert relay["url"] == url and relay["https"] > 0 and relay["problem"] is None
    assert sections["clock"]["state"] == "good"


async def test_upstream_comes_by_tls_and_is_counted(
    secure_relay: RelayProcess, iroh_peer: Callable[..., RemotePeer]
) -> None:
    url = await asyncio.to_thread(secure_relay.url, "https")
    ca = ssl.PEM_cert_to_DER_cert(_certificate()).hex()
    async with iroh_peer(relays=[url], ca=ca) as peer:
        admitted = await secure_relay.heard("a client was let in")
        assert admitted["endpoint_id"] == peer.id
        counted = await asyncio.to_thread(secure_relay.metrics)
        assert counted["accepts_total"] == 1 and counted["disconnects_total"] == 0
    gone = await secure_relay.heard("a client has gone")
    assert gone["endpoint_id"] == peer.id and gone["connection"] == admitted["connection"]


async def test_upstream_comes_to_the_next_relay(iroh_peer: Callable[..., RemotePeer]) -> None:
    """It passes over the frame that tells of the restart, and dials again when its connection ends."""
    came: asyncio.Queue[str] = asyncio.Queue()

    async def access(request: relayserver.AccessRequest) -> relayserver.Allow:
        came.put_nowait(str(request.endpoint_id))
        return relayserver.Allow()

    async with (
        asyncio.timeout(60),
        relayserver.RelayServer.bind(access=access) as before,
        iroh_peer(relays=[before.url]) as peer,
    ):
        assert await came.get() == peer.id
        draining = asyncio.create_task(before.drain(1000))
        await asyncio.sleep(0)  # its port is free
        async with relayserver.RelayServer.bind(http=before.http_address, access=access):
            await draining
            assert await came.get() == peer.id


def _certificate() -> str:
    text = CERTIFICATE.read_text()
    end = "-----END CERTIFICATE-----"
    return text[text.index("-----BEGIN CERTIFICATE") : text.index(end)] + end
