"""Blobs that become files of their own, for somebody to rename."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..hash import Hash
from .interface import OnCopied
from .worker import DiskWorker

if TYPE_CHECKING:
    from aioiroh._native import Blob

__all__ = ["copy_blobs", "staged"]

_numbers = itertools.count()


def staged(hash: Hash, directory: Path) -> Path:
    """A name for a blob that no other store, of this process or another, uses in the directory."""
    return directory / f"{hash}.{os.getpid()}-{next(_numbers)}.staged"


async def copy_blobs(
    worker: DiskWorker, blobs: Sequence[tuple[Blob, Path]], on_copied: OnCopied | None
) -> None:
    """Writes complete blobs to new files; all or none. Raises OSError."""
    try:
        await worker.write_blobs(blobs, on_copied)
    except BaseException:
        for _, path in blobs:
            path.unlink(missing_ok=True)
        raise
