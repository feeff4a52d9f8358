"""Address lookup: finding out where an endpoint is when only its id is known."""

from __future__ import annotations

from aioiroh.lookup.filters import AddrFilter, ip_only, relay_only
from aioiroh.lookup.memory import MemoryLookup
from aioiroh.lookup.registry import LookupRegistry
from aioiroh.lookup.service import EndpointData, LookupContext, LookupItem, LookupService

__all__ = [
    "AddrFilter",
    "EndpointData",
    "LookupContext",
    "LookupItem",
    "LookupRegistry",
    "LookupService",
    "MemoryLookup",
    "ip_only",
    "relay_only",
]
