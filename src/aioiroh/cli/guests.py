"""Who has come: the same words and facts for everybody who serves."""

from __future__ import annotations

from aioiroh.quic import Connection

from .display import Display

__all__ = ["introduce"]


def introduce(connection: Connection, display: Display) -> tuple[str, dict[str, object]]:
    """Tells that somebody is here; gives who it is, for people, and the facts for later events."""
    paths = connection.paths.value
    address = f"{paths[0].remote[0]}" if paths else "unknown"
    facts: dict[str, object] = {
        "receiver": str(connection.remote_id),
        "connection": connection.stable_id,
    }
    display.event("connected", **facts, address=address)
    return f"{connection.remote_id.short()} at {address}", facts
