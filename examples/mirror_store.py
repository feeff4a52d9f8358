"""Keeps a copy of another machine's store: every tag, and everything that the tags name.

    python examples/mirror_store.py serve STORE              # prints a ticket
    python examples/mirror_store.py mirror COPY TICKET       # as often as you like

Blobs travel by the protocol for blobs. The list of tags has a small protocol of its own: on each stream
the server sends one line for each tag, its name in hex and the content.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib

from aioiroh import BiStream, Connection, Endpoint, EndpointTicket, Router, blobs
from aioiroh.blobs import FileStore, HashAndFormat

TAGS = b"examples/tags/1"
MAX_LIST = 16 * 1024 * 1024


async def serve(folder: str) -> None:
    async with await FileStore.open(folder) as store, Endpoint.bind() as endpoint:

        async def list_tags(stream: BiStream) -> None:
            for name, content in store.tags.list():
                await stream.write(f"{name.hex()} {content}\n".encode())

        async def answer(connection: Connection) -> None:
            await connection.serve(list_tags)

        handlers = {TAGS: answer, blobs.ALPN: blobs.Provider(store)}
        async with Router(endpoint, handlers) as router:
            print(EndpointTicket(endpoint.addr), flush=True)
            await router.serve_forever()


async def mirror(folder: str, ticket: str) -> None:
    async with await FileStore.open(folder) as store, Endpoint.bind() as endpoint:
        async with (
            endpoint.connect(ticket, alpn=TAGS) as connection,
            connection.open_bi() as stream,
        ):
            await stream.finish()
            lines = (await stream.read_all(limit=MAX_LIST)).decode().splitlines()
        theirs: dict[bytes, HashAndFormat] = {}
        for line in lines:
            name, content = line.split(" ")
            theirs[bytes.fromhex(name)] = HashAndFormat.parse(content)

        received = 0
        async with endpoint.connect(ticket, alpn=blobs.ALPN) as connection:
            for name, content in theirs.items():
                # Only what is missing is fetched, also when a run was broken off.
                got = await blobs.get(connection, content, into=store)
                store.tags.set(name, content)
                received += got.received
        gone = [name for name, _ in store.tags.list() if name not in theirs]
        for name in gone:
            store.tags.delete(name)
        deleted = await store.collect_garbage()
        print(f"{len(theirs)} tags, {received} bytes received, {deleted} blobs deleted")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    serving = commands.add_parser("serve")
    mirroring = commands.add_parser("mirror")
    for command in (serving, mirroring):
        command.add_argument("store")
    mirroring.add_argument("ticket")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        if options.command == "serve":
            asyncio.run(serve(options.store))
        else:
            asyncio.run(mirror(options.store, options.ticket))
