"""Upstream's relay server in a process of its own."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any, Self

CERTIFICATE = Path(__file__).parents[2] / "rust" / "relay" / "tests" / "relay.test.pem"
"""Certificate and key for 127.0.0.1."""
START_SECONDS = 20


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RelayServer:
    """A relay on 127.0.0.1, as an async context manager. `stop` and `start` while it lasts are a restart."""

    def __init__(
        self, program: Path, folder: Path, *, tls: bool = False, access: Any = "everyone"
    ) -> None:
        self._program = program
        self._folder = folder
        self._port = free_port()
        self._tls_port = free_port() if tls else None
        self._access = access
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        if self._tls_port is None:
            return f"http://127.0.0.1:{self._port}/"
        return f"https://127.0.0.1:{self._tls_port}/"

    def _config(self) -> str:
        lines = [
            f'http_bind_addr = "127.0.0.1:{self._port}"',
            "enable_metrics = false",
            # TOML has JSON's strings and lists.
            *(
                [f"access.{kind} = {json.dumps(value)}" for kind, value in self._access.items()]
                if isinstance(self._access, dict)
                else [f"access = {json.dumps(self._access)}"]
            ),
        ]
        if self._tls_port is not None:
            lines += [
                "[tls]",
                f'https_bind_addr = "127.0.0.1:{self._tls_port}"',
                'cert_mode = "Manual"',
                f"manual_cert_path = {json.dumps(str(CERTIFICATE))}",
                f"manual_key_path = {json.dumps(str(CERTIFICATE))}",
            ]
        return "\n".join(lines) + "\n"

    async def start(self) -> None:
        config = self._folder / f"relay-{self._port}.toml"
        config.write_text(self._config())
        log = (self._folder / f"relay-{self._port}.log").open("ab")
        with log:
            self._process = await asyncio.create_subprocess_exec(
                str(self._program), "--config-path", str(config), stdout=log, stderr=log
            )
        async with asyncio.timeout(START_SECONDS):
            while not await self._answers():
                assert self._process.returncode is None, Path(log.name).read_text()
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self._tls_port or self._port)
        except ConnectionError:
            return False
        writer.close()
        return True

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
