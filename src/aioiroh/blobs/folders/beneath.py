"""Files below a directory, reached without ever following a symbolic link on the way.

On POSIX each component is opened relative to the one before (`O_NOFOLLOW`), so that a link put into
the tree, before or meanwhile, cannot lead outside. Elsewhere every component is checked by path.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Found", "Kind", "Root"]

_RELATIVE = {os.open, os.mkdir, os.stat, os.rename, os.unlink, os.link} <= os.supports_dir_fd
_DIRECTORY = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0) | os.O_RDONLY
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)


class Kind(Enum):
    """What is at a place."""

    FILE = "file"
    DIRECTORY = "directory"
    OTHER = "other"
    """Links, also those to files and directories, and devices."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is at a place, or in the middle of the way to it: then `depth`, the number of components
    that lead to it, is less than those of the place, and it is no directory. `size` in bytes.
    """

    kind: Kind
    size: int
    depth: int


class Root:
    """A directory below which files are placed. A context manager; use it from one thread.

    Paths are components that `names` found safe. The root itself may be a symbolic link; what is
    below may not. A link on the way raises NotADirectoryError.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises OSError if `path` is not a directory."""
        self.path = Path(os.path.realpath(path))
        self._handle: int | None = None
        self._trail: list[tuple[str, int]] = []
        """The directories on the way to the last place, open: the next one is often among them."""
        if _RELATIVE:
            self._handle = os.open(self.path, _DIRECTORY)
        elif not self.path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(self.path))

    def close(self) -> None:
        self._forget(0)
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def find(self, parts: Sequence[str]) -> Found | None:
        """What is at a place or blocks the way to it; None for nothing."""
        where, known = self._known(parts[:-1])
        for depth, part in enumerate(parts[known:], known + 1):
            try:
                state = self._lstat(where, part)
                if depth == len(parts) or not stat.S_ISDIR(state.st_mode):
                    return Found(_kind(state), state.st_size, depth)
                where = self._step(where, part)
            except (FileNotFoundError, NotADirectoryError):
                return None  # gone, or another thing, since it was looked at
        return None

    def place(self, source: Path, parts: Sequence[str], *, overwrite: bool = False) -> Path:
        """Moves the file at `source` (same file system) to its place, atomically.

        Missing directories are made. Without `overwrite`, FileExistsError if anything is there;
        with it a file or link that is there is replaced, never followed.
        """
        put = self._rename if overwrite else self._move_new
        try:
            put(source, self._enter(parts[:-1]), parts[-1])
        except FileNotFoundError:
            # A directory that was open may have been deleted since.
            self._forget(0)
            put(source, self._enter(parts[:-1]), parts[-1])
        return self.path.joinpath(*parts)

    # --- one component at a time -------------------------------------------------------------------

    def _known(self, parts: Sequence[str]) -> tuple[int | Path, int]:
        """The last directory on the way to `parts` that is open, and how many components lead there."""
        if self._handle is None:
            return self.path, 0
        known = 0
        for part, (name, _) in zip(parts, self._trail, strict=False):
            if part != name:
                break
            known += 1
        self._forget(known)
        return (self._trail[-1][1] if known else self._handle), known

    def _forget(self, known: int) -> None:
        """Closes the open directories behind the first `known`."""
        while len(self._trail) > known:
            os.close(self._trail.pop()[1])

    def _enter(self, parts: Sequence[str]) -> int | Path:
        """The directory at `parts`, made if need be: a descriptor, or a checked path."""
        where, known = self._known(parts)
        for depth, part in enumerate(parts[known:], known + 1):
            with contextlib.suppress(FileExistsError):
                if isinstance(where, int):
                    os.mkdir(part, dir_fd=where)
                else:
                    os.mkdir(where / part)
            try:
                where = self._step(where, part)
            except NotADirectoryError:
                raise _not_a_directory(self.path.joinpath(*parts[:depth])) from None
        return where

    def _step(self, where: int | Path, part: str) -> int | Path:
        """The directory `part` in `where`. NotADirectoryError if it is something else, or a link."""
        if isinstance(where, Path):
            below = where / part
            if not stat.S_ISDIR(os.lstat(below).st_mode) or os.path.realpath(below) != str(below):
                raise _not_a_directory(below)
            return below
        try:
            handle = os.open(part, _DIRECTORY | _NO_FOLLOW, dir_fd=where)
        except OSError as error:
            # A link is ELOOP or, with O_DIRECTORY, ENOTDIR, depending on the system.
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise _not_a_directory(part) from None
            raise
        self._trail.append((part, handle))
        return handle

    @staticmethod
    def _lstat(where: int | Path, name: str) -> os.stat_result:
        if isinstance(where, int):
            return os.stat(name, dir_fd=where, follow_symlinks=False)
        return os.lstat(where / name)

    @staticmethod
    def _rename(source: Path, where: int | Path, name: str) -> None:
        if isinstance(where, int):
            os.replace(source, name, dst_dir_fd=where)
        else:
            os.replace(source, where / name)

    def _move_new(self, source: Path, where: int | Path, name: str) -> None:
        """Rename that fails if the target exists. A hard link is the portable way to get that."""
        try:
            if isinstance(where, int):
                os.link(source, name, dst_dir_fd=where)
            else:
                os.link(source, where / name)
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EXDEV, errno.ENOSPC, errno.EACCES):
                raise
            # No hard links on this file system: claim the name with an empty file, then replace it.
            self._claim(where, name)
            self._rename(source, where, name)
        else:
            os.unlink(source)

    @staticmethod
    def _claim(where: int | Path, name: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW
        if isinstance(where, int):
            os.close(os.open(name, flags, 0o600, dir_fd=where))
        else:
            os.close(os.open(where / name, flags, 0o600))


def _kind(state: os.stat_result) -> Kind:
    if stat.S_ISDIR(state.st_mode):
        return Kind.DIRECTORY
    return Kind.FILE if stat.S_ISREG(state.st_mode) else Kind.OTHER


def _not_a_directory(where: str | Path) -> NotADirectoryError:
    return NotADirectoryError(errno.ENOTDIR, "not a directory, or a link to one", str(where))
