"""`aioiroh ping --listen`: answer whoever asks."""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import dataclass

from aioiroh import Endpoint, EndpointTicket, Router, SecretKey, ping
from aioiroh.quic import Connection

from ..arriving import arrive
from ..display import Display
from ..failures import ExitCode
from ..relays import NONE_NAMED, RelayChoice
from ..run import Interrupts
from .ways import way_of

__all__ = ["ListenOptions", "answer_pings"]


@dataclass(frozen=True, slots=True)
class ListenOptions:
    """What was typed."""

    bind: tuple[str, ...] = ()
    relay: RelayChoice = NONE_NAMED
    secret: SecretKey | None = None


async def answer_pings(options: ListenOptions, display: Display, interrupts: Interrupts) -> int:
    """Writes a ticket and answers until it is interrupted."""
    async with Endpoint.bind(
        secret_key=options.secret,
        bind=options.bind or None,
        port_mapping=True,
        **options.relay.binding,
    ) as endpoint:
        if options.relay:
            await arrive(endpoint, display)
        guests = _Guests(display)
        async with Router(endpoint, {alpn: guests.accept for alpn in ping.HANDLERS}):
            ticket = str(EndpointTicket(endpoint.addr))
            display.event("ticket", ticket=ticket, id=str(endpoint.id))
            if sys.stdout.isatty():
                display.note("On the other machine:\n")
                display.result(f"aioiroh ping {ticket}\n")
            else:
                display.result(ticket)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if interrupts.received != signal.SIGINT:
                    raise
    return ExitCode.OK


class _Guests:
    """Tells who is here, and which way they come."""

    def __init__(self, display: Display) -> None:
        self._display = display

    async def accept(self, connection: Connection) -> None:
        watching = asyncio.create_task(self._watch(connection))
        try:
            await ping.answer(connection)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self, connection: Connection) -> None:
        known = None
        async for paths in connection.paths:
            way = way_of(paths)
            if way is not None and way != known:
                who = connection.remote_id
                self._display.note(f"{who.short()} comes {way}.")
                self._display.event(
                    "way", peer=str(who), connection=connection.stable_id, **way.facts
                )
                known = way
