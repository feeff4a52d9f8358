"""A network in which only loopback exists, for programs that would publish or dial addresses."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import sys
from pathlib import Path

CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1


def enter_empty_namespace() -> str | None:
    """Moves this process into a network of its own with only loopback; says why it cannot.

    A process that has started threads leaves them behind. Where none can be made, one in which the
    process was started will do.
    """
    if not sys.platform.startswith("linux"):
        return "network namespaces are a thing of Linux"
    problem = _unshare()
    if [name for _, name in socket.if_nameindex()] != ["lo"]:
        return f"no network namespace can be made: {problem}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = bytearray(struct.pack("16sh22x", b"lo", 0))
        fcntl.ioctl(control, SIOCGIFFLAGS, request)
        (state,) = struct.unpack_from("h", request, 16)
        if not state & IFF_UP:
            struct.pack_into("h", request, 16, state | IFF_UP)
            fcntl.ioctl(control, SIOCSIFFLAGS, request)
    return None


def _unshare() -> str | None:
    """A new network namespace; says why there is none."""
    user, group = os.geteuid(), os.getegid()
    flags = CLONE_NEWNET if user == 0 else CLONE_NEWNET | CLONE_NEWUSER
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        return os.strerror(ctypes.get_errno())
    if user != 0:
        # Who we are stays the same.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return None
