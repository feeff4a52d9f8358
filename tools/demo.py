"""Sends a real folder from one process to another, as two people would, and compares every byte.

The folder is this project's own sources and documentation, and one file of 512 MiB of random bytes. What the
two commands print is theirs. The receiver gets the terminal for its progress bar; what the sender said
follows.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
AIOIROH = Path(sys.executable).with_name("aioiroh")
BIG_FILE_MIB = 512


def say(text: str) -> None:
    print(f"\n--- {text}", flush=True)


def make_folder(parent: Path) -> Path:
    folder = parent / "holiday-photos"
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "_build")
    for part in ("src", "docs", "rust"):
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    (folder / "empty file").touch()
    (folder / "naïve café ☕").write_text("names may be unicode\n", encoding="utf-8")
    with (folder / "big.bin").open("wb") as big:
        for _ in range(BIG_FILE_MIB):
            big.write(os.urandom(2**20))
    return folder


def hashes(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            found[path.relative_to(folder).as_posix()] = digest
    return found


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="aioiroh-demo-") as scratch:
        here, there = Path(scratch) / "here", Path(scratch) / "there"
        here.mkdir()
        there.mkdir()
        folder = make_folder(here)
        expected = hashes(folder)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        say(f"a folder of {len(expected)} files, {size / 2**20:.0f} MiB")

        say(f"aioiroh send {folder.name}")
        sender = subprocess.Popen(
            [AIOIROH, "send", folder.name],
            cwd=here,
            env={**os.environ, "XDG_STATE_HOME": scratch},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert sender.stdout is not None
            ticket = sender.stdout.readline().strip()
            if not ticket:
                raise SystemExit(f"send failed: {sender.communicate()[1]}")
            say(f"aioiroh receive {ticket[:24]}… -o there")
            started = time.monotonic()
            receive = [AIOIROH, "receive", ticket, "-o", there]
            if code := subprocess.run(receive, cwd=there, check=False).returncode:
                raise SystemExit(f"receive failed, exit code {code}")
            seconds = time.monotonic() - started
        finally:
            sender.send_signal(signal.SIGINT)
            try:
                said = sender.communicate(timeout=10)[1]
            except subprocess.TimeoutExpired:
                sender.kill()
                raise

        say("the sender said")
        print(said, end="")
        say("comparing the hash of every file")
        received = hashes(there / folder.name)
        for name in sorted(expected.keys() | received.keys()):
            if expected.get(name) != received.get(name):
                print(f"DIFFERENT: {name}")
        if received != expected:
            return 1
        print(f"all {len(expected)} files are the same on both sides; it took {seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
