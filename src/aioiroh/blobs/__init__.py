"""Blobs: content by its hash, verified on the way (`/iroh-bytes/4`)."""

from __future__ import annotations

from .access import (
    IncomingRequest,
    TransferAborted,
    TransferCompleted,
    TransferEvent,
    TransferProgress,
    TransferStarted,
    TransferStats,
    Verdict,
)
from .collection import Collection
from .errors import (
    BlobsError,
    BlobTooLargeError,
    ExportConflictError,
    IncompleteBlobError,
    NotAvailableError,
    NotFoundError,
    ProviderBusyError,
    ProviderError,
    ProviderRefusedError,
    UnsafeNameError,
    VerificationError,
)
from .exporting import check_export, export_collection, load_collection
from .files import FileStore
from .get import Got, Transfer, get, get_bytes
from .hash import BlobFormat, Hash, HashAndFormat
from .hashseq import HashSeq
from .importing import Imported, ImportProgress, import_paths
from .memory import MemoryStore
from .messages import (
    ALPN,
    ErrorCode,
    GetManyRequest,
    GetRequest,
    ObserveRequest,
    PushRequest,
    RequestKind,
)
from .provider import Limits, Provider
from .ranges import ChunkRanges
from .rangeseq import ChunkRangesSeq
from .sizes import Sizes, get_size, get_sizes
from .store import Added, BlobReader, BlobState, BlobStatus, BlobWriter, Store
from .tally import Progress
from .ticket import BlobTicket

__all__ = [
    "ALPN",
    "Added",
    "BlobFormat",
    "BlobReader",
    "BlobState",
    "BlobStatus",
    "BlobTicket",
    "BlobTooLargeError",
    "BlobWriter",
    "BlobsError",
    "ChunkRanges",
    "ChunkRangesSeq",
    "Collection",
    "ErrorCode",
    "ExportConflictError",
    "FileStore",
    "GetManyRequest",
    "GetRequest",
    "Got",
    "Hash",
    "HashAndFormat",
    "HashSeq",
    "ImportProgress",
    "Imported",
    "IncomingRequest",
    "IncompleteBlobError",
    "Limits",
    "MemoryStore",
    "NotAvailableError",
    "NotFoundError",
    "ObserveRequest",
    "Progress",
    "Provider",
    "ProviderBusyError",
    "ProviderError",
    "ProviderRefusedError",
    "PushRequest",
    "RequestKind",
    "Sizes",
    "Store",
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
    "check_export",
    "export_collection",
    "get",
    "get_bytes",
    "get_size",
    "get_sizes",
    "import_paths",
    "load_collection",
]
