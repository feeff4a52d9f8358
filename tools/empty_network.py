"""A network in which only loopback exists, for programs that would publish or dial addresses."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys

CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1


def enter_empty_namespace() -> str | None:
    """Moves this thread, and what it will start, into a network with only loopback; says why it cannot."""
    if not sys.platform.startswith("linux"):
        return "network namespaces are a thing of Linux"
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        libc = ctypes.CDLL(None, use_errno=True)
        flags = CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWNET | CLONE_NEWUSER
        if libc.unshare(flags) != 0:
            return f"no network namespace can be made: {os.strerror(ctypes.get_errno())}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = bytearray(struct.pack("16sh22x", b"lo", 0))
        fcntl.ioctl(control, SIOCGIFFLAGS, request)
        (state,) = struct.unpack_from("h", request, 16)
        struct.pack_into("h", request, 16, state | IFF_UP)
        fcntl.ioctl(control, SIOCSIFFLAGS, request)
    return None
