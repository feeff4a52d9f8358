"""What can go wrong with blobs, by cause: the provider, the content, the caller's own store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aioiroh.errors import AioirohError

__all__ = [
    "BlobTooLargeError",
    "BlobsError",
    "ExportConflictError",
    "IncompleteBlobError",
    "NotAvailableError",
    "NotFoundError",
    "ProviderBusyError",
    "ProviderError",
    "ProviderRefusedError",
    "StoreFormatError",
    "UnsafeName",
    "UnsafeNameError",
    "VerificationError",
]


class BlobsError(AioirohError):
    """Base of the errors of this room."""


class ProviderError(BlobsError, ConnectionError):
    """The provider did not deliver. What was verified before is kept; ask again or ask another."""


class NotAvailableError(ProviderError):
    """The provider lacks data that were asked for; ask another one."""


class ProviderRefusedError(ProviderError):
    """The provider does not let this endpoint have the data; asking again is no use."""


class ProviderBusyError(ProviderError):
    """The provider has too much to do at the moment; ask again later."""


class VerificationError(ProviderError):
    """The provider sent bytes that do not match the hash. Do not ask it again."""


class BlobTooLargeError(BlobsError, ValueError):
    """The blob is, or a provider says it is, larger than the limit that was set."""


class NotFoundError(BlobsError, LookupError):
    """The store knows nothing of this blob; get or add it first."""


class IncompleteBlobError(BlobsError, ValueError):
    """The store has only a part of the blob, and not all that was asked for; get the rest first."""


class StoreFormatError(BlobsError, ValueError):
    """A folder holds no store that this version can open. Nothing in it was changed."""


@dataclass(frozen=True, slots=True)
class UnsafeName:
    """A name that cannot become a path below a directory, and why."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name!r}: {self.reason}"


class UnsafeNameError(BlobsError, ValueError):
    """Names in a collection that would be dangerous or impossible as paths; see `names`."""

    def __init__(self, names: Sequence[UnsafeName]) -> None:
        shown = "; ".join(map(str, names[:10])) + ("; …" if len(names) > 10 else "")
        super().__init__(f"the collection holds names that cannot be files here: {shown}")
        self.names = tuple(names)


class ExportConflictError(BlobsError, FileExistsError):
    """Something is in the way of an export; nothing was written. See `paths`."""

    def __init__(self, paths: Sequence[str]) -> None:
        shown = ", ".join(paths[:10]) + (", …" if len(paths) > 10 else "")
        super().__init__(f"already there: {shown}; move it away or choose another directory")
        self.paths = tuple(paths)
