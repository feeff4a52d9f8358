"""Relays as an endpoint uses them: servers that forward datagrams between peers."""

from aioiroh.relay.relays import Relays
from aioiroh.relay.server_url import ServerAddress, check_url
from aioiroh.relay.status import RelayState, RelayStatus

__all__ = ["RelayState", "RelayStatus", "Relays", "ServerAddress", "check_url"]
