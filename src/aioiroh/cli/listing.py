"""`aioiroh list`: what a ticket stands for, without fetching it."""

from __future__ import annotations

from aioiroh.blobs import MemoryStore

from . import amounts
from .contents import Sender, look
from .display import Display, visible
from .failures import ExitCode
from .placing import describe
from .stalling import give_up_when_silent

__all__ = ["list_content"]


async def list_content(
    sender: Sender, only: tuple[str, ...], verbose: int, display: Display
) -> int:
    """Writes the size and name of each file to standard output."""
    async with (
        MemoryStore() as store,
        sender.connected(display) as connection,
        give_up_when_silent(connection, sender.timeout),
    ):
        content = await look(connection, store, sender.ticket, display)
    chosen = content.chosen(only)
    for index in chosen:
        name, hash = content.collection[index]
        size = content.sizes[index]
        before = f"{hash} " if verbose else ""
        # Whoever wants names exactly as they are takes the events.
        display.result(f"{before}{amounts.size(size):>11}  {visible(name)}")
        display.event("listed", name=name, bytes=size, hash=str(hash))
    display.note(describe([content.sizes[index] for index in chosen]))
    display.event(
        "content",
        hash=str(sender.ticket.hash),
        files=len(content.sizes),
        bytes=content.payload,
        wanted_files=len(chosen),
        wanted_bytes=sum(content.sizes[index] for index in chosen),
    )
    return ExitCode.OK
