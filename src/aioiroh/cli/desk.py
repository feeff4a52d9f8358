"""Serving everybody who comes for what is shared, and telling how far each is."""

from __future__ import annotations

import asyncio

from aioiroh.blobs import Hash, Imported, Provider, Store, TransferAborted, TransferEvent
from aioiroh.errors import LocallyClosedError
from aioiroh.quic import Connection

from . import amounts
from .display import Bar, Display, Part
from .guests import introduce
from .receivers import Receiver, Shared

__all__ = ["Desk"]


class Desk:
    """A protocol handler that serves a collection and nothing else."""

    def __init__(self, store: Store, shared: Imported, display: Display) -> None:
        self.finished = asyncio.Event()
        """Set once a receiver has got everything."""
        self._provider = Provider(store, on_transfer=self._on_transfer)
        self._display = display
        self._receivers: dict[int, _Served] = {}
        self._changed = asyncio.Event()
        self._collection = shared.collection
        self._changed_files: set[Hash] = set()
        sizes = {file.name: file.size for file in shared.files}
        names = shared.collection.names
        self._shared = Shared(
            shared.root.hash,
            [
                shared.root.size,
                len(shared.collection.metadata()),
                *(sizes[name] for name in names),
            ],
            names,
        )

    async def nobody_for(self, seconds: float) -> None:
        """Returns when nobody has been here for so long."""
        while True:
            try:
                async with asyncio.timeout(None if self._receivers else seconds):
                    await self._changed.wait()
            except TimeoutError:
                return
            self._changed.clear()

    async def shutdown(self) -> None:
        """Ends what is under way, so that receivers see a closed connection and no broken answer."""
        await self._provider.shutdown()

    async def accept(self, connection: Connection) -> None:
        """Handles one connection."""
        who, facts = introduce(connection, self._display)
        served = _Served(Receiver(self._shared), who, facts, self._display)
        self._receivers[connection.stable_id] = served
        self._changed.set()
        try:
            await self._provider.accept(connection)
        finally:
            del self._receivers[connection.stable_id]
            self._changed.set()
            if served.ended(connection.close_reason):
                self.finished.set()

    def _on_transfer(self, event: TransferEvent) -> None:
        if isinstance(event, TransferAborted) and event.lacking is not None:
            self._tell_changed(event.lacking)
        served = self._receivers.get(event.source.connection)
        if served is not None:
            served.handle(event)

    def _tell_changed(self, hash: Hash) -> None:
        """A file is no longer what it was when it was hashed; said once."""
        if hash in self._changed_files:
            return
        self._changed_files.add(hash)
        for name, its in self._collection:
            if its == hash:
                self._display.note(
                    f"{name} has been changed or taken away since it was shared, and is not sent "
                    "any more; send it anew to share it as it is now."
                )
                self._display.event("changed", name=name)


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
        self._bar.update(receiver.done, receiver.total, parts=self._in_flight)

    def _in_flight(self) -> list[Part]:
        return [Part(name, done, size) for name, done, size in self._receiver.in_flight]

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
