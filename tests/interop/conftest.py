"""Upstream's programs as fixtures, in a network namespace of their own.

    async def test_x(iroh_peer):                       # or wheel_peer: the same requests
        async with iroh_peer(alpns={"test": "echo"}) as peer:
            peer.id, peer.addrs                        # hex id, ["127.0.0.1:port"]
            known = await peer("connect", peer=..., addrs=[...], alpn="test")
            with pytest.raises(PeerError) as failed: ...
            failed.value.kind, failed.value.code

The whole test process moves into an empty namespace before the first test here, and what it starts lives
there too; so upstream's programs reach the tests over loopback, and nothing else.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest

import upstream

REQUEST_SECONDS = 60


@pytest.fixture(scope="session", autouse=True)
def everything_is_isolated(isolated_network: None) -> None:
    """Every test of this folder runs where only loopback exists."""


class PeerError(Exception):
    """What upstream reported: `kind` (see `failure.rs`), `code`, `text`, and everything in `details`."""

    def __init__(self, details: dict[str, Any]) -> None:
        super().__init__(details.get("text") or details)
        self.details = details
        self.kind: str = details["kind"]
        self.code: int | None = details.get("code")
        self.text: str = details.get("text", "")


class RemotePeer:
    """An upstream endpoint in a process of its own, as an async context manager; call it to ask something."""

    def __init__(self, command: Sequence[str], bind: dict[str, Any]) -> None:
        self._command = command
        self._bind = bind
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self.id = ""
        self.addrs: list[str] = []

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def where(self) -> dict[str, Any]:
        """What another peer's `connect` needs to know of this one."""
        return {"peer": self.id, "addrs": self.addrs}

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )
        self._reader = asyncio.create_task(self._read())
        try:
            known = await self("bind", **self._bind)
        except BaseException:
            await self.__aexit__()
            raise
        self.id, self.addrs = known["peer"], known["addrs"]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None and self._process.stdin is not None
        assert self._reader is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 5)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader

    async def kill(self) -> None:
        """Ends the process at once: its peers hear nothing."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            waiting = self._waiting.pop(answer["id"], None)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer)
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(EOFError("the peer's process has ended"))

    async def __call__(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Carries out one request; a failure of it is a `PeerError`."""
        assert self._process is not None and self._process.stdin is not None
        number = next(self._numbers)
        waiting = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        line = json.dumps({"id": number, "do": do, **arguments})
        self._process.stdin.write(line.encode() + b"\n")
        with suppress(ConnectionError):
            await self._process.stdin.drain()
        answer = await asyncio.wait_for(waiting, REQUEST_SECONDS)
        if "error" in answer:
            raise PeerError(answer["error"])
        ok: dict[str, Any] = answer["ok"]
        return ok


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


@pytest.fixture
def iroh_peer(require: Callable[[object, str], None]) -> Callable[..., RemotePeer]:
    """Makes a peer over upstream's crates: `iroh_peer(alpns={…}, addr=…, secret=…, transport={…}, runtime=…)`."""
    path = _program("iroh-peer", require)

    def make(*, addr: str = "127.0.0.1:0", runtime: str = "current", **bind: Any) -> RemotePeer:
        return RemotePeer([str(path), "--runtime", runtime], _binding(addr, bind))

    return make


@pytest.fixture
def wheel_peer() -> Callable[..., RemotePeer]:
    """Makes a peer over upstream's Python package: `wheel_peer(alpns={…}, addr=…, secret=…)`."""
    script = Path(__file__).with_name("wheel_peer.py")

    def make(*, addr: str = "127.0.0.1:0", **bind: Any) -> RemotePeer:
        return RemotePeer([sys.executable, str(script)], _binding(addr, bind))

    return make
