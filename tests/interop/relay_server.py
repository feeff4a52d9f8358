"""A relay server, upstream's or ours, in a process of its own."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

CERTIFICATE = Path(__file__).parents[2] / "rust" / "relay" / "tests" / "relay.test.pem"
"""Certificate and key for 127.0.0.1."""
START_SECONDS = 60
LISTENING = "0A"
"""The state of a socket, as `/proc/net/tcp` writes it."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RelayServer:
    """A relay, as an async context manager. `stop` and `start` while it lasts are a restart.

    `command` takes upstream's option `--config-path`. `tls`: with HTTPS, by the certificate and key in
    `pem`; then QUIC address discovery can be had at `quic_port`. The ports are free ones if not given.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        folder: Path,
        *,
        host: str = "127.0.0.1",
        tls: bool = False,
        port: int | None = None,
        quic_port: int | None = None,
        pem: Path = CERTIFICATE,
        access: Any = "everyone",
    ) -> None:
        self._command = [str(part) for part in command]
        self._folder = folder
        self._host = host
        self._tls = tls
        self._port = port or free_port()
        self._plain_port = free_port() if tls else self._port
        self._quic_port = quic_port
        self._pem = pem
        self._access = access
        self._process: asyncio.subprocess.Process | None = None

    @property
    def plain_url(self) -> str:
        """Without TLS, where only the check for captive portals is if there is TLS."""
        return f"http://{self._host}:{self._plain_port}/"

    @property
    def url(self) -> str:
        scheme, usual = ("https", 443) if self._tls else ("http", 80)
        port = "" if self._port == usual else f":{self._port}"
        return f"{scheme}://{self._host}{port}/"

    def _config(self) -> str:
        lines = [
            f'http_bind_addr = "{self._host}:{self._plain_port}"',
            "enable_metrics = false",
            f"enable_quic_addr_discovery = {json.dumps(self._quic_port is not None)}",
            # TOML has JSON's strings and lists.
            *(
                [f"access.{kind} = {json.dumps(value)}" for kind, value in self._access.items()]
                if isinstance(self._access, dict)
                else [f"access = {json.dumps(self._access)}"]
            ),
        ]
        if self._tls:
            lines += [
                "[tls]",
                f'https_bind_addr = "{self._host}:{self._port}"',
                'cert_mode = "Manual"',
                f"manual_cert_path = {json.dumps(str(self._pem))}",
                f"manual_key_path = {json.dumps(str(self._pem))}",
            ]
            if self._quic_port is not None:
                lines.append(f'quic_bind_addr = "{self._host}:{self._quic_port}"')
        return "\n".join(lines) + "\n"

    async def start(self) -> None:
        name = f"relay-{self._host}-{self._port}"
        config = self._folder / f"{name}.toml"
        config.write_text(self._config())
        log = (self._folder / f"{name}.log").open("ab")
        with log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, "--config-path", str(config), stdout=log, stderr=log
            )
        async with asyncio.timeout(START_SECONDS):
            while not self._listens():
                assert self._process.returncode is None, Path(log.name).read_text()
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    def _listens(self) -> bool:
        """Whether the port is open where the process is, which may be another network than ours."""
        assert self._process is not None
        tables = Path(f"/proc/{self._process.pid}/net")
        with suppress(OSError):  # It has just ended.
            text = (tables / "tcp").read_text() + (tables / "tcp6").read_text()
            sockets = [line.split() for line in text.splitlines()]
            port = f":{self._port:04X}"
            return any(row[1].endswith(port) and row[3] == LISTENING for row in sockets)
        return False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
