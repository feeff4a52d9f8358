"""`aioiroh.blobs` for programs that block."""

from __future__ import annotations

from typing import Any

from .namespace import names_of

__all__, _get = names_of("aioiroh.blobs", skip=frozenset())


def __getattr__(name: str) -> Any:
    value = _get(name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
