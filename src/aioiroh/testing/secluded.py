"""An event loop that has nothing to do with the outside world."""

from __future__ import annotations

import asyncio
import functools
import selectors
from typing import NoReturn

__all__ = ["SecludedLoop"]

REFUSED = (
    "add_reader",
    "add_signal_handler",
    "add_writer",
    "connect_accepted_socket",
    "connect_read_pipe",
    "connect_write_pipe",
    "create_connection",
    "create_datagram_endpoint",
    "create_server",
    "create_unix_connection",
    "create_unix_server",
    "getaddrinfo",
    "getnameinfo",
    "run_in_executor",
    "sendfile",
    "sock_accept",
    "sock_connect",
    "sock_recv",
    "sock_recv_into",
    "sock_recvfrom",
    "sock_recvfrom_into",
    "sock_sendall",
    "sock_sendfile",
    "sock_sendto",
    "start_tls",
    "subprocess_exec",
    "subprocess_shell",
)
"""Methods of loops that wait for a descriptor, a thread, a process or a signal."""


class SecludedLoop(asyncio.SelectorEventLoop):
    """Refuses what would wait for something outside of the program, with NotImplementedError."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        super().__init__(selector)
        for name in REFUSED:
            setattr(self, name, functools.partial(_refuse, name))


def _refuse(name: str, *_arguments: object, **_options: object) -> NoReturn:
    raise NotImplementedError(
        f"{name} does not work in virtual time: threads, sockets, processes and signals follow "
        "another clock; use the virtual network, or a real event loop"
    )
