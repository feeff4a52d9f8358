"""Blobs: content by its hash, verified on the way (`/iroh-bytes/4`).

The names below are loaded when they are first used: a provider needs no downloader, and a command starts sooner.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

# Not when it is first used: a kind of ticket can be dialled once its class is there.
from .ticket import BlobTicket as BlobTicket

if TYPE_CHECKING:
    from .collection import Collection as Collection
    from .downloading.count import DownloadProgress as DownloadProgress
    from .downloading.count import ProviderProgress as ProviderProgress
    from .downloading.discovery import Discovery as Discovery
    from .downloading.download import Download as Download
    from .downloading.downloader import Downloader as Downloader
    from .downloading.peers import Retries as Retries
    from .errors import BlobsError as BlobsError
    from .errors import BlobTooLargeError as BlobTooLargeError
    from .errors import DownloadError as DownloadError
    from .errors import ExportConflictError as ExportConflictError
    from .errors import IncompleteBlobError as IncompleteBlobError
    from .errors import NotAvailableError as NotAvailableError
    from .errors import NotFoundError as NotFoundError
    from .errors import ProviderBusyError as ProviderBusyError
    from .errors import ProviderError as ProviderError
    from .errors import ProviderFailure as ProviderFailure
    from .errors import ProviderRefusedError as ProviderRefusedError
    from .errors import StorageError as StorageError
    from .errors import StoreFormatError as StoreFormatError
    from .errors import UnsafeNameError as UnsafeNameError
    from .errors import VerificationError as VerificationError
    from .folders.exporting import ExportPlan as ExportPlan
    from .folders.exporting import export_collection as export_collection
    from .folders.exporting import export_files as export_files
    from .folders.exporting import load_collection as load_collection
    from .folders.exporting import plan_export as plan_export
    from .folders.importing import Imported as Imported
    from .folders.importing import ImportProgress as ImportProgress
    from .folders.importing import import_paths as import_paths
    from .folders.placing import Fate as Fate
    from .folders.placing import OnConflict as OnConflict
    from .folders.placing import Place as Place
    from .folders.selecting import select as select
    from .getting.get import Got as Got
    from .getting.get import Transfer as Transfer
    from .getting.get import get as get
    from .getting.get import get_bytes as get_bytes
    from .getting.many import GotMany as GotMany
    from .getting.many import ManyTransfer as ManyTransfer
    from .getting.many import get_many as get_many
    from .getting.observe import Observation as Observation
    from .getting.observe import observe as observe
    from .getting.sizes import Sizes as Sizes
    from .getting.sizes import get_size as get_size
    from .getting.sizes import get_sizes as get_sizes
    from .getting.sizes import probe as probe
    from .getting.tally import Arriving as Arriving
    from .getting.tally import Progress as Progress
    from .hash import BlobFormat as BlobFormat
    from .hash import Hash as Hash
    from .hash import HashAndFormat as HashAndFormat
    from .hashseq import HashSeq as HashSeq
    from .messages import ALPN as ALPN
    from .messages import ErrorCode as ErrorCode
    from .messages import GetManyRequest as GetManyRequest
    from .messages import GetRequest as GetRequest
    from .messages import ObserveRequest as ObserveRequest
    from .messages import PushRequest as PushRequest
    from .messages import RequestKind as RequestKind
    from .pushing.push import Push as Push
    from .pushing.push import Pushed as Pushed
    from .pushing.push import PushProgress as PushProgress
    from .pushing.push import push as push
    from .ranges import ChunkRanges as ChunkRanges
    from .rangeseq import ChunkRangesSeq as ChunkRangesSeq
    from .serving.access import IncomingRequest as IncomingRequest
    from .serving.access import Verdict as Verdict
    from .serving.events import ClientConnected as ClientConnected
    from .serving.events import ConnectionClosed as ConnectionClosed
    from .serving.events import ConnectionEvent as ConnectionEvent
    from .serving.events import RequestReceived as RequestReceived
    from .serving.events import TransferAborted as TransferAborted
    from .serving.events import TransferCompleted as TransferCompleted
    from .serving.events import TransferEvent as TransferEvent
    from .serving.events import TransferProgress as TransferProgress
    from .serving.events import TransferStarted as TransferStarted
    from .serving.events import TransferStats as TransferStats
    from .serving.limits import Limits as Limits
    from .serving.provider import Provider as Provider
    from .serving.push import PushReceived as PushReceived
    from .store.bucket.store import BucketStore as BucketStore
    from .store.file.store import FileStore as FileStore
    from .store.garbage import collect_every as collect_every
    from .store.interface import Added as Added
    from .store.interface import BlobReader as BlobReader
    from .store.interface import BlobState as BlobState
    from .store.interface import BlobStatus as BlobStatus
    from .store.interface import BlobWriter as BlobWriter
    from .store.interface import Finding as Finding
    from .store.interface import ImportMode as ImportMode
    from .store.interface import Store as Store
    from .store.memory import MemoryStore as MemoryStore
    from .transfer.pacing import rate_limit as rate_limit

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

__all__ = [*sorted(["BlobTicket", *_HOMES])]  # noqa: PLE0604 - they are strings


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
