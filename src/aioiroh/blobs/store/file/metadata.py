"""The database of a file store: which blobs there are, where they are, and what they are called.

Used on the loop: a look is a few microseconds, a change some hundred. Changes are collected and
made in transactions of at most `ROWS` rows, which are not synced (WAL, synchronous=NORMAL): they
survive the process at once, and the system as soon as a checkpoint, in a thread, has synced them.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ...hash import BlobFormat, Hash, HashAndFormat
from .layout import APPLICATION, VERSION
from .rows import Kind, Reference, Row, pack_present, unpack_present

if TYPE_CHECKING:
    import sqlite3

__all__ = ["ROWS", "Metadata"]

ROWS: Final = 50
"""Rows changed in one transaction."""
BYTES: Final = 128 * 1024
"""Bytes of blobs and outboards that are enough for a transaction, however few rows."""

PAGE: Final = 4096

_SCHEMA: Final = (
    """CREATE TABLE blobs (
        id INTEGER PRIMARY KEY,
        hash BLOB NOT NULL UNIQUE,
        kind INTEGER NOT NULL,
        size INTEGER,
        written BLOB,
        writing INTEGER NOT NULL,
        present BLOB,
        outboard BLOB,
        data BLOB
    )""",
    "CREATE INDEX unsynced ON blobs (written) WHERE written IS NOT NULL",
    """CREATE TABLE files (
        path BLOB PRIMARY KEY,
        hash BLOB NOT NULL,
        size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL,
        inode INTEGER NOT NULL
    ) WITHOUT ROWID""",
    "CREATE INDEX files_by_hash ON files (hash)",
    "CREATE TABLE tags (name BLOB PRIMARY KEY, hash BLOB NOT NULL, format INTEGER NOT NULL)",
)
_COLUMNS: Final = "hash, kind, size, written, writing, present, outboard"
_PUT: Final = (
    "INSERT INTO blobs (hash, kind, size, written, writing, present, outboard, data)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (hash) DO UPDATE SET kind = excluded.kind,"
    " size = excluded.size, written = excluded.written, writing = excluded.writing,"
    " present = excluded.present, outboard = excluded.outboard, data = excluded.data"
)

_PUT_SMALL: Final = (
    f"INSERT INTO blobs (hash, kind, size, writing, data) VALUES (?, {int(Kind.INLINE)}, ?, 0, ?)"
    " ON CONFLICT (hash) DO UPDATE SET kind = excluded.kind, size = excluded.size, written = NULL,"
    " writing = 0, present = NULL, outboard = NULL, data = excluded.data"
)
_REFER: Final = (
    "INSERT OR REPLACE INTO files (hash, path, size, mtime_ns, inode) VALUES (?, ?, ?, ?, ?)"
)


class Metadata:
    """See the module."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        """Not for direct use; see `open`."""
        self._path = path
        self._db = connection
        # What waits for a transaction: rows, small blobs (which are most of all that ever waits), files.
        self._rows: dict[bytes, Row] = {}
        self._small: dict[bytes, bytes] = {}
        self._files: dict[bytes, tuple[bytes, Reference]] = {}
        self._bytes = 0
        self.on_commit: Callable[[int], None] = lambda size: None

    @classmethod
    def open(cls, path: Path) -> Metadata:
        """The database at `path`, which is made if need be. Blocks. Raises OSError."""
        import sqlite3  # some milliseconds that programs without a store do not pay

        new = not path.exists() or not path.stat().st_size
        with _errors(path):
            db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            try:
                if new:
                    # Before WAL, so that everybody can read the version in the file itself.
                    db.execute("BEGIN")
                    db.execute(f"PRAGMA application_id = {APPLICATION}")
                    db.execute(f"PRAGMA user_version = {VERSION}")
                    for statement in _SCHEMA:
                        db.execute(statement)
                    db.execute("COMMIT")
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = NORMAL")
                db.execute("PRAGMA wal_autocheckpoint = 0")
            except BaseException:
                db.close()
                raise
        return cls(path, db)

    def close(self) -> None:
        """Makes the changes that are left, and syncs. Blocks. Raises OSError."""
        try:
            self.flush()
        finally:
            with _errors(self._path):
                self._db.close()

    def abandon(self) -> None:
        """Closes it without the changes that are left, for who is going to delete it. Blocks."""
        import sqlite3

        # SQLite brings the whole log into the database when the last connection is closed that can write.
        reader = None
        with suppress(sqlite3.Error):
            reader = sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True)
            reader.execute("SELECT 1 FROM blobs LIMIT 1").fetchone()
        self._db.close()
        if reader is not None:
            reader.close()

    # --- looking ----------------------------------------------------------------------------------

    def get(self, hashes: Sequence[bytes], *, data: bool = True) -> dict[bytes, Row]:
        """What there is of these blobs; without `data` without the bytes of those in the database."""
        found: dict[bytes, Row] = {}
        columns = f"{_COLUMNS}, data" if data else f"{_COLUMNS}, NULL"
        for start in range(0, len(hashes), ROWS):
            asked: list[bytes] = []
            for hash in hashes[start : start + ROWS]:
                if hash in self._rows:
                    found[hash] = self._rows[hash]
                elif hash in self._small:
                    small = self._small[hash]
                    found[hash] = Row(hash, Kind.INLINE, len(small), data=small)
                else:
                    asked.append(hash)
            if not asked:
                continue
            places = ", ".join("?" * len(asked))
            query = f"SELECT {columns} FROM blobs WHERE hash IN ({places})"
            with _errors(self._path):
                for values in self._db.execute(query, asked):
                    found[values[0]] = _row(values)
        return found

    def page(self, after: int, limit: int) -> list[tuple[int, Row]]:
        """Blobs in the order of their numbers, from behind `after` on; without their bytes."""
        self.flush()
        query = f"SELECT {_COLUMNS}, NULL, id FROM blobs WHERE id > ? ORDER BY id LIMIT ?"
        with _errors(self._path):
            return [(values[8], _row(values)) for values in self._db.execute(query, (after, limit))]

    def unsynced(self, boot: bytes) -> list[tuple[bytes, Kind]]:
        """What was written under a start of the system and is not known to be on the disk."""
        query = "SELECT hash, kind FROM blobs WHERE written = ?"
        with _errors(self._path):
            return [(hash, Kind(kind)) for hash, kind in self._db.execute(query, (boot,))]

    def references(self, hashes: Sequence[bytes]) -> dict[bytes, list[Reference]]:
        """The files that each of these blobs can be read from."""
        self.flush()
        found: dict[bytes, list[Reference]] = {hash: [] for hash in hashes}
        for start in range(0, len(hashes), ROWS):
            asked = hashes[start : start + ROWS]
            places = ", ".join("?" * len(asked))
            query = f"SELECT hash, path, size, mtime_ns, inode FROM files WHERE hash IN ({places})"
            with _errors(self._path):
                for hash, *values in self._db.execute(query, asked):
                    found[hash].append(Reference(*values))
        return found

    def files(self, paths: Sequence[bytes]) -> dict[bytes, tuple[bytes, Reference]]:
        """The hashes that files had, and how they looked then, by path."""
        self.flush()
        found: dict[bytes, tuple[bytes, Reference]] = {}
        for start in range(0, len(paths), ROWS):
            asked = paths[start : start + ROWS]
            places = ", ".join("?" * len(asked))
            query = f"SELECT hash, path, size, mtime_ns, inode FROM files WHERE path IN ({places})"
            with _errors(self._path):
                for hash, *values in self._db.execute(query, asked):
                    found[values[0]] = hash, Reference(*values)
        return found

    def tags(self) -> Iterator[tuple[bytes, HashAndFormat]]:
        with _errors(self._path):
            for name, hash, format in self._db.execute("SELECT name, hash, format FROM tags"):
                yield name, HashAndFormat(Hash(hash), BlobFormat(format))

    # --- changing ---------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Rows that are not yet in the database."""
        return len(self._rows) + len(self._small) + len(self._files)

    def put(self, row: Row, reference: Reference | None = None) -> None:
        """Adds or replaces what is known of a blob, with the next transaction.

        `reference`: a file that has this hash.
        """
        self._small.pop(row.hash, None)
        self._rows[row.hash] = row
        self._bytes += len(row.data or b"") + len(row.outboard or b"")
        if reference is not None:
            self._files[reference.path] = row.hash, reference
        if self.waiting >= ROWS or self._bytes >= BYTES:
            self.flush()

    def put_small(self, hash: bytes, data: bytes) -> bool:
        """`put` for a small blob that the database did not have; True: it is time to `flush`."""
        self._small[hash] = data
        self._bytes += len(data)
        return len(self._small) >= ROWS or self._bytes >= BYTES

    def refer(self, hash: bytes, reference: Reference) -> None:
        """Another file has the hash of a blob that is known, with the next transaction."""
        self._files[reference.path] = hash, reference
        if len(self._files) >= ROWS:
            self.flush()

    def flush(self) -> None:
        """Makes the changes that wait. OSError: they wait on."""
        if self.waiting:
            with self._transaction():
                pass

    def withdraw(self, hashes: Sequence[bytes]) -> list[bytes]:
        """Forgets changes of these blobs that wait; gives those that there were."""
        self._files = {path: file for path, file in self._files.items() if file[0] not in hashes}
        return [
            hash
            for hash in hashes
            if (self._rows.pop(hash, None) or self._small.pop(hash, None)) is not None
        ]

    def delete(self, hashes: Iterable[bytes]) -> None:
        """Forgets blobs, and the files that they could be read from."""
        gone = [(hash,) for hash in hashes]
        with self._transaction() as db:
            db.executemany("DELETE FROM blobs WHERE hash = ?", gone)
            db.executemany("DELETE FROM files WHERE hash = ?", gone)

    def synced(self, hashes: Iterable[tuple[bytes, Kind]]) -> None:
        """The data of these are on the disk, if they still are where they were."""
        with self._transaction() as db:
            db.executemany(
                "UPDATE blobs SET written = NULL WHERE hash = ? AND kind = ?",
                [(hash, int(kind)) for hash, kind in hashes],
            )

    def name(self, changes: dict[bytes, HashAndFormat | None]) -> None:
        """Sets and deletes tags, all or none."""
        with self._transaction() as db:
            for name, content in changes.items():
                if content is None:
                    db.execute("DELETE FROM tags WHERE name = ?", (name,))
                else:
                    db.execute(
                        "INSERT OR REPLACE INTO tags (name, hash, format) VALUES (?, ?, ?)",
                        (name, bytes(content.hash), int(content.format)),
                    )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Makes the rows that wait and the changes of the block, all or none."""
        with _errors(self._path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                if self._small:
                    small = [(hash, len(data), data) for hash, data in self._small.items()]
                    self._db.executemany(_PUT_SMALL, small)
                self._db.executemany(_PUT, map(_values, self._rows.values()))
                if self._files:
                    files = [
                        (hash, file.path, file.size, file.mtime_ns, file.inode)
                        for hash, file in self._files.values()
                    ]
                    self._db.executemany(_REFER, files)
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        # About what it takes in the log: its pages, some of which many rows share.
        size = self._bytes + PAGE * (self.waiting + 2)
        self._rows.clear()
        self._small.clear()
        self._files.clear()
        self._bytes = 0
        self.on_commit(size)

    # --- the log ----------------------------------------------------------------------------------

    def checkpoint(self) -> None:
        """Syncs what was changed so far. For a thread: it blocks nobody else. Raises OSError."""
        import sqlite3

        with _errors(self._path):
            db = sqlite3.connect(self._path, isolation_level=None)
            try:
                db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            finally:
                db.close()


def _values(row: Row) -> tuple[Any, ...]:
    present = pack_present(row.present) if row.kind is Kind.PARTIAL else None
    return (
        row.hash,
        int(row.kind),
        row.size,
        row.written,
        int(row.writing),
        present,
        row.outboard,
        row.data,
    )


def _row(values: Sequence[Any]) -> Row:
    hash, kind, size, written, writing, present, outboard, data, *_ = values
    return Row(
        hash,
        Kind(kind),
        size,
        written,
        bool(writing),
        data,
        outboard,
        () if present is None else unpack_present(present),
    )


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """What SQLite raises as the OSError that it means."""
    import sqlite3

    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        number, text = {
            sqlite3.SQLITE_FULL: (errno.ENOSPC, "no space is left for the store's database"),
            sqlite3.SQLITE_READONLY: (errno.EROFS, "the store's database cannot be written"),
            sqlite3.SQLITE_CANTOPEN: (errno.EACCES, "the store's database cannot be opened"),
            sqlite3.SQLITE_CORRUPT: (errno.EIO, "the store's database is damaged"),
            sqlite3.SQLITE_NOTADB: (errno.EIO, "the store's database is damaged"),
        }.get(code, (errno.EIO, "the store's database failed"))
        raise OSError(number, f"{text} ({error})", str(path)) from error
