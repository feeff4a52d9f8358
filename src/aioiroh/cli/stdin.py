"""Standard input as something to share: piece by piece, without a thread that could hang."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

__all__ = ["STDIN", "read_stdin"]

STDIN: Final = Path("-")
"""What is typed for it."""

PIECE: Final = 1 << 20
"""Bytes of one piece at most."""


async def read_stdin() -> AsyncIterator[bytes]:
    """What comes in, until its end. Raises OSError."""
    if sys.stdin is None:  # closed before the process began
        return
    descriptor = sys.stdin.fileno()
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        # No loop can wait for a file, and reading one does not hang.
        while data := os.read(descriptor, PIECE):
            yield data
            await asyncio.sleep(0)
        return
    reader = asyncio.StreamReader(PIECE)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(descriptor), "rb", 0)
    )
    try:
        while data := await reader.read(PIECE):
            yield data
    finally:
        transport.close()
        # Whoever has it next, such as the shell on a terminal, does not expect otherwise.
        os.set_blocking(descriptor, True)
