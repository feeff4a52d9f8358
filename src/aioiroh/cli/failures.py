"""Errors in words, and the exit codes of the commands."""

from __future__ import annotations

import errno
import os
from enum import IntEnum
from typing import Final

from aioiroh.blobs import (
    BlobTooLargeError,
    ExportConflictError,
    ProviderError,
    UnsafeNameError,
)
from aioiroh.errors import (
    AioirohError,
    ApplicationClosedError,
    BindError,
    ConnectError,
    ConnectionLostError,
    ConnectionTimeoutError,
    DecodeError,
    StreamResetError,
)

__all__ = ["ExitCode", "Failure", "explain"]


class ExitCode(IntEnum):
    """What a command ends with. Interrupted ones end with 128 plus the number of the signal."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CONFLICT = 3
    NO_CONNECTION = 4
    BAD_CONTENT = 5
    LIMITED = 6


class Failure(Exception):
    """Something that ends a command, in words for the person who typed it."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code


def explain(error: BaseException) -> Failure:
    """One sentence for `error` that says what to do, and the exit code."""
    if isinstance(error, BaseExceptionGroup):
        return explain(error.exceptions[0])
    match error:
        case Failure():
            return error
        case ExportConflictError():
            return Failure(_conflict(error), ExitCode.CONFLICT)
        case ConnectError():
            return Failure(str(error), ExitCode.NO_CONNECTION)
        case ConnectionTimeoutError():
            return Failure(
                "the other side no longer answers; run the command again when it is back",
                ExitCode.NO_CONNECTION,
            )
        case ProviderError() | BlobTooLargeError() | UnsafeNameError() | DecodeError():
            return Failure(str(error), ExitCode.BAD_CONTENT)
        case StreamResetError():
            return Failure(
                f"the other side broke off for a reason unknown here (code {error.code})",
                ExitCode.BAD_CONTENT,
            )
        case ApplicationClosedError(code=0):
            return Failure(
                "the other side stopped before everything had come; start it anew, then try again",
                ExitCode.NO_CONNECTION,
            )
        case ConnectionLostError():
            return Failure(str(error), ExitCode.NO_CONNECTION)
        case BindError():
            return Failure(error.strerror or str(error))
        case AioirohError():
            return Failure(str(error))
        case BrokenPipeError():
            return Failure("nobody reads the output any more")
        case OSError():
            return Failure(_system(error))
        case ValueError():
            return Failure(str(error), ExitCode.USAGE)
        case MemoryError():
            return Failure("not enough memory")
    return Failure(f"this is a bug in aioiroh, please report it with the output of -vv: {error!r}")


def _conflict(error: ExportConflictError) -> str:
    shown = [f"  {path}" for path in error.paths[:MAX_LISTED]]
    if len(error.paths) > MAX_LISTED:
        shown.append(f"  and {len(error.paths) - MAX_LISTED:,} more")
    return "\n".join(("something else is in the way:", *shown, CONFLICT_ADVICE))


MAX_LISTED: Final = 100
"""Paths that are listed; a person needs no more to see what is the matter."""

CONFLICT_ADVICE: Final = (
    "say what to do about it: --overwrite replaces it, --rename puts the new files beside it, "
    "--skip leaves them out; or choose another folder with -o"
)
_ADVICE = {
    errno.ENOSPC: "free some space there, or choose another place",
    errno.EDQUOT: "your quota is used up; free some space, or choose another place",
    errno.EROFS: "choose another place",
    errno.EACCES: "change its permissions, or choose another place",
    errno.EPERM: "change its permissions, or choose another place",
    errno.EMFILE: "raise the limit for open files (ulimit -n)",
}


def _system(error: OSError) -> str:
    text = (os.strerror(error.errno) if error.errno else str(error)) or type(error).__name__
    text = text[0].lower() + text[1:]
    where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    advice = _ADVICE.get(error.errno or 0)
    return f"{where}{text}" + (f"; {advice}" if advice else "")
