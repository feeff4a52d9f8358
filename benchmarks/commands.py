"""What people type: `aioiroh`, `sendme` and `wormhole`, from the sender's start to the receiver's end."""

from __future__ import annotations

import compileall
import filecmp
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from random import Random

import upstream
from benchmarks.blobs import random_file, scratch
from benchmarks.steps import Plan, Section, Step, interleaved
from benchmarks.table import number, ratio

KINDS = ("aioiroh", "sendme", "wormhole")
TICKET = re.compile(r"blob[a-z2-7]{50,}|(?<=wormhole receive )[0-9]\S*")
MAILBOX_PORT = 4000

AIOIROH = [sys.executable, "-m", "aioiroh"]
WORMHOLE = [
    *(sys.executable, "-m", "wormhole"),
    *("--relay-url", f"ws://127.0.0.1:{MAILBOX_PORT}/v1"),
    # Nobody is there: the two reach each other directly.
    *("--transit-helper", "tcp:127.0.0.1:9"),
]


def send_command(kind: str, path: Path) -> list[str]:
    """Shares a path and writes how to fetch it."""
    match kind:
        case "aioiroh":
            return [*AIOIROH, "send", "--bind", "127.0.0.1:0", str(path)]
        case "sendme":
            sendme = str(upstream.program("sendme", release=True).path)
            quiet = ["--relay", "disabled", "--no-progress", "--ticket-type", "addresses"]
            return [sendme, "send", str(path), *quiet]
        case _:
            return [*WORMHOLE, "send", "--hide-progress", "--no-qr", str(path)]


def receive_command(kind: str, ticket: str) -> list[str]:
    """Fetches into the current folder."""
    match kind:
        case "aioiroh":
            return [*AIOIROH, "receive", "--bind", "127.0.0.1:0", ticket]
        case "sendme":
            sendme = str(upstream.program("sendme", release=True).path)
            return [sendme, "receive", ticket, "--relay", "disabled", "--no-progress"]
        case _:
            return [*WORMHOLE, "receive", "--hide-progress", "--accept-file", ticket]


@contextmanager
def sender(kind: str, path: Path, work: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that shares the path, and its ticket. It knows nothing of earlier ones."""
    process = subprocess.Popen(
        send_command(kind, path),
        cwd=work,
        env=at_home(work),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        said = ""
        while not (found := TICKET.search(said)):
            line = process.stdout.readline()
            if not line:
                raise OSError(f"{kind} sends nothing: {said}")
            said += line
        yield process, found[0]
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def at_home(work: Path) -> dict[str, str]:
    """An environment in which nothing is left from before."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("XDG_")}
    # Names are Unicode also where a machine has no locale set.
    return {**kept, "HOME": str(work), "TMPDIR": str(work), "PYTHONUTF8": "1"}


def transfer(kind: str, source: Path, plan: Plan, *, compare: bool = False) -> float:
    """Seconds from the sender's start to the receiver's end."""
    with scratch(plan) as here, scratch(plan) as there:
        started = time.perf_counter()
        with sender(kind, source, here) as (_process, ticket):
            subprocess.run(
                receive_command(kind, ticket),
                cwd=there,
                env=at_home(there),
                check=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            seconds = time.perf_counter() - started
        if compare and not same(source, there / source.name):
            raise OSError(f"{kind} did not deliver what was sent")
    return seconds


def same(one: Path, other: Path) -> bool:
    """Whether two files, or all files of two folders, have the same content."""
    if one.is_file():
        return filecmp.cmp(one, other, shallow=False)
    names = [path.relative_to(one) for path in one.rglob("*") if path.is_file()]
    return all(filecmp.cmp(one / name, other / name, shallow=False) for name in names)


@contextmanager
def mailbox(plan: Plan) -> Iterator[None]:
    """The server over which the two ends of a wormhole find each other."""
    with scratch(plan) as folder:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "twisted", "wormhole-mailbox"),
                f"--port=tcp:{MAILBOX_PORT}:interface=127.0.0.1",
                *("--channel-db=:memory:", "--usage-db=:memory:"),
            ],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            until = time.monotonic() + 15
            while True:
                try:
                    socket.create_connection(("127.0.0.1", MAILBOX_PORT), timeout=1).close()
                    break
                except OSError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.05)
            yield
        finally:
            process.kill()
            process.wait()


# --- the table ----------------------------------------------------------------------------------


def many_files(folder: Path, count: int, size: int) -> Path:
    """A folder of `count` files in folders of 100, `size` bytes in all, none like another."""
    random = Random(1)
    sizes = [random.randrange(2 * size // count) for _ in range(count)]
    for index, length in enumerate(sizes):
        path = folder / f"{index // 100}" / f"file {index}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.randbytes(length))
    return folder


def compile_ours() -> None:
    """Byte code beside our sources, as an installer leaves it, whatever the environment says of it."""
    for folder in find_spec("aioiroh").submodule_search_locations:
        compileall.compile_dir(folder, quiet=2)


def rows(plan: Plan, source: Path, seconds: float, reach: str) -> list[str]:
    compile_ours()
    unseen = set(KINDS)

    def one(kind: str) -> float:
        compare = kind in unseen
        unseen.discard(kind)
        return transfer(kind, source, plan, compare=compare)

    with mailbox(plan):
        found = interleaved(KINDS, min(5, plan.rounds), seconds, one)
    return [
        str(len(found["aioiroh"])),
        *(number(statistics.median(found[kind])) for kind in KINDS),
        ratio(found["aioiroh"], found["sendme"]),
        ratio(found["aioiroh"], found["wormhole"]),
        reach,
    ]


def _file(plan: Plan) -> Sequence[str]:
    with scratch(plan) as folder:
        source = random_file(folder / "a file", plan.size(1 << 30, 1 << 26))
        return rows(plan, source, 150, "≤ 0.4 × sendme, ≤ 0.85 × wormhole")


def _folder(plan: Plan) -> Sequence[str]:
    with scratch(plan) as folder:
        count = plan.size(3000, 300)
        source = many_files(folder / "a folder", count, count * 35_000_000 // 3000)
        return rows(plan, source, 90, "≤ 0.5 × sendme, ≤ 0.9 × wormhole")


SECTION = Section(
    (
        *("sender's start to receiver's end (s)", "rounds", "aioiroh", "sendme", "magic-wormhole"),
        *("ours : sendme", "ours : wormhole", "reach"),
    ),
    (
        Step("send_file", "1 GiB, one file", _file),
        Step("send_folder", "3,000 files, 35 MB", _folder),
    ),
)
