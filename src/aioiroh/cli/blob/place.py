"""Which store a command works on."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from aioiroh.blobs import FileStore
from aioiroh.errors import BusyError

from ..failures import ExitCode, Failure

__all__ = ["default_store", "opened"]


def default_store() -> Path:
    """The store of a person who names none, where the system keeps data of applications."""
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Application Support"
    else:
        # The specification of these folders wants relative ones to be ignored.
        named = Path(os.environ.get("XDG_DATA_HOME", ""))
        base = named if named.is_absolute() else home / ".local" / "share"
    return base / "aioiroh" / "store"


@contextlib.asynccontextmanager
async def opened(folder: Path, *, create: bool = False) -> AsyncIterator[FileStore]:
    """The store at `folder`, which is made only with `create`. Failure: absent, or in use."""
    if not create and not folder.is_dir():
        raise Failure(
            f"there is no store at {folder}; `aioiroh blob add` makes one, --store names another",
            ExitCode.USAGE,
        )
    try:
        store = await FileStore.open(folder)
    except BusyError:
        raise Failure(
            f"the store at {folder} is in use by another process; wait for it, stop it, or name "
            "another store with --store",
            ExitCode.CONFLICT,
        ) from None
    async with store:
        yield store
