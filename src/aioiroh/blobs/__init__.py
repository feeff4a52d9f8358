"""Blobs: content by its hash, verified on the way (`/iroh-bytes/4`)."""

from __future__ import annotations

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
from .ticket import BlobTicket
from .transfer.pacing import rate_limit

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
