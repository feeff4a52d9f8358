"""`aioiroh receive`: fetch what a ticket names, verified, and put it in its place."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

from aioiroh import Endpoint
from aioiroh.blobs import (
    ALPN,
    BlobFormat,
    BlobTicket,
    ChunkRanges,
    ChunkRangesSeq,
    Collection,
    ErrorCode,
    FileStore,
    Store,
    check_export,
    export_collection,
    get,
    get_size,
    get_sizes,
    load_collection,
)
from aioiroh.errors import BusyError
from aioiroh.quic import Connection, TransportConfig

from . import amounts
from .display import Display
from .failures import ExitCode, Failure
from .stalling import give_up_when_silent

__all__ = ["ReceiveOptions", "receive"]

KEEP_ALIVE = 5.0
"""Seconds of silence after which a sign of life is asked for, as upstream does."""


@dataclass(frozen=True, slots=True)
class ReceiveOptions:
    """What was typed. `timeout`: seconds without an answer after which the sender is given up."""

    ticket: BlobTicket
    directory: Path
    overwrite: bool = False
    bind: tuple[str, ...] = ()
    timeout: float = 30.0
    verbose: int = 0


@dataclass(frozen=True, slots=True)
class _Content:
    """The files, the size of each, and `extra` bytes of what lists them."""

    collection: Collection
    sizes: tuple[int, ...]
    extra: int

    @property
    def payload(self) -> int:
        """Bytes of all files."""
        return sum(self.sizes)

    def __str__(self) -> str:
        return f"{amounts.counted(len(self.sizes), 'file')}, {amounts.size(self.payload)}"


async def receive(options: ReceiveOptions, display: Display) -> int:
    """Fetches the content of the ticket into the directory."""
    placed: list[Path] = []
    try:
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(_directory(options.directory))
            store = await stack.enter_async_context(await _open_store(options))
            connection = await stack.enter_async_context(_connection(options, display))
            begun = asyncio.get_running_loop().time()
            async with give_up_when_silent(connection, options.timeout):
                content = await _look(connection, store, options, display)
                received = await _fetch(connection, store, content, options, display)
            await _place(store, content, options, display, placed)
            seconds = asyncio.get_running_loop().time() - begun
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) or placed:
            what = f"only {amounts.counted(len(placed), 'file')}" if placed else "nothing"
            display.note(f"Interrupted: {what} was put into {options.directory}.")
        raise
    rate = amounts.rate(received / seconds) if seconds else "at once"
    display.note(f"Received {content} in {amounts.duration(seconds)} ({rate}), verified.")
    for top in dict.fromkeys(name.split("/")[0] for name in content.collection.names):
        display.result(str(options.directory / top))
    display.event(
        "done",
        files=len(content.sizes),
        bytes=content.payload,
        received_bytes=received,
        seconds=round(seconds, 3),
        directory=str(options.directory),
    )
    return ExitCode.OK


# --- getting ready ------------------------------------------------------------------------------


@contextlib.contextmanager
def _directory(directory: Path) -> Iterator[None]:
    """Makes the directory; takes away again what was made if nothing came into it."""
    made: list[Path] = []
    missing = directory.absolute()
    while not missing.exists():
        made.append(missing)
        missing = missing.parent
    directory.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()
        raise


async def _open_store(options: ReceiveOptions) -> FileStore:
    """What arrives is kept in a hidden folder, from where each file moves to its place at once."""
    folder = options.directory / f".aioiroh-receive-{options.ticket.hash.short()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    if not stat.S_ISDIR(state.st_mode) or (hasattr(os, "geteuid") and state.st_uid != os.geteuid()):
        # In a folder that many may write, somebody could wait for what arrives.
        raise Failure(f"{folder} is not ours; remove it, or choose another folder with -o")
    try:
        return await FileStore.open(folder)
    except BusyError:
        raise Failure(
            f"another receive of the same content into {options.directory} is running; "
            "wait for it, or choose another folder with -o",
            ExitCode.CONFLICT,
        ) from None


@contextlib.asynccontextmanager
async def _connection(options: ReceiveOptions, display: Display) -> AsyncIterator[Connection]:
    """The connection to the sender, which learns by a code whether it was of use."""
    ticket = options.ticket
    transport = TransportConfig(
        idle_timeout=options.timeout, keep_alive=min(KEEP_ALIVE, options.timeout / 3)
    )
    async with Endpoint.bind(bind=options.bind or None, transport=transport) as endpoint:
        display.event("connecting", sender=str(ticket.addr.id), hash=str(ticket.hash))
        with display.bar(f"connecting to {ticket.addr.id.short()}"):
            connection = await endpoint.connect(ticket, alpn=ALPN, timeout=options.timeout)
        async with connection:
            try:
                yield connection
            except BaseException:
                connection.close(ErrorCode.INTERNAL, b"not received")
                raise


# --- fetching -----------------------------------------------------------------------------------


async def _look(
    connection: Connection, store: Store, options: ReceiveOptions, display: Display
) -> _Content:
    """Learns what there is, and finds out whether it can be put where it is wanted."""
    with display.bar("asking what there is"):
        if options.ticket.format is BlobFormat.RAW:
            content = await _look_at_blob(connection, options.ticket)
        else:
            content = await _look_at_collection(connection, store, options.ticket)
    display.note(f"The sender has {content}.")
    display.event(
        "content",
        hash=str(options.ticket.hash),
        files=len(content.sizes),
        bytes=content.payload,
    )
    await check_export(content.collection, options.directory, overwrite=options.overwrite)
    _check_space(content, options.directory)
    if options.verbose:
        for name, hash in content.collection:
            display.note(f"{hash} {name}")
    return content


async def _look_at_blob(connection: Connection, ticket: BlobTicket) -> _Content:
    # It has no name but its hash.
    size = await get_size(connection, ticket.hash)
    return _Content(Collection([(str(ticket.hash), ticket.hash)]), (size,), 0)


async def _look_at_collection(connection: Connection, store: Store, ticket: BlobTicket) -> _Content:
    found = await get_sizes(connection, ticket.hash)
    sequence = bytes(found.sequence)
    await store.add_bytes(sequence, BlobFormat.HASH_SEQ)
    everything = ChunkRanges.all()
    names = ChunkRangesSeq.from_sets((everything, everything))
    await get(connection, ticket.content, into=store, ranges=names)
    collection = await load_collection(store, ticket.hash)
    return _Content(collection, found.sizes[1:], len(sequence) + sum(found.sizes[:1]))


def _check_space(content: _Content, directory: Path) -> None:
    # The hashes that go with large files take 1/256 of their size.
    needed = content.payload + content.payload // 256
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise Failure(
            f"not enough space in {directory}: {amounts.size(needed)} are needed and "
            f"{amounts.size(free)} are free; free some, or choose another folder with -o"
        )


async def _fetch(
    connection: Connection,
    store: Store,
    content: _Content,
    options: ReceiveOptions,
    display: Display,
) -> int:
    """Downloads everything; gives the number of bytes that came."""
    total = content.payload + content.extra
    with display.bar("receiving", "progress") as bar:
        transfer = get(connection, options.ticket.content, into=store)
        async for progress in transfer:
            bar.update(progress.bytes, total)
        return (await transfer).received


async def _place(
    store: Store,
    content: _Content,
    options: ReceiveOptions,
    display: Display,
    placed: list[Path],
) -> None:
    """Puts the files in their places; `placed` has those that are."""
    names, sizes = content.collection.names, content.sizes
    with display.bar("putting files in place") as bar:

        def on_file(index: int, path: Path) -> None:
            placed.append(path)
            display.event("file", name=names[index], path=str(path), bytes=sizes[index])
            bar.update(0, detail=f"{len(placed):,} of {amounts.counted(len(names), 'file')}")

        await export_collection(
            store,
            content.collection,
            options.directory,
            overwrite=options.overwrite,
            on_file=on_file,
        )
