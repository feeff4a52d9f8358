"""`aioiroh send`: share files until nobody wants them any more."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from aioiroh import Endpoint, Router, SecretKey
from aioiroh.blobs import (
    ALPN,
    BlobFormat,
    BlobTicket,
    FileStore,
    Imported,
    ImportProgress,
    Provider,
    Store,
    TransferEvent,
    import_paths,
)
from aioiroh.errors import LocallyClosedError
from aioiroh.quic import Connection

from . import amounts
from .display import Bar, Display
from .failures import ExitCode
from .receivers import Receiver, Shared
from .run import Interrupts

__all__ = ["SendOptions", "send"]

MAX_NAMED: Final = 5
"""Names of what is shared that are spelled out."""


@dataclass(frozen=True, slots=True)
class SendOptions:
    """What was typed. `secret`: the endpoint's key; None: a new one."""

    paths: Sequence[Path]
    bind: Sequence[str] = ()
    secret: SecretKey | None = None
    once: bool = False
    verbose: int = 0


async def send(options: SendOptions, display: Display, interrupts: Interrupts) -> int:
    """Shares the paths until it is interrupted, or with `once` until one receiver has all."""
    stopped = False
    async with contextlib.AsyncExitStack() as stack:
        # The store only keeps hashes of large files there, 1/256 of their size.
        folder = tempfile.mkdtemp(prefix="aioiroh-send-")
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        store = await stack.enter_async_context(await FileStore.open(folder))
        endpoint = await stack.enter_async_context(
            Endpoint.bind(secret_key=options.secret, bind=options.bind or None)
        )
        shared = await _import(store, options.paths, display)
        _list(shared, options, display)
        desk = _Desk(store, shared, display)
        await stack.enter_async_context(Router(endpoint, {ALPN: desk}))
        ticket = BlobTicket(endpoint.addr, shared.root.hash, BlobFormat.HASH_SEQ)
        _announce(ticket, shared, options, display)
        try:
            await (desk.finished.wait() if options.once else asyncio.Event().wait())
        except asyncio.CancelledError:
            # Without --once there is no other way to end it.
            if options.once or interrupts.received != signal.SIGINT:
                raise
            stopped = True
    if stopped:
        display.note("Stopped.")
    return ExitCode.OK


async def _import(store: Store, paths: Sequence[Path], display: Display) -> Imported:
    with display.bar("hashing", "import") as bar:

        def advanced(progress: ImportProgress) -> None:
            bar.update(
                progress.bytes,
                progress.total_bytes,
                detail=f"{progress.files:,} of {amounts.counted(progress.total_files, 'file')}",
                files=progress.files,
                total_files=progress.total_files,
            )

        return await import_paths(store, paths, on_progress=advanced)


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
    what = _few(dict.fromkeys(name.split("/")[0] for name in shared.collection.names))
    count = f"{amounts.counted(len(shared.files), 'file')}, {amounts.size(shared.size)}"
    display.note(f"Sharing {what or 'an empty folder'} ({count}) at {', '.join(addresses)}.")
    if not shared.files:
        display.note("There is no file in it: the receiver will get nothing.")
    if sys.stdout.isatty():
        display.note("On the other machine:\n")
        display.result(f"aioiroh receive {ticket}\n")
    else:
        display.result(str(ticket))
    if display.is_interactive:
        until = "until one receiver has everything" if options.once else "until Ctrl-C"
        display.note(f"Keep this running; it serves {until}.")


def _few(names: Iterable[str]) -> str:
    """The first of the names, and how many more there are."""
    shown = list(names)
    more = len(shown) - MAX_NAMED
    return ", ".join(shown[:MAX_NAMED]) + (f" and {more:,} more" if more > 0 else "")


class _Desk:
    """Serves everybody who comes, and shows how far each is."""

    def __init__(self, store: Store, shared: Imported, display: Display) -> None:
        self.finished = asyncio.Event()
        """Set once a receiver has got everything."""
        self._provider = Provider(store, on_transfer=self._on_transfer)
        self._display = display
        self._receivers: dict[int, _Served] = {}
        sizes = {file.name: file.size for file in shared.files}
        names = shared.collection.names
        self._shared = Shared(
            shared.root.hash,
            [
                shared.root.size,
                len(shared.collection.metadata()),
                *(sizes[name] for name in names),
            ],
        )

    async def shutdown(self) -> None:
        """Ends what is under way, so that receivers see a closed connection and no broken answer."""
        await self._provider.shutdown()

    async def accept(self, connection: Connection) -> None:
        """Handles one connection."""
        who = connection.remote_id.short()
        paths = connection.paths.value
        address = f"{paths[0].remote[0]}" if paths else "unknown"
        facts: dict[str, object] = {
            "receiver": str(connection.remote_id),
            "connection": connection.stable_id,
        }
        self._display.event("connected", **facts, address=address)
        served = _Served(Receiver(self._shared), f"{who} at {address}", facts, self._display)
        self._receivers[connection.stable_id] = served
        try:
            await self._provider.accept(connection)
        finally:
            del self._receivers[connection.stable_id]
            if served.ended(connection.close_reason):
                self.finished.set()

    def _on_transfer(self, event: TransferEvent) -> None:
        served = self._receivers.get(event.source.connection)
        if served is not None:
            served.handle(event)


class _Served:
    """One connection on the display."""

    def __init__(
        self, receiver: Receiver, who: str, facts: dict[str, object], display: Display
    ) -> None:
        self._receiver = receiver
        self._who = who
        self._facts = facts
        self._display = display
        self._bar: Bar | None = None
        self._begun = 0.0

    def handle(self, event: TransferEvent) -> None:
        receiver = self._receiver
        if not receiver.handle(event):
            return
        if self._bar is None:
            self._begun = asyncio.get_running_loop().time()
            self._bar = self._display.bar(self._who, "progress", **self._facts)
        self._bar.update(receiver.done, receiver.total)

    def ended(self, reason: BaseException | None) -> bool:
        """The connection is over; says whether the receiver got everything."""
        receiver = self._receiver
        complete = receiver.has_all(reason)
        why = receiver.failure or reason
        if why is None or isinstance(reason, LocallyClosedError):
            why = "it was stopped here"
        if self._bar is not None:
            self._bar.close()
            seconds = asyncio.get_running_loop().time() - self._begun
            sent = amounts.size(receiver.done)
            if complete:
                took = amounts.duration(seconds)
                self._display.note(f"{self._who} has got everything: {sent} in {took}.")
            else:
                total = amounts.size(receiver.total)
                self._display.note(f"{self._who} left with {sent} of {total}: {why}.")
        self._display.event(
            "disconnected",
            **self._facts,
            complete=complete,
            bytes=receiver.done,
            reason=str(why),
        )
        return complete
