"""What can go wrong with blobs, by cause: the provider, the content, the caller's own store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aioiroh.errors import AioirohError

from .hash import Hash

if TYPE_CHECKING:
    from aioiroh.keys import EndpointId

    from .hash import HashAndFormat

__all__ = [
    "BlobTooLargeError",
    "BlobsError",
    "DownloadError",
    "ExportConflictError",
    "IncompleteBlobError",
    "NotAvailableError",
    "NotFoundError",
    "ProviderBusyError",
    "ProviderError",
    "ProviderFailure",
    "ProviderRefusedError",
    "StorageError",
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
    """The provider lacks data that were asked for; ask another one. `hash`: of what, if known."""

    def __init__(self, message: str, hash: Hash | None = None) -> None:
        super().__init__(message)
        self.hash = hash


class ProviderRefusedError(ProviderError):
    """The provider does not let this endpoint have the data; asking again is no use."""


class ProviderBusyError(ProviderError):
    """The provider has too much to do at the moment; ask again later."""


class VerificationError(ProviderError):
    """The provider sent bytes that do not match the hash. Do not ask it again."""


@dataclass(frozen=True, slots=True)
class ProviderFailure:
    """A provider of a download that failed, and why."""

    id: EndpointId
    reason: str

    def __str__(self) -> str:
        return f"{self.id.short()}: {self.reason}"


class DownloadError(BlobsError, ConnectionError):
    """No provider, nor all together, brought what was to be downloaded.

    `failures` says what became of each; `search_errors` are what looking for providers raised. What
    was verified stays in the store: download again when there are other providers.
    """

    def __init__(
        self,
        content: HashAndFormat,
        reason: str,
        failures: Sequence[ProviderFailure],
        search_errors: Sequence[BaseException] = (),
    ) -> None:
        told = [*map(str, failures[:10]), *(f"search: {error}" for error in search_errors[:5])]
        if len(failures) > 10:
            told.append(f"and {len(failures) - 10} more")
        shown = f" ({'; '.join(told)})" if told else ""
        super().__init__(f"{content.hash} could not be downloaded: {reason}{shown}")
        self.content = content
        self.reason = reason
        self.failures = tuple(failures)
        self.search_errors = tuple(search_errors)


class BlobTooLargeError(BlobsError, ValueError):
    """The blob is, or a provider says it is, larger than the limit that was set."""


class NotFoundError(BlobsError, LookupError):
    """The store knows nothing of this blob; get or add it first."""


class IncompleteBlobError(BlobsError, ValueError):
    """The store has only a part of the blob, and not all that was asked for; get the rest first."""


class StorageError(BlobsError, OSError):
    """Object storage failed. What is complete in the store's own folder is kept and tried again."""


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
