"""`aioiroh blob provide`: serve what the store has until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aioiroh import Endpoint, Router, SecretKey
from aioiroh.blobs import (
    ALPN,
    BlobTicket,
    GetManyRequest,
    Hash,
    IncomingRequest,
    Provider,
    RequestKind,
    Store,
    TransferAborted,
    TransferCompleted,
    TransferEvent,
    TransferProgress,
)
from aioiroh.quic import Connection

from .. import amounts
from ..arriving import arrive
from ..display import Bar, Display
from ..failures import ExitCode
from ..guests import introduce
from ..relays import NONE_NAMED, RelayChoice
from ..run import Interrupts
from .content import Named, extent, find, hashes_of, require
from .place import opened

__all__ = ["ProvideOptions", "provide"]


@dataclass(frozen=True, slots=True)
class ProvideOptions:
    """What was typed. `tagged`: nothing but what has a tag. `secret`: the endpoint's key."""

    folder: Path
    whats: Sequence[str] = ()
    tagged: bool = False
    bind: Sequence[str] = ()
    relay: RelayChoice = NONE_NAMED
    secret: SecretKey | None = None


async def provide(options: ProvideOptions, display: Display, interrupts: Interrupts) -> int:
    """Serves the store, or a part of it, and prints a ticket for each content."""
    async with opened(options.folder) as store:
        offered = [find(store, what) for what in options.whats]
        for named in offered:
            await require(store, named)
        offered = offered or [Named(content, name) for name, content in store.tags.list()]
        allowed = None
        if options.whats or options.tagged:
            allowed = frozenset(await hashes_of(store, [named.content for named in offered]))
        desk = Desk(store, allowed, display)
        async with (
            Endpoint.bind(
                secret_key=options.secret,
                bind=options.bind or None,
                port_mapping=True,
                **options.relay.binding,
            ) as endpoint,
            Router(endpoint, {ALPN: desk}),
        ):
            if options.relay:
                await arrive(endpoint, display)
            addresses = [addr.text for addr in endpoint.addr.ip_addrs]
            what = "Serving the whole store" if allowed is None else "Serving"
            display.note(f"{what} at {', '.join(addresses)}:" if offered else f"{what}.")
            for named in offered:
                await _announce(named, endpoint, store, display)
            if display.is_interactive:
                display.note("Keep this running; it serves until Ctrl-C.")
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                # There is no other way to end it.
                if interrupts.received != signal.SIGINT:
                    raise
    display.note("Stopped.")
    return ExitCode.OK


async def _announce(named: Named, endpoint: Endpoint, store: Store, display: Display) -> None:
    content = named.content
    ticket = BlobTicket(endpoint.addr, content.hash, content.format)
    found = await extent(store, content)
    display.event(
        "ticket",
        ticket=str(ticket),
        name=None if named.tag is None else str(named),
        hash=str(content.hash),
        bytes=found.size,
        id=str(ticket.addr.id),
        addresses=[addr.text for addr in ticket.addr.ip_addrs],
    )
    display.note(f"{named}, {found}:")
    display.result(str(ticket))


class Desk:
    """Serves everybody who comes, and shows how much each has got."""

    def __init__(self, store: Store, allowed: frozenset[Hash] | None, display: Display) -> None:
        """`allowed`: the only blobs that are given out; None: all."""
        self._allowed = allowed
        self._display = display
        self._guests: dict[int, Guest] = {}
        self._provider = Provider(
            store,
            authorize=self._may,
            on_transfer=self._heard,
            serve={RequestKind.GET, RequestKind.GET_MANY, RequestKind.OBSERVE},
        )

    async def accept(self, connection: Connection) -> None:
        """Handles one connection."""
        who, facts = introduce(connection, self._display)
        number = connection.stable_id
        guest = self._guests[number] = Guest(who, facts, self._display)
        try:
            await self._provider.accept(connection)
        finally:
            del self._guests[number]
            guest.left()

    async def shutdown(self) -> None:
        """Ends what is under way."""
        await self._provider.shutdown()

    def _may(self, source: IncomingRequest) -> bool:
        if self._allowed is None:
            return True
        match source.request:
            case GetManyRequest(hashes=hashes):
                return self._allowed.issuperset(hashes)
            case request:
                return request.hash in self._allowed

    def _heard(self, event: TransferEvent) -> None:
        guest = self._guests.get(event.source.connection)
        if guest is not None:
            guest.handle(event)


class Guest:
    """One connection on the display."""

    def __init__(self, who: str, facts: dict[str, object], display: Display) -> None:
        self._who = who
        self._facts = facts
        self._display = display
        self._bar: Bar | None = None
        self._done = 0
        """Bytes of answers that are over."""
        self._under_way: dict[int, dict[int, int]] = {}
        """Bytes of each blob, by the stream of its answer."""
        self._broken: str | None = None

    def handle(self, event: TransferEvent) -> None:
        """Something happened to an answer."""
        stream = event.source.stream
        match event:
            case TransferProgress():
                self._under_way.setdefault(stream, {})[event.index] = event.end_offset
            case TransferCompleted() | TransferAborted():
                self._under_way.pop(stream, None)
                self._done += event.stats.payload_bytes
                if isinstance(event, TransferAborted):
                    self._broken = event.reason
        if self._bar is None:
            self._bar = self._display.bar(self._who, "progress", **self._facts)
        self._bar.update(self._sent)

    @property
    def _sent(self) -> int:
        return self._done + sum(sum(blobs.values()) for blobs in self._under_way.values())

    def left(self) -> None:
        """The connection is over."""
        if self._bar is not None:
            self._bar.close()
            broken = f"; an answer broke off: {self._broken}" if self._broken else ""
            self._display.note(f"{self._who} has got {amounts.size(self._sent)}{broken}.")
        self._display.event("disconnected", **self._facts, bytes=self._sent, reason=self._broken)
