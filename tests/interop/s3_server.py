"""A real S3 server on loopback, and a way to it that can be cut, slowed down and made to fail."""

from __future__ import annotations

import asyncio
import ctypes
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import obstore.store

LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG = 1
BUCKET = "blobs"
KEY, SECRET = "access", "secret"
UNAVAILABLE = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def end_with_parent() -> None:
    """In a child: no server is left behind by tests that were killed."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class S3Server:
    """`s3s-fs` over a folder. It may be killed and started again."""

    def __init__(self, program: Path, root: Path) -> None:
        self.root = root
        (root / BUCKET).mkdir(parents=True)
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port: int = listener.getsockname()[1]

    def start(self) -> None:
        command = [self._program, self.root, "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--access-key", KEY, "--secret-key", SECRET]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            preexec_fn=end_with_parent,  # noqa: PLW1509 - one system call, no locks
        )
        while True:
            assert self._process.poll() is None, "the S3 server ended by itself"
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
                return
            except ConnectionRefusedError:
                continue

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def bucket(self, port: int | None = None, **options: Any) -> obstore.store.S3Store:
        """The bucket as obstore sees it, at the server or at a proxy's port."""
        options.setdefault("client_options", {"allow_http": True})
        return obstore.store.S3Store(
            BUCKET,
            endpoint=f"http://127.0.0.1:{port or self.port}",
            access_key_id=KEY,
            secret_access_key=SECRET,
            region="us-east-1",
            **options,
        )


class Proxy:
    """Passes connections on to a server, as long as it is not told otherwise."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.port = 0
        self.refusing = 0
        """So many of the next connections are answered with 503."""
        self.refused = 0
        self.left: int | None = None
        """Bytes that may still pass, in both directions together; then every connection is cut."""
        self.cut = 0
        self.stalled = False
        """Nothing passes, nothing is cut."""
        self._tasks: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                if self.refusing:
                    self.refusing -= 1
                    self.refused += 1
                    await reader.readuntil(b"\r\n\r\n")
                    writer.write(UNAVAILABLE)
                    await writer.drain()
                else:
                    await self._connect(reader, writer)
        finally:
            await ended(writer)
            self._tasks.discard(task)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, back))
                group.create_task(self._pass(there, writer))
        except* OSError:
            pass
        finally:
            await ended(back)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self.stalled:
                await asyncio.Event().wait()
            if self.left is not None:
                self.left -= len(data)
                if self.left < 0:
                    self.cut += 1
                    raise ConnectionAbortedError
            writer.write(data)
            await writer.drain()
        with suppress(OSError):
            writer.write_eof()


async def ended(writer: asyncio.StreamWriter) -> None:
    """Ends a connection at once; nothing of it is left."""
    writer.close()
    if writer.transport.get_write_buffer_size():
        writer.transport.abort()
    with suppress(OSError):
        await writer.wait_closed()
