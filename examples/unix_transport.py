"""Two endpoints that talk through sockets in the file system, without a network: a custom transport.

    python unix_transport.py serve FOLDER        prints its id and waits
    python unix_transport.py call FOLDER ID      says hello

Every endpoint has a socket in FOLDER, named after its id, and a custom address is the name of such a socket. QUIC
protects what passes, as it does everywhere: others who can write to FOLDER can disturb, but neither read nor pretend.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from aioiroh import (
    CustomAddr,
    CustomPort,
    CustomTransport,
    Endpoint,
    EndpointAddr,
    EndpointId,
    SecretKey,
)

ALPN = b"example/unix"


class UnixTransport(CustomTransport):
    """Datagrams between Unix sockets in one folder."""

    id = 0x20  # upstream's number for tests; choose your own

    def __init__(self, folder: Path, own: EndpointId) -> None:
        self._folder = folder
        self._own = self.address(own)
        self._socket: socket.socket | None = None

    @classmethod
    def address(cls, id: EndpointId) -> CustomAddr:
        return CustomAddr(cls.id, id.short().encode())

    def _path(self, address: CustomAddr) -> str:
        # Addresses come from peers: nothing but a name may be made of one.
        name = address.data.decode("ascii", errors="replace")
        return str(self._folder / (name if name.isalnum() else "nobody"))

    async def start(self, port: CustomPort) -> None:
        self._port = port
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(self._path(self._own))
        asyncio.get_running_loop().add_reader(self._socket, self._receive)
        port.set_local_addrs([self._own])

    def _receive(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(BlockingIOError):
            for _ in range(64):
                datagram, sender = self._socket.recvfrom(65_536)
                if sender:
                    source = CustomAddr(self.id, Path(sender).name.encode())
                    self._port.received(source, datagram)

    def send(self, address: CustomAddr, datagram: bytes) -> None:
        assert self._socket is not None
        with contextlib.suppress(OSError):  # full, or nobody there: QUIC sends it again
            self._socket.sendto(datagram, self._path(address))

    async def aclose(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            Path(self._path(self._own)).unlink(missing_ok=True)


def bind(folder: Path, alpns: list[bytes]) -> AbstractAsyncContextManager[Endpoint]:
    key = SecretKey.generate()
    transport = UnixTransport(folder, key.public)
    # No UDP sockets at all.
    return Endpoint.bind(secret_key=key, alpns=alpns, bind=(), custom_transports=[transport])


async def serve(folder: Path) -> None:
    async with bind(folder, [ALPN]) as endpoint:
        print(endpoint.id, flush=True)
        async for incoming in endpoint.incoming():
            async with await incoming.accept() as connection:
                stream = await connection.accept_bi()
                question = await stream.read_all(limit=1024)
                print(f"{connection.remote_id.short()} says {question.decode()}", flush=True)
                await stream.write(question[::-1])
                await stream.finish()
                await connection.closed()


async def call(folder: Path, id: EndpointId) -> None:
    async with bind(folder, []) as endpoint:
        target = EndpointAddr(id, [UnixTransport.address(id)])
        async with endpoint.connect(target, alpn=ALPN) as connection:
            async with connection.open_bi() as stream:
                await stream.write(b"hello")
                await stream.finish()
                print((await stream.read_all(limit=1024)).decode(), flush=True)
            print(connection.paths.value[0].custom, flush=True)


def main() -> None:
    match sys.argv[1:]:
        case ["serve", folder]:
            coroutine = serve(Path(folder))
        case ["call", folder, id]:
            coroutine = call(Path(folder), EndpointId.parse(id))
        case _:
            sys.exit(__doc__)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(coroutine)


if __name__ == "__main__":
    main()
