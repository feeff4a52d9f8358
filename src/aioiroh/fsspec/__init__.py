"""Content by ticket or hash as a file system of fsspec: `aioiroh+blob://TICKET/path`.

Needs `aioiroh[fsspec]`. It is registered as an entry point, so `fsspec.open`, pandas, pyarrow and others
take such URLs without an import of this module.
"""

from __future__ import annotations

try:
    import fsspec as _fsspec  # noqa: F401
except ImportError as error:
    raise ImportError("fsspec is missing; install aioiroh[fsspec]") from error

from .system import BlobFile, BlobFileSystem

__all__ = ["BlobFile", "BlobFileSystem"]
