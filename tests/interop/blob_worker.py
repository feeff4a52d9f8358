"""One end of a transfer in a process of its own, to be killed: `get STORE TICKET` or `provide STORE FILE`.

Writes a JSON line for each thing that happened.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from aioiroh import Endpoint, Router, blobs
from aioiroh.blobs import BlobTicket, FileStore, Provider, TransferProgress


def tell(**event: Any) -> None:
    print(json.dumps(event), flush=True)


async def get(folder: str, ticket: str) -> None:
    content = BlobTicket.parse(ticket).content
    async with await FileStore.open(folder) as store, Endpoint.bind(bind="127.0.0.1:0") as endpoint:
        had = (await store.status(content.hash)).present.boundaries
        tell(had=had)
        transfer = blobs.get(endpoint, ticket, into=store)
        async for progress in transfer:
            tell(bytes=progress.bytes)
        tell(received=(await transfer).received)


async def provide(folder: str, file: str) -> None:
    def told(event: blobs.TransferEvent) -> None:
        if isinstance(event, TransferProgress):
            tell(bytes=event.end_offset)

    async with await FileStore.open(folder) as store, Endpoint.bind(bind="127.0.0.1:0") as endpoint:
        added = await store.add_file(Path(file))
        async with Router(endpoint, {blobs.ALPN: Provider(store, on_transfer=told)}):
            tell(ticket=str(BlobTicket(endpoint.addr, added.hash)))
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run({"get": get, "provide": provide}[sys.argv[1]](*sys.argv[2:]))
