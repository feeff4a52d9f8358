"""A relay: forwards datagrams between endpoints that cannot reach each other, or not yet.

    async with RelayServer.bind(http=("127.0.0.1", 3340)) as relay:
        print(relay.url)
        await relay.closed()

It speaks to upstream's clients as upstream's own relay does (relay protocol, sections 1 to 4). Who may come in
is decided by an `access` function; bytes are forwarded by native code.
"""

from aioiroh.relayserver.admission import Access, AccessRequest, Allow, Deny, everyone
from aioiroh.relayserver.certificate import Certificate
from aioiroh.relayserver.config import Config, ConfigError
from aioiroh.relayserver.configfile import parse_config, read_config
from aioiroh.relayserver.discovery import DiscoveryServer
from aioiroh.relayserver.limits import AcceptLimit, Limits, RateLimit
from aioiroh.relayserver.operation import RelayOperation
from aioiroh.relayserver.server import RelayServer

__all__ = [
    "AcceptLimit",
    "Access",
    "AccessRequest",
    "Allow",
    "Certificate",
    "Config",
    "ConfigError",
    "Deny",
    "DiscoveryServer",
    "Limits",
    "RateLimit",
    "RelayOperation",
    "RelayServer",
    "everyone",
    "parse_config",
    "read_config",
]
