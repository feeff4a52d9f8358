"""An upstream endpoint in a process of its own, asked by JSON lines."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import json
import struct
import termios
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Self

REQUEST_SECONDS = 60


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
        self.command = command
        self._bind = bind
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self.id = ""
        self.addrs: list[str] = []
        self.relay: str | None = None
        """URL of its home relay, if it was bound with relays."""
        self.alpns: dict[str, str] = bind["alpns"]
        self.patience = REQUEST_SECONDS
        """Seconds that an answer may take."""

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
            *self.command,
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
        self.id, self.addrs, self.relay = known["peer"], known["addrs"], known.get("relay")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None and self._process.stdin is not None
        assert self._reader is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 5)
        except TimeoutError:
            with suppress(ProcessLookupError):  # it has ended just now
                self._process.kill()
            await self._process.wait()
        await self._reader

    async def kill(self) -> None:
        """Ends the process at once: its peers hear nothing."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def failed_handshakes(self) -> list[dict[str, Any]]:
        """What went wrong with each connection that did not come in."""
        answer: Any = await self("failed_handshakes")
        failed: list[dict[str, Any]] = answer["failed"]
        return failed

    def wait_for_answers(self, count: int) -> None:
        """Blocks, with the whole event loop, until `count` empty answers lie in the pipe."""
        assert self._process is not None and self._process.stdout is not None
        pipe = self._process._transport.get_pipe_transport(1).get_extra_info("pipe")  # type: ignore[attr-defined]
        until = time.monotonic() + self.patience
        waiting = bytearray(4)
        while time.monotonic() < until:
            fcntl.ioctl(pipe, termios.FIONREAD, waiting)
            if struct.unpack("i", waiting)[0] >= count * len('{"id":1,"ok":{}}\n'):
                return
            time.sleep(0.01)
        raise TimeoutError("the peer does not answer")

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
        answer = await asyncio.wait_for(waiting, self.patience)
        if "error" in answer:
            raise PeerError(answer["error"])
        ok: dict[str, Any] = answer["ok"]
        return ok
