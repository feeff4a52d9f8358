"""An internet with relays in it, and the programs that meet there.

async with Lab(folder) as lab:
    async with lab.peer("ours", host_a) as client, lab.peer("upstream", host_b) as server: ...
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self

import aioiroh
import upstream
from nat import Nat
from relay_server import RelayServer
from remote_peer import RemotePeer
from topology import Host, Internet

ROOT = Path(__file__).parents[2]
ALPN = "lab"
RELAYS = 2
"""So many that a mapping that depends on the destination shows."""
HTTPS_PORT, QUIC_PORT = 443, 7842

_PYTHONPATH = ":".join(map(str, (Path(aioiroh.__file__).parents[1], ROOT, ROOT / "tools")))


def _ours(*arguments: str) -> list[str]:
    return ["env", f"PYTHONPATH={_PYTHONPATH}", sys.executable, *arguments]


PEERS: dict[str, Callable[[], list[str]]] = {
    "ours": lambda: _ours(str(Path(__file__).with_name("our_peer.py"))),
    "upstream": lambda: [str(upstream.program("iroh-peer").path)],
}
"""How to start what holds an endpoint."""
RELAY_PROGRAMS: dict[str, Callable[[], list[str]]] = {
    "ours": lambda: _ours("-m", "aioiroh", "relay"),
    "upstream": lambda: [str(upstream.program("iroh-relay").path)],
}
"""How to start a relay."""


class Authority:
    """A CA of the lab's own, and a certificate by it for the addresses."""

    def __init__(self, folder: Path, addresses: Sequence[str]) -> None:
        self.ca_file = folder / "ca.pem"
        self.pem = folder / "relay.pem"
        """Certificate and key of the relays."""
        _certify(self.ca_file, "-subj", "/CN=the lab", "-addext", "keyUsage=critical,keyCertSign")
        names = ",".join(f"IP:{address}" for address in addresses)
        _certify(
            self.pem,
            *("-CA", str(self.ca_file), "-CAkey", str(self.ca_file)),
            *("-subj", "/CN=relay", "-addext", f"subjectAltName={names}"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
        )
        command = ["openssl", "x509", "-in", str(self.ca_file), "-outform", "DER"]
        self.ca = subprocess.run(command, check=True, capture_output=True).stdout


def _certify(path: Path, *arguments: str) -> None:
    """A new key and its certificate, both in one file."""
    key = path.with_suffix(".key")
    command = ["openssl", "req", "-x509", "-new", "-nodes", "-days", "2"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += ["-keyout", str(key), "-out", str(path), *arguments]
    subprocess.run(command, check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + key.read_bytes())


class Lab:
    """The internet, and relays of one kind ("upstream" or "ours") on it."""

    def __init__(self, folder: Path, relays: str = "upstream") -> None:
        self.internet = Internet()
        self._stack = AsyncExitStack()
        self._stack.callback(self.internet.close)
        hosts = [self.internet.host(f"relay{number}") for number in range(RELAYS)]
        addresses = [host.plug(Nat.NONE).public for host in hosts]
        self._authority = Authority(folder, addresses)
        self.relays = [
            RelayServer(
                [*host.namespace.prefix, *RELAY_PROGRAMS[relays]()],
                folder,
                host=address,
                tls=True,
                port=HTTPS_PORT,
                quic_port=QUIC_PORT,
                pem=self._authority.pem,
            )
            for host, address in zip(hosts, addresses, strict=True)
        ]

    def host(self, name: str, nat: Nat, *, ipv6: bool = False) -> Host:
        host = self.internet.host(name)
        host.plug(nat, ipv6=ipv6)
        return host

    def peer(self, program: str, host: Host) -> RemotePeer:
        """A program ("ours" or "upstream") that uses the relays; it serves the protocol of `benchmarks`."""
        bind: dict[str, Any] = {
            "addrs": ["0.0.0.0:0", "[::]:0"],
            "alpns": {ALPN: "bench"},
            "relays": [relay.url for relay in self.relays],
            "ca": self._authority.ca.hex(),
            "ca_file": str(self._authority.ca_file),
        }
        return RemotePeer([*host.namespace.prefix, *PEERS[program]()], bind)

    async def __aenter__(self) -> Self:
        async with self._stack as starting:
            for relay in self.relays:
                await starting.enter_async_context(relay)
            self._stack = starting.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
