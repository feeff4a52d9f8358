"""Network namespaces without a name: they go when nobody is in them any more.

A namespace is a file descriptor of this process, so nothing of it is left behind after a failure, Ctrl-C or
a kill, and labs that run side by side cannot meet.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

CLONE_NEWNET = 0x40000000
NETLINK_NETFILTER = 12
CONNTRACK_DELETE = (1 << 8) | 2
REQUEST_AND_ACKNOWLEDGE = 1 | 4

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    """The lab cannot be built."""


def missing() -> str | None:
    """What this machine lacks for the lab, None if nothing."""
    if not sys.platform.startswith("linux"):
        return "the lab is made of network namespaces, a thing of Linux"
    for tool, package in (("ip", "iproute2"), ("nft", "nftables"), ("openssl", "openssl")):
        if shutil.which(tool) is None:
            return f"the lab needs the program {tool} (Debian: apt install {package})"
    try:
        with Namespace("trial") as trial:
            trial.ip("link add name trial type veth peer name other")
            trial.nft("table ip trial {\n chain c { type nat hook postrouting priority 0; }\n}\n")
    except (LabError, OSError) as error:
        return f"the lab needs root and a kernel with namespaces, veth and nftables: {error}"
    return None


def _enter(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "cannot enter a network namespace")


def _fresh() -> int:
    """The descriptor of a new namespace; the calling thread stays where it is."""
    made: list[int | OSError] = []

    def work() -> None:
        if _libc.unshare(CLONE_NEWNET) != 0:
            made.append(OSError(ctypes.get_errno(), "cannot make a network namespace"))
        else:
            made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


class Namespace:
    """A network of its own, with loopback. As a context manager it is let go at the end."""

    def __init__(self, name: str) -> None:
        """Raises OSError."""
        self.name = name
        self._fd = _fresh()
        self.ip("link set dev lo up")

    @property
    def path(self) -> str:
        """Where other programs find it while this object lives."""
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    @property
    def prefix(self) -> list[str]:
        """What has to stand before a command so that it runs inside, and ends with this process."""
        return ["setpriv", "--pdeathsig", "KILL", "--", "nsenter", f"--net={self.path}", "--"]

    @contextmanager
    def inside(self) -> Iterator[None]:
        """The calling thread is inside; there must be no `await` meanwhile."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(self._fd)
            try:
                yield
            finally:
                _enter(home)
        finally:
            os.close(home)

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Runs a coroutine inside to its end, on an event loop of its own in a thread of its own."""

        def task() -> T:
            _enter(self._fd)
            return asyncio.run(work())

        # Not a thread that does something else later: it stays in the namespace.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(task).result()

    def _run(self, command: list[str], text: str) -> None:
        with self.inside():
            done = subprocess.run(command, check=False, input=text, text=True, capture_output=True)
        if done.returncode != 0:
            raise LabError(f"{self.name}: {' '.join(command)}: {done.stderr}\n{text}")

    def ip(self, *lines: str) -> None:
        """Commands of `ip`, in one go. Raises LabError."""
        self._run(["ip", "-batch", "-"], "\n".join(lines) + "\n")

    def tc(self, *lines: str) -> None:
        """Commands of `tc`. Raises LabError."""
        self._run(["tc", "-batch", "-"], "\n".join(lines) + "\n")

    def nft(self, rules: str) -> None:
        """Rules of nftables, all or none. Raises LabError."""
        self._run(["nft", "-f", "-"], rules)

    def sysctl(self, name: str, value: int) -> None:
        with self.inside():
            Path("/proc/sys/net", name).write_text(f"{value}\n")

    def forget_connections(self) -> None:
        """Empty the table of tracked connections, and with it every mapping of a NAT."""
        header = struct.pack("=IHHII", 20, CONNTRACK_DELETE, REQUEST_AND_ACKNOWLEDGE, 1, 0)
        with (
            self.inside(),
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as netlink,
        ):
            netlink.sendto(header + bytes(4), (0, 0))
            (error,) = struct.unpack_from("=i", netlink.recv(4096), 16)
        if error != 0:
            raise LabError(f"{self.name}: connections are not forgotten: {os.strerror(-error)}")

    def close(self) -> None:
        """Let go; it ends when the last process in it has ended. May be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
