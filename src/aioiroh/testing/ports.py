"""Which ports of a host are free, for UDP and TCP alike."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection

__all__ = ["FreePorts", "is_wildcard", "takes"]

Address = tuple[str, int]

FIRST_EPHEMERAL_PORT = 49_152
WILDCARDS = ("0.0.0.0", "::")


def is_wildcard(ip: str) -> bool:
    """Whether it stands for all addresses of its IP version."""
    return ip in WILDCARDS


def takes(bound: Address, destination: Address) -> bool:
    """Whether a socket that is bound so gets what is sent there."""
    ip, port = bound
    return port == destination[1] and (
        ip == destination[0] or (is_wildcard(ip) and (":" in ip) == (":" in destination[0]))
    )


class FreePorts:
    """Gives ports in their order, beginning again at the end."""

    def __init__(self) -> None:
        self._next = FIRST_EPHEMERAL_PORT

    def choose(self, wanted: Address, taken: Collection[Address]) -> Address:
        """The wanted address, with a port that is free if it has none. Raises OSError: it is taken."""
        ip, port = wanted
        if port:
            if any(_conflict(wanted, other) for other in taken):
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
            return wanted
        for _ in range(FIRST_EPHEMERAL_PORT, 65_536):
            port = self._next
            self._next = port + 1 if port < 65_535 else FIRST_EPHEMERAL_PORT
            if not any(_conflict((ip, port), other) for other in taken):
                return ip, port
        raise OSError(errno.EADDRINUSE, "all ports are in use")


def _conflict(one: Address, other: Address) -> bool:
    return takes(one, other) or takes(other, one)
