"""Serves a folder to everybody who has the ticket, until Ctrl-C.

python examples/serve_folder.py photos
aioiroh receive TICKET                  # elsewhere
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib

from aioiroh import Endpoint, Router, blobs


async def main(folder: str) -> None:
    async with blobs.MemoryStore() as store, Endpoint.bind() as endpoint:
        # Files stay where they are; the store knows only their hashes.
        shared = await blobs.import_paths(store, [folder])
        ticket = blobs.BlobTicket(endpoint.addr, shared.root.hash, blobs.BlobFormat.HASH_SEQ)
        print(ticket, flush=True)

        def tell(event: object) -> None:
            match event:
                case blobs.TransferCompleted(source=source, stats=stats):
                    who = source.remote_id.short()
                    print(f"{who} has got {stats.payload_bytes} bytes", flush=True)

        provider = blobs.Provider(store, on_transfer=tell)
        async with Router(endpoint, {blobs.ALPN: provider}) as router:
            await router.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(parser.parse_args().folder))
