"""Blobs: content by its hash, verified on the way (`/iroh-bytes/4`).

The names below are loaded when they are first used: a provider needs no downloader, and a command starts sooner.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

# Not when it is first used: a kind of ticket can be dialled once its class is there.
from .ticket import BlobTicket as BlobTicket

if TYPE_CHECKING:
    from .collection import Collection
    from .downloading.count import DownloadProgress, ProviderProgress
    from .downloading.discovery import Discovery
    from .downloading.download import Download
    from .downloading.downloader import Downloader
    from .downloading.peers import Retries
    from .errors import (
        BlobsError,
        BlobTooLargeError,
        DownloadError,
        ExportConflictError,
        IncompleteBlobError,
        NotAvailableError,
        NotFoundError,
        ProviderBusyError,
        ProviderError,
        ProviderFailure,
        ProviderRefusedError,
        StorageError,
        StoreFormatError,
        UnsafeNameError,
        VerificationError,
    )
    from .folders.exporting import (
        ExportPlan,
        export_collection,
        export_files,
        load_collection,
        plan_export,
    )
    from .folders.importing import Imported, ImportProgress, import_paths
    from .folders.placing import Fate, OnConflict, Place
    from .folders.selecting import select
    from .getting.get import Got, Transfer, get, get_bytes
    from .getting.many import GotMany, ManyTransfer, get_many
    from .getting.observe import Observation, observe
    from .getting.sizes import Sizes, get_size, get_sizes, probe
    from .getting.tally import Arriving, Progress
    from .hash import BlobFormat, Hash, HashAndFormat
    from .hashseq import HashSeq
    from .messages import (
        ALPN,
        ErrorCode,
        GetManyRequest,
        GetRequest,
        ObserveRequest,
        PushRequest,
        RequestKind,
    )
    from .pushing.push import Push, Pushed, PushProgress, push
    from .ranges import ChunkRanges
    from .rangeseq import ChunkRangesSeq
    from .serving.access import IncomingRequest, Verdict
    from .serving.events import (
        ClientConnected,
        ConnectionClosed,
        ConnectionEvent,
        RequestReceived,
        TransferAborted,
        TransferCompleted,
        TransferEvent,
        TransferProgress,
        TransferStarted,
        TransferStats,
    )
    from .serving.limits import Limits
    from .serving.provider import Provider
    from .serving.push import PushReceived
    from .store.bucket.store import BucketStore
    from .store.file.store import FileStore
    from .store.garbage import collect_every
    from .store.interface import (
        Added,
        BlobReader,
        BlobState,
        BlobStatus,
        BlobWriter,
        Finding,
        ImportMode,
        Store,
    )
    from .store.memory import MemoryStore
    from .transfer.pacing import rate_limit

_MODULES = {
    "collection": ("Collection",),
    "downloading.count": (
        "DownloadProgress",
        "ProviderProgress",
    ),
    "downloading.discovery": ("Discovery",),
    "downloading.download": ("Download",),
    "downloading.downloader": ("Downloader",),
    "downloading.peers": ("Retries",),
    "errors": (
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
        "UnsafeNameError",
        "VerificationError",
    ),
    "folders.exporting": (
        "ExportPlan",
        "export_collection",
        "export_files",
        "load_collection",
        "plan_export",
    ),
    "folders.importing": (
        "ImportProgress",
        "Imported",
        "import_paths",
    ),
    "folders.placing": (
        "Fate",
        "OnConflict",
        "Place",
    ),
    "folders.selecting": ("select",),
    "getting.get": (
        "Got",
        "Transfer",
        "get",
        "get_bytes",
    ),
    "getting.many": (
        "GotMany",
        "ManyTransfer",
        "get_many",
    ),
    "getting.observe": (
        "Observation",
        "observe",
    ),
    "getting.sizes": (
        "Sizes",
        "get_size",
        "get_sizes",
        "probe",
    ),
    "getting.tally": (
        "Arriving",
        "Progress",
    ),
    "hash": (
        "BlobFormat",
        "Hash",
        "HashAndFormat",
    ),
    "hashseq": ("HashSeq",),
    "messages": (
        "ALPN",
        "ErrorCode",
        "GetManyRequest",
        "GetRequest",
        "ObserveRequest",
        "PushRequest",
        "RequestKind",
    ),
    "pushing.push": (
        "Push",
        "PushProgress",
        "Pushed",
        "push",
    ),
    "ranges": ("ChunkRanges",),
    "rangeseq": ("ChunkRangesSeq",),
    "serving.access": (
        "IncomingRequest",
        "Verdict",
    ),
    "serving.events": (
        "ClientConnected",
        "ConnectionClosed",
        "ConnectionEvent",
        "RequestReceived",
        "TransferAborted",
        "TransferCompleted",
        "TransferEvent",
        "TransferProgress",
        "TransferStarted",
        "TransferStats",
    ),
    "serving.limits": ("Limits",),
    "serving.provider": ("Provider",),
    "serving.push": ("PushReceived",),
    "store.bucket.store": ("BucketStore",),
    "store.file.store": ("FileStore",),
    "store.garbage": ("collect_every",),
    "store.interface": (
        "Added",
        "BlobReader",
        "BlobState",
        "BlobStatus",
        "BlobWriter",
        "Finding",
        "ImportMode",
        "Store",
    ),
    "store.memory": ("MemoryStore",),
    "transfer.pacing": ("rate_limit",),
}
"""Where the public names are defined."""

_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "ALPN",
    "Added",
    "Arriving",
    "BlobFormat",
    "BlobReader",
    "BlobState",
    "BlobStatus",
    "BlobTicket",
    "BlobTooLargeError",
    "BlobWriter",
    "BlobsError",
    "BucketStore",
    "ChunkRanges",
    "ChunkRangesSeq",
    "ClientConnected",
    "Collection",
    "ConnectionClosed",
    "ConnectionEvent",
    "Discovery",
    "Download",
    "DownloadError",
    "DownloadProgress",
    "Downloader",
    "ErrorCode",
    "ExportConflictError",
    "ExportPlan",
    "Fate",
    "FileStore",
    "Finding",
    "GetManyRequest",
    "GetRequest",
    "Got",
    "GotMany",
    "Hash",
    "HashAndFormat",
    "HashSeq",
    "ImportMode",
    "ImportProgress",
    "Imported",
    "IncomingRequest",
    "IncompleteBlobError",
    "Limits",
    "ManyTransfer",
    "MemoryStore",
    "NotAvailableError",
    "NotFoundError",
    "Observation",
    "ObserveRequest",
    "OnConflict",
    "Place",
    "Progress",
    "Provider",
    "ProviderBusyError",
    "ProviderError",
    "ProviderFailure",
    "ProviderProgress",
    "ProviderRefusedError",
    "Push",
    "PushProgress",
    "PushReceived",
    "PushRequest",
    "Pushed",
    "RequestKind",
    "RequestReceived",
    "Retries",
    "Sizes",
    "StorageError",
    "Store",
    "StoreFormatError",
    "Transfer",
    "TransferAborted",
    "TransferCompleted",
    "TransferEvent",
    "TransferProgress",
    "TransferStarted",
    "TransferStats",
    "UnsafeNameError",
    "Verdict",
    "VerificationError",
    "collect_every",
    "export_collection",
    "export_files",
    "get",
    "get_bytes",
    "get_many",
    "get_size",
    "get_sizes",
    "import_paths",
    "load_collection",
    "observe",
    "plan_export",
    "probe",
    "push",
    "rate_limit",
    "select",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
