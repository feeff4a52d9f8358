"""How a transfer can end early, and whose doing it is."""

from __future__ import annotations

from typing import Any

from aioiroh.errors import StreamResetError

from ..errors import (
    BlobsError,
    BlobTooLargeError,
    NotAvailableError,
    ProviderBusyError,
    ProviderError,
    ProviderRefusedError,
    VerificationError,
)
from ..hash import Hash
from ..messages import ErrorCode

__all__ = ["from_push_end", "from_report", "from_reset"]

# Old providers finish the stream where data are missing, newer ones reset it: both mean the same.
_RESETS: dict[int, tuple[type[ProviderError], str]] = {
    ErrorCode.PERMISSION: (ProviderRefusedError, "the provider refuses to serve this endpoint"),
    ErrorCode.LIMIT: (ProviderBusyError, "the provider has too much to do; ask again later"),
    ErrorCode.INTERNAL: (NotAvailableError, "the provider lacks the data; ask another one"),
}
_PUSHES: dict[int, tuple[type[ProviderError], str]] = {
    ErrorCode.PERMISSION: (ProviderRefusedError, "the peer takes no pushes from this endpoint"),
    ErrorCode.LIMIT: (ProviderBusyError, "the peer has too much to do; push again later"),
}
_REPORTS: dict[str, tuple[type[BlobsError], str]] = {
    "parent_mismatch": (VerificationError, "the provider sent hashes that do not belong to it"),
    "leaf_mismatch": (VerificationError, "the provider sent bytes that do not belong to it"),
    # Upstream's memory store (0.104) says that of what somebody has asked it to observe.
    "size_invalid": (NotAvailableError, "the provider lacks it, and says that it is empty"),
    "size_conflict": (VerificationError, "the provider contradicts the size that is proved"),
    "size_limit": (BlobTooLargeError, "it is larger than the limit that was set"),
    "missing_header": (NotAvailableError, "the provider lacks it; ask another one"),
    "missing_item": (NotAvailableError, "the provider lacks a part of it; ask another one"),
    "truncated": (ProviderError, "the provider broke off; ask again"),
}


def from_reset(code: int) -> Exception:
    """What a reset of the answer with `code` means."""
    known = _RESETS.get(code)
    return StreamResetError(code) if known is None else known[0](known[1])


def from_push_end(code: int) -> ProviderError:
    """Why a peer did not take a push, from the code with which it stopped or reset the stream."""
    kind, text = _PUSHES.get(
        code,
        (ProviderError, f"the peer broke off the push (code {code}); it may have a part of it"),
    )
    return kind(text)


def from_report(hash: Hash, kind: str, detail: Any, lost: Exception | None = None) -> Exception:
    """What an error report of the native receiver means.

    `lost`: why the connection ended, for reports of a lost connection.
    """
    if kind == "reset":
        return from_reset(int(detail))
    if kind == "io":
        number, text, path = detail
        return OSError(number, f"blob {hash} could not be written: {text}", path)
    if kind == "lost":
        return lost or ProviderError("the connection ended; connect again")
    known = _REPORTS.get(kind)
    if known is None:
        return ProviderError(f"blob {hash}: the transfer failed ({kind})")
    return known[0](f"blob {hash}: {known[1]}")
