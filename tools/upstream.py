"""Upstream's programs for the interop tests and benchmarks: build them once, say where they are.

    python tools/upstream.py build [--release] [NAME…]
    python tools/upstream.py path NAME [--release]

They lie in the cache folder, in a folder named after the version, the compiler and, for our own small
peer, its sources; so whatever changes, the old program is never taken for the new one. Tests get a build
that compiles fast; `--release` is the one to measure against.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEER = ROOT / "tests" / "interop" / "peer"
CRATES = {"sendme": "0.37.1", "iroh-relay": "1.4.1", "b3sum": "1.8.7", "s3s-fs": "0.14.1"}
"""What is installed from its crate, and the version. The last is an S3 server over a folder."""
FEATURES = {"iroh-relay": "server", "s3s-fs": "binary"}
INHERITS = '"release"'
FAST_PROFILE = {
    "inherits": INHERITS,
    "opt-level": "1",
    "debug": "false",
    "strip": '"debuginfo"',
    "lto": '"off"',
    "codegen-units": "256",
    "incremental": "false",
    "panic": '"unwind"',
}


def cache() -> Path:
    """The folder that holds everything compiled; it may be deleted at any time."""
    return Path(os.environ.get("AIOIROH_CACHE") or Path.home() / ".cache" / "aioiroh")


def _compiler() -> bytes:
    return subprocess.run(["rustc", "-V"], capture_output=True, check=True).stdout


def _peer_sources() -> bytes:
    digest = hashlib.sha256()
    paths = [*PEER.glob("src/**/*.rs"), *PEER.glob("**/Cargo.toml"), PEER / "Cargo.lock"]
    for path in sorted(paths):
        digest.update(path.relative_to(PEER).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.digest()


@dataclass(frozen=True)
class Program:
    """One program: its name, what makes a build of it different from another, how cargo builds it."""

    name: str
    release: bool

    @property
    def profile(self) -> str:
        # Not "release" itself: cargo lets only one build at a time into a profile's folder, and
        # these take minutes.
        return "measured" if self.release else "interop"

    @property
    def settings(self) -> dict[str, str]:
        """The profile, for crates that do not have it in their own Cargo.toml."""
        return {"inherits": INHERITS} if self.release else FAST_PROFILE

    @functools.cached_property
    def folder(self) -> Path:
        what = "-".join(filter(None, (self.name, CRATES.get(self.name))))
        digest = hashlib.sha256(_compiler() + repr(FAST_PROFILE).encode())
        if self.name not in CRATES:
            digest.update(_peer_sources())
        return cache() / "upstream" / f"{what}-{self.profile}-{digest.hexdigest()[:12]}"

    @property
    def path(self) -> Path:
        """Where the program is once it has been built."""
        return self.folder / "bin" / self.name

    def build(self) -> None:
        """Builds the program unless it is there; another process building it is waited for."""
        folder, target = self.folder, cache() / "target"
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.path.exists():
                return
            started = time.monotonic()
            env = {**os.environ, "CARGO_TARGET_DIR": str(target)}
            flags = ["--locked", "--profile", self.profile]
            if self.name in CRATES:
                command = ["cargo", "install", self.name, "--version", CRATES[self.name], *flags]
                command += ["--root", str(folder), "--no-track"]
                command += ["--features", FEATURES.get(self.name, "")]
                for key, value in self.settings.items():
                    command += ["--config", f"profile.{self.profile}.{key}={value}"]
                subprocess.run(command, check=True, env=env)
            else:
                self._build_peer(target, env, flags)
            print(f"{self.name} ({self.profile}) built in {time.monotonic() - started:.0f} s")

    def _build_peer(self, target: Path, env: dict[str, str], flags: list[str]) -> None:
        # Clones that share the cache share what cargo keeps of this package, and cargo goes by the
        # times of files: what another clone built last must not pass for ours.
        with (cache() / "upstream" / ".peer-lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for path in PEER.glob("src/**/*.rs"):
                path.touch()
            # The profile of the same name is written down in the peer's own Cargo.toml.
            command = ["cargo", "build", "--package", self.name, *flags]
            subprocess.run(command, check=True, env=env, cwd=PEER)
            self.path.parent.mkdir(exist_ok=True)
            built = target / self.profile / self.name
            shutil.copy2(built, self.path.with_suffix(".new"))
            self.path.with_suffix(".new").rename(self.path)


NAMES = ("iroh-peer", "iroh-peer-103", *CRATES)
"""The second is the first over the iroh-blobs before (0.103): the same sources, the same iroh."""


def program(name: str, *, release: bool = False) -> Program:
    """The program called `name` (one of NAMES), whether built or not."""
    if name not in NAMES:
        raise ValueError(f"no such program: {name}; there are {', '.join(NAMES)}")
    return Program(name, release)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("action", choices=["build", "path"])
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--release", action="store_true", help="optimised, for measurements")
    arguments = parser.parse_intermixed_args()
    # What is only tested against, and what is only measured against.
    unused = ("iroh-peer-103", "s3s-fs") if arguments.release else ("b3sum",)
    default = [name for name in NAMES if name not in unused]
    for name in arguments.names or default:
        chosen = program(name, release=arguments.release)
        if arguments.action == "build":
            chosen.build()
        else:
            print(chosen.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
