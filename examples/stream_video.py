"""Plays a video from a ticket while it is fetched: an HTTP server on this machine for any player.

    python examples/stream_video.py TICKET [NAME]      # prints a URL
    mpv URL

A player asks for ranges; each is fetched from the provider when it is asked for, verified, and kept, so
going back costs nothing. NAME is the file if the ticket is of a folder.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import mimetypes
import re
import tempfile

from aioiroh import Connection, Endpoint, blobs
from aioiroh.blobs import BlobFormat, BlobTicket, ChunkRanges, ChunkRangesSeq, Hash

PIECE = 1024 * 1024
"""Bytes that are fetched at a time."""
RANGE = re.compile(r"(?im)^range: *bytes=(\d*)-(\d*)\s*$")


class Video:
    """A blob of a provider, and what of it is here."""

    def __init__(self, connection: Connection, store: blobs.Store, hash: Hash, size: int) -> None:
        self.size = size
        self._connection = connection
        self._store = store
        self._hash = hash

    async def read(self, start: int, end: int) -> bytes:
        # The last chunk proves the size, without which the store gives out nothing.
        wanted = ChunkRanges.bytes(start, end) | ChunkRanges.last_chunk()
        ranges = ChunkRangesSeq.blob(wanted)
        await blobs.get(self._connection, self._hash, into=self._store, ranges=ranges)
        async with self._store.reader(self._hash) as reader:
            return await reader.read_at(start, end - start)


async def find(connection: Connection, store: blobs.Store, ticket: BlobTicket, name: str) -> Hash:
    """The hash of the ticket's blob, or of the file `name` in its folder."""
    if ticket.format is BlobFormat.RAW:
        return ticket.hash
    # The hash sequence and the blob with the names, and none of the files.
    ranges = ChunkRangesSeq([(0, ChunkRanges.all()), (2, ChunkRanges.empty())])
    await blobs.get(connection, ticket.content, into=store, ranges=ranges)
    collection = await blobs.load_collection(store, ticket.hash)
    for file, hash in collection:
        if file == name:
            return hash
    raise SystemExit(f"no file {name!r}; there are: {', '.join(collection.names)}")


async def answer(
    video: Video, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """One request on one connection."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    start, end, status = 0, video.size, "200 OK"
    asked = RANGE.search(head)
    if asked and (asked[1] or asked[2]):
        status = "206 Partial Content"
        if asked[1]:
            start = int(asked[1])
            end = min(int(asked[2]) + 1, video.size) if asked[2] else video.size
        else:
            start = max(0, video.size - int(asked[2]))
    if start >= end:
        start, end, status = 0, 0, "416 Range Not Satisfiable"
    headers = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {kind}",
        f"Content-Length: {end - start}",
        f"Content-Range: bytes {start}-{end - 1}/{video.size}" if end else "Accept-Ranges: bytes",
        "Accept-Ranges: bytes",
        "Connection: close",
    ]
    writer.write(("\r\n".join(headers) + "\r\n\r\n").encode())
    if not head.startswith("HEAD"):
        for at in range(start, end, PIECE):
            writer.write(await video.read(at, min(at + PIECE, end)))
            await writer.drain()


async def main(text: str, name: str) -> None:
    ticket = BlobTicket.parse(text)
    with tempfile.TemporaryDirectory() as folder:
        async with (
            await blobs.FileStore.open(folder) as store,
            Endpoint.bind() as endpoint,
            endpoint.connect(ticket, alpn=blobs.ALPN) as connection,
        ):
            hash = await find(connection, store, ticket, name)
            video = Video(connection, store, hash, await blobs.get_size(connection, hash))
            kind = mimetypes.guess_type(name)[0] or "application/octet-stream"

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                # A player that has seen enough closes the connection: no reason to end.
                with contextlib.suppress(ConnectionResetError, BrokenPipeError, EOFError):
                    await answer(video, kind, reader, writer)
                writer.close()

            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", flush=True)
            async with server:
                await connection.closed()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("ticket")
    parser.add_argument("name", nargs="?", default="")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(options.ticket, options.name))
