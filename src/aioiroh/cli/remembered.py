"""What `send` remembers of paths that it has shared: the key, the ports, the hashes of the files.

So the same paths get the same ticket again, as long as their content, the addresses of the machine
and the ports are the same. Each set of paths has a private folder below the user's state folder, which
one process uses at a time; what is not to be remembered gets one that is deleted at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aioiroh import SecretKey
from aioiroh.address import IpAddr
from aioiroh.blobs import Hash
from aioiroh.errors import AddressParsingError, BusyError, KeyParsingError

from .display import Display
from .workfolder import size_on_disk

try:
    import fcntl
except ImportError:  # Windows: there nobody can delete what another process has open
    fcntl = None  # type: ignore[assignment]

__all__ = ["Memory", "Remembered", "everything", "forget", "remember", "state_folder"]

ONCE: Final = "once-"
"""What folders begin with that are not to be remembered."""
MAX_FILE: Final = 1024 * 1024
"""Bytes of a remembered file that are read."""


@dataclass(slots=True)
class Memory:
    """What is remembered of one set of paths, in a private `folder`."""

    folder: Path
    secret: SecretKey
    ports: dict[str, int] = field(default_factory=dict)
    """The port last used on each local address."""
    hash: str | None = None
    """What was shared last time."""
    paths: Sequence[str] = ()
    own_key: bool = True
    """Whether the key is to be written down."""

    def addresses(self, wanted: Sequence[str]) -> list[str] | None:
        """Where to bind: as last time, where `wanted` (none: all addresses) leaves the port open.

        None: nothing is remembered of that.
        """
        if not wanted:
            return [IpAddr.from_pair(pair).text for pair in self.ports.items()] or None
        known = []
        for text in wanted:
            address = IpAddr.parse(text)
            port = address.port or self.ports.get(str(address.ip), 0)
            known.append(IpAddr.from_pair((str(address.ip), port)).text)
        return known if known != list(wanted) else None

    def save(self) -> None:
        """Writes it down. Raises OSError."""
        facts = {"paths": list(self.paths), "ports": self.ports, "hash": self.hash}
        if self.own_key:
            _write(self.folder / "key", self.secret.hex())
        _write(self.folder / "state.json", json.dumps(facts))


def state_folder() -> Path:
    """Where this user's programs keep what they remember (XDG_STATE_HOME)."""
    chosen = os.environ.get("XDG_STATE_HOME", "")
    if os.path.isabs(chosen):
        return Path(chosen) / "aioiroh"
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "aioiroh"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "aioiroh"
    return Path.home() / ".local" / "state" / "aioiroh"


@contextlib.contextmanager
def remember(
    paths: Sequence[Path] | None, secret: SecretKey | None, *, anew: bool, display: Display
) -> Iterator[Memory]:
    """What is remembered of the paths; without any, or if that cannot be, a new memory that is
    forgotten at the end. `anew`: whatever was remembered is replaced. `secret` is used if given.
    """
    with contextlib.ExitStack() as stack:
        memory: Memory | None = None
        root: Path | None = None
        try:
            root = state_folder() / "send"
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            _clear(root)
            if paths is not None:
                memory = _recall(stack, root, paths, secret, anew)
        except BusyError:
            display.note("Another process is sharing the same; this is a ticket of its own.")
        except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
            display.note(f"Nothing can be remembered ({error}); next time the ticket is another.")
            root = None
        if memory is None:
            folder = Path(tempfile.mkdtemp(prefix=ONCE, dir=root))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(_locked(folder))
            memory = Memory(folder, secret or SecretKey.generate())
        yield memory


@dataclass(frozen=True, slots=True)
class Remembered:
    """A set of paths that has a ticket: its folder, the paths, bytes on the disk."""

    folder: Path
    paths: Sequence[str]
    size: int


def everything() -> list[Remembered]:
    """All that is remembered. Raises OSError."""
    found = []
    root = state_folder() / "send"
    for folder in sorted(root.iterdir()) if root.exists() else ():
        if folder.name.startswith(ONCE):
            continue
        paths = _facts(folder).get("paths")
        texts = [str(path) for path in paths] if isinstance(paths, list) else []
        found.append(Remembered(folder, texts, size_on_disk(folder)))
    return found


def forget(known: Remembered) -> bool:
    """Removes what is remembered of paths; False if they are being shared. Raises OSError."""
    try:
        with _locked(known.folder):
            shutil.rmtree(known.folder)
    except BusyError:
        return False
    return True


def _recall(
    stack: contextlib.ExitStack,
    root: Path,
    paths: Sequence[Path],
    secret: SecretKey | None,
    anew: bool,
) -> Memory:
    real = sorted(os.path.realpath(path) for path in paths)
    folder = root / Hash.of(b"\0".join(map(os.fsencode, real))).hex()[:32]
    folder.mkdir(mode=0o700, exist_ok=True)
    stack.enter_context(_locked(folder))
    memory = Memory(folder, secret or SecretKey.generate(), own_key=secret is None)
    memory.paths = [path.encode("utf-8", "replace").decode() for path in real]
    if not anew:
        _load(memory, with_key=secret is None)
    return memory


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """BusyError: another process uses the folder."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BusyError(f"{folder} is in use") from None
        yield
    finally:
        os.close(lock)


def _clear(root: Path) -> None:
    """Removes what processes have left that died."""
    for folder in root.glob(f"{ONCE}*"):
        with contextlib.suppress(BusyError, OSError), _locked(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _load(memory: Memory, *, with_key: bool) -> None:
    """Takes in what the folder says. What cannot be read is as if it were not there."""
    if with_key:
        with contextlib.suppress(OSError, UnicodeDecodeError, KeyParsingError):
            memory.secret = SecretKey.parse(_read(memory.folder / "key").strip())
    facts = _facts(memory.folder)
    memory.hash = facts["hash"] if isinstance(facts.get("hash"), str) else None
    ports = facts.get("ports")
    for ip, port in ports.items() if isinstance(ports, dict) else ():
        with contextlib.suppress(AddressParsingError):
            if isinstance(port, int) and 0 < port < 65536:
                memory.ports[str(IpAddr.from_pair((ip, port)).ip)] = port


def _facts(folder: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        facts = json.loads(_read(folder / "state.json"))
        if isinstance(facts, dict):
            return facts
    return {}


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(MAX_FILE).decode()


def _write(path: Path, text: str) -> None:
    """Replaces a file, which only this user may read, in one step."""
    new = path.with_suffix(".new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    os.replace(new, path)
