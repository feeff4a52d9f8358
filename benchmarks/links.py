"""Processes behind links of limited bandwidth: each in a network namespace of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.peers import Process, command


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")


@contextmanager
def behind_link(kind: str, number: int, mbit: int) -> Iterator[tuple[Process, str]]:
    """A process of that kind which sends at most `mbit` Mbit/s, and the address it has.

    `number` (0 to 255) tells the links of one measurement apart. OSError: no link can be made here.
    """
    name, here, there = f"bench{number}", f"10.77.{number}.1", f"10.77.{number}.2"
    with Process(["unshare", "--net", *command(kind)]) as process:
        process("collect")  # when it answers, it is in its namespace
        inside = ("nsenter", "--target", str(process.pid), "--net")
        _run(*("ip", "link", "add", name, "type", "veth"), *("peer", "name", "uplink"))
        try:
            _run("ip", "link", "set", "dev", "uplink", "netns", str(process.pid))
            _run("ip", "address", "add", f"{here}/24", "dev", name)
            _run("ip", "link", "set", "dev", name, "up")
            _run(*inside, "ip", "address", "add", f"{there}/24", "dev", "uplink")
            _run(*inside, "ip", "link", "set", "dev", "uplink", "up")
            shape = ("rate", f"{mbit}mbit", "burst", "128kb", "latency", "50ms")
            _run(*inside, "tc", "qdisc", "add", "dev", "uplink", "root", "tbf", *shape)
            yield process, there
        finally:
            # The other end goes with it.
            subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False)
