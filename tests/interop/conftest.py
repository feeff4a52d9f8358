"""Upstream's programs as fixtures.

    async def test_x(iroh_peer):                       # or wheel_peer: the same requests
        async with iroh_peer(alpns={"test": "echo"}) as peer:
            peer.id, peer.addrs                        # hex id, ["127.0.0.1:port"]
            known = await peer("connect", peer=..., addrs=[...], alpn="test")
            with pytest.raises(PeerError) as failed: ...
            failed.value.kind, failed.value.code

The test process lives in an empty namespace, and what it starts lives there too; so upstream's programs
reach the tests over loopback, and nothing else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import upstream
from commands import AIOIROH, Process
from meeting import Meet, meeting
from relay_server import RelayServer
from remote_peer import RemotePeer
from sendme_commands import Sending


@pytest.fixture(scope="session", autouse=True)
def everything_is_isolated(
    isolated_network: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Every test of this folder runs where only loopback exists, and remembers nothing of others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


def _binding(addr: str, bind: dict[str, Any]) -> dict[str, Any]:
    return {"addrs": [addr], "alpns": {}, **bind}


def _program(name: str, require: Callable[[object, str], None]) -> Path:
    path = upstream.program(name).path
    require(path.exists(), f"{name} is not built; run: make upstream")
    return path


@pytest.fixture(scope="session")
def sendme(require: Callable[[object, str], None]) -> Path:
    """The path of upstream's program `sendme`."""
    return _program("sendme", require)


@pytest.fixture(scope="session")
def iroh_relay(require: Callable[[object, str], None]) -> Path:
    """The path of upstream's program `iroh-relay`."""
    return _program("iroh-relay", require)


@pytest.fixture
def upstream_relay(iroh_relay: Path, tmp_path: Path) -> Callable[..., RelayServer]:
    """Makes a relay over upstream's program: `upstream_relay(tls=…, access=…)`."""
    return lambda **options: RelayServer([iroh_relay], tmp_path, **options)


@pytest.fixture
def our_relay(tmp_path: Path) -> Callable[..., RelayServer]:
    """Makes a relay over `aioiroh relay`."""
    return lambda **options: RelayServer([*AIOIROH, "relay"], tmp_path, **options)


@pytest.fixture(params=["upstream's relay", "our relay"])
def relay_server(request: pytest.FixtureRequest) -> Callable[..., RelayServer]:
    """Those in turn: ours has to be one that upstream's clients cannot tell from theirs."""
    name = "our_relay" if request.param == "our relay" else "upstream_relay"
    make: Callable[..., RelayServer] = request.getfixturevalue(name)
    return make


def _over_crates(name: str, require: Callable[[object, str], None]) -> Callable[..., RemotePeer]:
    path = _program(name, require)

    def make(*, addr: str = "127.0.0.1:0", runtime: str = "current", **bind: Any) -> RemotePeer:
        return RemotePeer([str(path), "--runtime", runtime], _binding(addr, bind))

    return make


@pytest.fixture
def iroh_peer(require: Callable[[object, str], None]) -> Callable[..., RemotePeer]:
    """Makes a peer over upstream's crates: `iroh_peer(alpns={…}, addr=…, secret=…, transport={…}, runtime=…)`."""
    return _over_crates("iroh-peer", require)


@pytest.fixture
def peers(require: Callable[[object, str], None]) -> dict[str, Callable[..., RemotePeer]]:
    """`iroh_peer` over each of the versions of iroh-blobs that we promise to work with."""
    names = {"0.104": "iroh-peer", "0.103": "iroh-peer-103"}
    return {version: _over_crates(name, require) for version, name in names.items()}


@pytest.fixture(params=["0.104", "0.103"])
def blobs_peer(
    request: pytest.FixtureRequest, peers: dict[str, Callable[..., RemotePeer]]
) -> Callable[..., RemotePeer]:
    """Those in turn."""
    return peers[request.param]


@pytest.fixture
def wheel_peer() -> Callable[..., RemotePeer]:
    """Makes a peer over upstream's Python package: `wheel_peer(alpns={…}, addr=…, secret=…)`."""
    script = Path(__file__).with_name("wheel_peer.py")

    def make(*, addr: str = "127.0.0.1:0", **bind: Any) -> RemotePeer:
        return RemotePeer([sys.executable, str(script)], _binding(addr, bind))

    return make


@pytest.fixture(params=["crates", "wheel"])
def make_peer(
    request: pytest.FixtureRequest,
    iroh_peer: Callable[..., RemotePeer],
    wheel_peer: Callable[..., RemotePeer],
) -> Callable[..., RemotePeer]:
    """`iroh_peer` and `wheel_peer` in turn, for what both can do."""
    return iroh_peer if request.param == "crates" else wheel_peer


@pytest.fixture(params=["we dial", "they dial"])
def meet(request: pytest.FixtureRequest) -> Meet:
    """`async with meet(make_peer) as link`: a connection in both roles in turn (see `meeting.py`)."""
    return meeting(request.param == "we dial")


@pytest.fixture
def sending() -> Sending:
    """`with sending(path) as sender`: shares with our command, on all addresses there are."""

    @contextmanager
    def run(*arguments: object, **options: Any) -> Iterator[Any]:
        sender = Process(["send", *arguments], **options)
        try:
            ticket = sender.until(lambda: sender.out, "ticket").strip()
            yield sender, ticket
        finally:
            sender.kill()

    return run
