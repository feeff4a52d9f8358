"""A checkpoint that many workers need: they fetch it from its owner and from each other.

    python examples/shared_checkpoint.py lead model.bin              # prints a ticket
    python examples/shared_checkpoint.py work TICKET FILE STORE      # on each worker

Each worker tells the leader where it is and hears who else works. While it fetches, it serves what it
has, in pieces that the next ones verify by themselves: nobody has to trust anybody. A worker that is
started again goes on where it was.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
from pathlib import Path

from aioiroh import BiStream, Connection, Endpoint, EndpointTicket, Router, blobs
from aioiroh.blobs import BlobTicket

WORKERS = b"examples/workers/1"
MAX_LIST = 1024 * 1024


async def lead(file: str) -> None:
    workers: dict[str, None] = {}

    async def meet(stream: BiStream) -> None:
        """A worker says where it is, and hears of those who came before."""
        newcomer = (await stream.read_all(limit=MAX_LIST)).decode()
        await stream.write("\n".join(workers).encode())
        workers[str(EndpointTicket.parse(newcomer))] = None

    async def answer(connection: Connection) -> None:
        await connection.serve(meet)

    async with blobs.MemoryStore() as store, Endpoint.bind() as endpoint:
        added = await store.add_file(file)
        handlers = {WORKERS: answer, blobs.ALPN: blobs.Provider(store)}
        async with Router(endpoint, handlers) as router:
            print(BlobTicket(endpoint.addr, added.hash), flush=True)
            await router.serve_forever()


async def work(text: str, file: str, folder: str) -> None:
    ticket = BlobTicket.parse(text)
    async with (
        await blobs.FileStore.open(folder) as store,
        Endpoint.bind() as endpoint,
        Router(endpoint, {blobs.ALPN: blobs.Provider(store)}) as router,
    ):
        async with (
            endpoint.connect(ticket, alpn=WORKERS) as connection,
            connection.open_bi() as stream,
        ):
            await stream.write(str(EndpointTicket(endpoint.addr)).encode())
            await stream.finish()
            others = (await stream.read_all(limit=MAX_LIST)).decode().split()
        async with blobs.Downloader(endpoint, store) as downloader:
            await downloader.download(ticket, providers=others)
        # Made beside its place, in a folder of our own, and then there at once, whole.
        with tempfile.TemporaryDirectory(dir=Path(file).absolute().parent) as beside:
            [staged] = await store.stage([ticket.hash], Path(beside), keep=True)
            staged.replace(file)
        print(f"ready; {len(others)} others were asked, too", flush=True)
        # Whoever comes later may ask us.
        await router.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    leading = commands.add_parser("lead")
    leading.add_argument("file")
    working = commands.add_parser("work")
    for name in ("ticket", "file", "store"):
        working.add_argument(name)
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        if options.command == "lead":
            asyncio.run(lead(options.file))
        else:
            asyncio.run(work(options.ticket, options.file, options.store))
