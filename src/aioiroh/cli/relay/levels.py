"""How much a server writes into its log."""

from __future__ import annotations

from typing import Final

__all__ = ["LEVELS", "level_from"]

LEVELS: Final = ("trace", "debug", "info", "warn", "error", "off")
"""As in upstream's `RUST_LOG`."""


def level_from(directives: str) -> str | None:
    """The level in a `RUST_LOG`: one for everything, or that of the relay; None: it says nothing of either.

    `info`, `iroh_relay=debug`, `warn,iroh_relay::server=debug` are such.
    """
    general = special = None
    for directive in directives.split(","):
        target, equals, level = directive.strip().rpartition("=")
        if level.lower() not in LEVELS:
            continue
        if not equals:
            general = level.lower()
        elif target.startswith("iroh_relay"):
            special = level.lower()
    return special or general
