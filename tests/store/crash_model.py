"""A disk that remembers everything that was done to a store's folder, and can stop anywhere.

`Recorder` is the store's own I/O layer with a list of all that happened, in order: what the store
does by itself, what native code does (its journal), and a copy of the database after each
transaction. `states` replays the list up to a point and says what may be found there afterwards:
after a kill of the process everything that was done; after a loss of power only what was synced for
certain, and of the rest some, all or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aioiroh.blobs.store.file.disk import Disk
from aioiroh.blobs.store.worker import DiskWorker

DATABASE = "blobs.sqlite"
LOG = f"{DATABASE}-wal"


@dataclass(frozen=True)
class Event:
    """`kind`: create, truncate, write, rename, link, unlink, sync, commit, checkpoint, or a note of
    the test. Paths are below the folder that is recorded.
    """

    kind: str
    path: str = ""
    target: str = ""
    offset: int = 0
    data: bytes = field(default=b"", repr=False)
    note: Any = field(default=None, repr=False)


class Recorder(Disk):
    """Records below `root`, which holds the store's folder and where things are exported to."""

    def __init__(self, root: Path, boot: bytes) -> None:
        self.root = root
        self.boot_id = boot
        self.events: list[Event] = []
        self.worker: DiskWorker | None = None

    def boot(self) -> bytes:
        return self.boot_id

    def note(self, what: str, about: Any = None) -> None:
        """Something the test knows from here on."""
        self._add(Event("note", what, note=about))

    def write(self, path: Path, data: Any, *, append: bool = False) -> None:
        self._drain()
        fresh = not path.exists()
        offset = 0 if fresh or not append else path.stat().st_size
        super().write(path, data, append=append)
        name = self._name(path)
        self._add(Event("create" if fresh else "truncate" if not append else "reopen", name))
        self._add(Event("write", name, offset=offset, data=bytes(data)))

    def rename(self, source: Path, target: Path) -> None:
        self._drain()
        super().rename(source, target)
        self._add(Event("rename", self._name(source), self._name(target)))

    def link(self, source: Path, target: Path) -> None:
        self._drain()
        super().link(source, target)
        self._add(Event("link", self._name(source), self._name(target)))

    def unlink(self, *paths: Path) -> None:
        self._drain()
        super().unlink(*paths)
        for path in paths:
            self._add(Event("unlink", self._name(path)))

    def committed(self, database: Path) -> None:
        self._add(Event("commit", note=snapshot(database)))

    def checkpointed(self, database: Path) -> None:
        self._add(Event("checkpoint", note=snapshot(database)))

    def _add(self, event: Event) -> None:
        self._drain()
        self.events.append(event)

    def _drain(self) -> None:
        """What native code has done since."""
        if self.worker is not None:
            for kind, path, offset, data in self.worker.native.journal():
                event = Event(kind, self._name(Path(path)), offset=offset, data=data)
                self.events.append(event)

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.root))


def snapshot(database: Path) -> tuple[bytes, bytes]:
    log = database.with_name(LOG)
    return database.read_bytes(), log.read_bytes() if log.exists() else b""


@dataclass
class Inode:
    """A file's bytes: `synced` are on the disk, `writes` may be."""

    synced: bytearray = field(default_factory=bytearray)
    writes: list[tuple[int, bytes]] = field(default_factory=list)

    def content(self, writes: list[tuple[int, bytes]]) -> bytes:
        data = bytearray(self.synced)
        for offset, piece in writes:
            if len(data) < offset + len(piece):
                data.extend(bytes(offset + len(piece) - len(data)))
            data[offset : offset + len(piece)] = piece
        return bytes(data)

    def sync(self) -> None:
        self.synced = bytearray(self.content(self.writes))
        self.writes = []


class Replay:
    """The disk after the first events. Folders themselves are always there."""

    def __init__(self, database: tuple[bytes, bytes], store: str) -> None:
        self._store = store
        self.names: dict[str, Inode] = {}
        self.durable_names: dict[str, Inode] = {}
        # Changes of names since the folder was synced: (folder, name, inode or None).
        self.renamed: list[tuple[str, str, Inode | None]] = []
        self.databases = [database]

    def apply(self, event: Event) -> None:
        match event.kind:
            case "create":
                self._name(event.path, Inode())
            case "truncate":
                inode = self.names[event.path]
                inode.writes.append((0, b""))
                inode.synced = bytearray()
                inode.writes = []
            case "write":
                self.names[event.path].writes.append((event.offset, event.data))
            case "rename":
                inode = self.names[event.path]
                self._name(event.path, None)
                self._name(event.target, inode)
            case "link":
                self._name(event.target, self.names[event.path])
            case "unlink":
                if event.path in self.names:
                    self._name(event.path, None)
            case "sync":
                if event.path in self.names:
                    self.names[event.path].sync()
                else:
                    self._sync_folder(event.path)
            case "commit":
                self.databases.append(event.note)
            case "checkpoint":
                self.databases = [event.note]

    def _name(self, path: str, inode: Inode | None) -> None:
        if inode is None:
            del self.names[path]
        else:
            self.names[path] = inode
        self.renamed.append((str(Path(path).parent), path, inode))

    def _sync_folder(self, folder: str) -> None:
        left = []
        for change in self.renamed:
            if change[0] == folder:
                self._settle(self.durable_names, change)
            else:
                left.append(change)
        self.renamed = left

    @staticmethod
    def _settle(names: dict[str, Inode], change: tuple[str, str, Inode | None]) -> None:
        _, path, inode = change
        if inode is None:
            names.pop(path, None)
        else:
            names[path] = inode

    # --- what may be found afterwards -------------------------------------------------------------

    def killed(self) -> dict[str, bytes]:
        """The process is gone, the system is not: everything is there."""
        files = {path: inode.content(inode.writes) for path, inode in self.names.items()}
        return self._with_database(files, self.databases[-1])

    def powerless(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        """Some of what may be found after a loss of power, and what that is called."""
        choices = {
            "nothing that was not synced": (_none, _none, 0),
            "only the database": (_none, _none, -1),
            "names without data": (_all, _none, -1),
            "every other write, torn": (_all, _torn, -1),
            "data without names": (_none, _all, -1),
            "the last writes, without the first": (_all, _last, -1),
            "half of everything": (_half, _half, len(self.databases) // 2),
            "files newer than the database": (_all, _all, 0),
        }
        for name, (of_names, of_writes, database) in choices.items():
            names = dict(self.durable_names)
            for change in of_names(self.renamed):
                self._settle(names, change)
            files = {path: inode.content(of_writes(inode.writes)) for path, inode in names.items()}
            yield name, self._with_database(files, self.databases[database])

    def _with_database(
        self, files: dict[str, bytes], database: tuple[bytes, bytes]
    ) -> dict[str, bytes]:
        files[f"{self._store}/{DATABASE}"], files[f"{self._store}/{LOG}"] = database
        return files


def _none(items: list[Any]) -> list[Any]:
    return []


def _all(items: list[Any]) -> list[Any]:
    return items


def _half(items: list[Any]) -> list[Any]:
    return items[: len(items) // 2]


def _last(items: list[Any]) -> list[Any]:
    return items[(len(items) + 1) // 2 :]


def _torn(items: list[Any]) -> list[Any]:
    return [(offset, data[: len(data) // 2 + 1]) for offset, data in items[::2]]


def put_down(files: dict[str, bytes], root: Path) -> None:
    """Makes the files, for a store to be opened."""
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
