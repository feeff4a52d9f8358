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
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Root"]

_RELATIVE = {os.open, os.mkdir, os.stat, os.rename, os.unlink, os.link} <= os.supports_dir_fd
_DIRECTORY = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0) | os.O_RDONLY
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)


class Root:
    """A directory below which files are placed. A context manager; use it from one thread.

    Paths are components that `names` found safe. The root itself may be a symbolic link; what is
    below may not. A link on the way raises NotADirectoryError.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises OSError if `path` is not a directory."""
        self.path = Path(os.path.realpath(path))
        self._handle: int | None = None
        if _RELATIVE:
            self._handle = os.open(self.path, _DIRECTORY)
        elif not self.path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a directory", str(self.path))

    def close(self) -> None:
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

    def kind(self, parts: Sequence[str]) -> str | None:
        """What is at a place: "file", "directory", "other" (links too), or None for nothing.

        A file or link in the middle of the way counts as what is there.
        """
        with contextlib.ExitStack() as stack:
            try:
                where = self._enter(stack, parts[:-1], create=False)
                mode = self._lstat(where, parts[-1])
            except FileNotFoundError:
                return None
            except NotADirectoryError:
                return "other"
        if stat.S_ISDIR(mode):
            return "directory"
        return "file" if stat.S_ISREG(mode) else "other"

    def place(self, source: Path, parts: Sequence[str], *, overwrite: bool = False) -> Path:
        """Moves the file at `source` (same file system) to its place, atomically.

        Missing directories are made. Without `overwrite`, FileExistsError if anything is there;
        with it a file or link that is there is replaced, never followed.
        """
        with contextlib.ExitStack() as stack:
            where = self._enter(stack, parts[:-1], create=True)
            name = parts[-1]
            if overwrite:
                self._rename(source, where, name)
            else:
                self._move_new(source, where, name)
        return self.path.joinpath(*parts)

    # --- one component at a time -------------------------------------------------------------------

    def _enter(
        self, stack: contextlib.ExitStack, parts: Sequence[str], *, create: bool
    ) -> int | Path:
        """The directory at `parts`: a descriptor that `stack` closes, or a checked path."""
        if self._handle is None:
            return self._enter_by_path(parts, create=create)
        where = self._handle
        for part in parts:
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=where)
            try:
                below = os.open(part, _DIRECTORY | _NO_FOLLOW, dir_fd=where)
            except OSError as error:
                # A link is ELOOP or, with O_DIRECTORY, ENOTDIR, depending on the system.
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    raise _not_a_directory(self.path, parts, part) from None
                raise
            stack.callback(os.close, below)
            where = below
        return where

    def _enter_by_path(self, parts: Sequence[str], *, create: bool) -> Path:
        where = self.path
        for part in parts:
            where = where / part
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(where)
            mode = os.lstat(where).st_mode
            if not stat.S_ISDIR(mode) or os.path.realpath(where) != str(where):
                raise _not_a_directory(self.path, parts, part)
        return where

    @staticmethod
    def _lstat(where: int | Path, name: str) -> int:
        if isinstance(where, int):
            return os.stat(name, dir_fd=where, follow_symlinks=False).st_mode
        return os.lstat(where / name).st_mode

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


def _not_a_directory(root: Path, parts: Sequence[str], at: str) -> NotADirectoryError:
    where = root.joinpath(*parts[: list(parts).index(at) + 1])
    return NotADirectoryError(errno.ENOTDIR, "not a directory, or a link to one", str(where))
