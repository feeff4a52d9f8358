"""Being at the relay before anybody is told to look there."""

from __future__ import annotations

import asyncio

from aioiroh import Endpoint

from .display import Display

__all__ = ["arrive"]

RELAY_SECONDS = 10.0
"""How long a relay is waited for before the ticket is shown."""


async def arrive(endpoint: Endpoint, display: Display) -> None:
    """Waits until receivers find us at the relay; without it we go on."""
    try:
        with display.bar("connecting to the relay"):
            async with asyncio.timeout(RELAY_SECONDS):
                await endpoint.online()
    except TimeoutError:
        status = endpoint.home_relay
        problem = "no answer" if status is None or status.problem is None else status.problem
        display.note(f"The relay cannot be used yet ({problem}); it is tried again and again.")
