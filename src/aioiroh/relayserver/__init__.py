"""A relay: forwards datagrams between endpoints that cannot reach each other, or not yet."""

from aioiroh.relayserver.discovery import DiscoveryServer

__all__ = ["DiscoveryServer"]
