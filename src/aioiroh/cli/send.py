"""`aioiroh send`: share files until nobody wants them any more."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aioiroh import Endpoint, Router, SecretKey
from aioiroh.blobs import (
    ALPN,
    BlobFormat,
    BlobTicket,
    FileStore,
    Imported,
    Store,
    StoreFormatError,
)
from aioiroh.errors import BindError

from . import amounts
from .arriving import arrive
from .desk import Desk
from .display import Display
from .failures import ExitCode, Failure
from .importing import few, import_all, stdin_on
from .relays import NONE_NAMED, RelayChoice
from .remembered import Memory, remember
from .run import Interrupts
from .showing import qr_code
from .stdin import STDIN

__all__ = ["SendOptions", "send"]


@dataclass(frozen=True, slots=True)
class SendOptions:
    """What was typed. `secret`: the endpoint's key; None: the one of last time. `timeout`: seconds
    without anybody after which it ends; None: never.
    """

    paths: Sequence[Path]
    name: str = "stdin"
    """What standard input is called in the collection."""
    bind: Sequence[str] = ()
    relay: RelayChoice = NONE_NAMED
    secret: SecretKey | None = None
    new_ticket: bool = False
    once: bool = False
    timeout: float | None = None
    qr: bool = False
    clipboard: bool = False
    verbose: int = 0

    @property
    def has_stdin(self) -> bool:
        return STDIN in self.paths


async def send(options: SendOptions, display: Display, interrupts: Interrupts) -> int:
    """Shares the paths until it is interrupted, or ends by itself as the options say."""
    async with contextlib.AsyncExitStack() as stack:
        memory = stack.enter_context(
            remember(
                # What comes from standard input comes once.
                None if options.has_stdin else options.paths,
                options.secret,
                anew=options.new_ticket,
                display=display,
            )
        )
        store = await stack.enter_async_context(await _open_store(memory.folder / "store"))
        shared = await _import(store, options, display)
        if memory.hash not in (None, str(shared.root.hash)):
            await store.collect_garbage()
        _list(shared, options, display)
        endpoint = await stack.enter_async_context(await _bind(memory, options, display))
        if options.relay:
            await arrive(endpoint, display)
        desk = Desk(store, shared, display)
        await stack.enter_async_context(Router(endpoint, {ALPN: desk}))
        ticket = BlobTicket(endpoint.addr, shared.root.hash, BlobFormat.HASH_SEQ)
        _remember(memory, endpoint, ticket, display)
        _announce(ticket, shared, options, display)
        try:
            return await _serve(desk, options, display)
        except asyncio.CancelledError:
            # Without --once there is no other way to end it.
            if options.once or interrupts.received != signal.SIGINT:
                raise
    display.note("Stopped.")
    return ExitCode.OK


async def _open_store(folder: Path) -> FileStore:
    """The hashes of the files as they were last time; they can be made again."""
    try:
        return await FileStore.open(folder, durable=False)
    except (StoreFormatError, OSError):
        shutil.rmtree(folder, ignore_errors=True)
        return await FileStore.open(folder, durable=False)


async def _bind(memory: Memory, options: SendOptions, display: Display) -> Endpoint:
    """An endpoint with the ports of last time, if they are free."""
    known = memory.addresses(options.bind)
    if known is not None:
        try:
            return await Endpoint.bind(
                secret_key=memory.secret,
                bind=known,
                port_mapping=True,
                **options.relay.binding,
            )
        except BindError as error:
            display.note(
                f"The ports of last time are not free ({error}); so the ticket is another."
            )
    return await Endpoint.bind(
        secret_key=memory.secret,
        bind=options.bind or None,
        port_mapping=True,
        **options.relay.binding,
    )


def _remember(memory: Memory, endpoint: Endpoint, ticket: BlobTicket, display: Display) -> None:
    """Writes down what it takes to make this ticket again."""
    if memory.hash is not None and memory.hash != str(ticket.hash):
        display.note("The content is not that of last time, and so the ticket is another.")
    memory.hash = str(ticket.hash)
    memory.ports = {slot.host: slot.port for slot in endpoint.bound_sockets}
    try:
        memory.save()
    except OSError as error:
        display.note(f"Nothing can be remembered ({error}); next time the ticket is another.")


async def _serve(desk: Desk, options: SendOptions, display: Display) -> int:
    """Serves until one receiver has everything, if only one is to come, or nobody comes any more."""
    done = asyncio.ensure_future(desk.finished.wait()) if options.once else None
    left = (
        None if options.timeout is None else asyncio.ensure_future(desk.nobody_for(options.timeout))
    )
    waits = [task for task in (done, left) if task is not None]
    try:
        if not waits:
            await asyncio.Event().wait()
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waits:
            task.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
    if desk.finished.is_set():
        if left is not None and not options.once:
            display.note("Nobody came any more.")
        return ExitCode.OK
    assert options.timeout is not None
    raise Failure(
        f"nobody has come for {amounts.duration(options.timeout)} and got everything",
        ExitCode.NO_CONNECTION,
    )


async def _import(store: Store, options: SendOptions, display: Display) -> Imported:
    paths = [path for path in options.paths if path != STDIN]
    with display.bar("hashing", "import") as bar:
        streams = {options.name: stdin_on(bar)} if options.has_stdin else None
        return await import_all(store, paths, bar, display, streams=streams)


def _list(shared: Imported, options: SendOptions, display: Display) -> None:
    if options.verbose:
        for name, hash in shared.collection:
            display.note(f"{hash} {name}")


def _announce(ticket: BlobTicket, shared: Imported, options: SendOptions, display: Display) -> None:
    addresses = [addr.text for addr in ticket.addr.ip_addrs]
    display.event(
        "ticket",
        ticket=str(ticket),
        hash=str(ticket.hash),
        files=len(shared.files),
        bytes=shared.size,
        id=str(ticket.addr.id),
        addresses=addresses,
    )
    what = few(dict.fromkeys(name.split("/")[0] for name in shared.collection.names))
    count = f"{amounts.counted(len(shared.files), 'file')}, {amounts.size(shared.size)}"
    display.note(f"Sharing {what or 'an empty folder'} ({count}) at {', '.join(addresses)}.")
    if not shared.files:
        display.note("There is no file in it: the receiver will get nothing.")
    if sys.stdout.isatty():
        display.note("On the other machine:\n")
        display.result(f"aioiroh receive {ticket}\n")
    else:
        display.result(str(ticket))
    if options.clipboard and display.copy(f"aioiroh receive {ticket}"):
        display.note("It is in the clipboard, if your terminal allows that.")
    if options.qr:
        display.note(qr_code(str(ticket)))
    if display.is_interactive:
        until = "until one receiver has everything" if options.once else "until Ctrl-C"
        display.note(f"Keep this running; it serves {until}.")
