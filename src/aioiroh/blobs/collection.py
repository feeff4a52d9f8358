"""Collections: names for the children of a hash sequence, as iroh writes them.

The first hash names a metadata blob: `CollectionV0.`, then the names (postcard). Hash i + 1 belongs
to name i. There are no sizes, modes, times or empty directories.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from aioiroh.codec import postcard
from aioiroh.errors import DecodeError

from .hash import Hash
from .hashseq import HashSeq

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["MAX_METADATA_SIZE", "Collection"]

HEADER: Final = b"CollectionV0."
MAX_METADATA_SIZE: Final = 128 * 1024 * 1024
"""Largest metadata blob, in bytes, that is loaded into memory."""


class Collection:
    """An ordered list of `(name, hash)`. Immutable.

    Names are any text; see `aioiroh.blobs.folders.names` before one becomes a path.
    """

    __slots__ = ("_entries",)

    def __init__(self, entries: Iterable[tuple[str, Hash]] = ()) -> None:
        self._entries = tuple(entries)

    @classmethod
    def from_parts(cls, sequence: HashSeq, metadata: Buffer) -> Collection:
        """From the hash sequence and the metadata blob that its first hash names.

        DecodeError: another header, bad text, or not one name for each further hash.
        """
        names = decode_metadata(metadata)
        if len(names) + 1 != len(sequence):
            raise DecodeError(
                f"not a collection: {len(names)} names for {max(0, len(sequence) - 1)} blobs"
            )
        return cls((name, sequence[index + 1]) for index, name in enumerate(names))

    def metadata(self) -> bytes:
        """The bytes of the metadata blob."""
        writer = postcard.Writer()
        writer.raw(HEADER)
        writer.count(len(self._entries))
        for name, _ in self._entries:
            writer.string(name)
        return writer.finish()

    def to_parts(self) -> tuple[HashSeq, bytes]:
        """The hash sequence and the metadata blob; the hash of the former names the collection."""
        metadata = self.metadata()
        return HashSeq((Hash.of(metadata), *(hash for _, hash in self._entries))), metadata

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self._entries)

    @property
    def hashes(self) -> tuple[Hash, ...]:
        return tuple(hash for _, hash in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[tuple[str, Hash]]:
        return iter(self._entries)

    def __getitem__(self, index: int) -> tuple[str, Hash]:
        return self._entries[index]

    def __eq__(self, other: object) -> bool:
        return self._entries == other._entries if isinstance(other, Collection) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._entries)

    def __repr__(self) -> str:
        return f"Collection({len(self)} entries)"


def decode_metadata(data: Buffer) -> tuple[str, ...]:
    """The names in a metadata blob. Raises DecodeError."""
    reader = postcard.Reader(data)
    if reader.remaining < len(HEADER) or reader.raw(len(HEADER)) != HEADER:
        raise DecodeError("not the metadata of a collection: it does not begin with CollectionV0.")
    count = reader.count(MAX_METADATA_SIZE)
    # Bytes after the last name are ignored, as postcard and so upstream do.
    return tuple(reader.string(MAX_METADATA_SIZE) for _ in range(count))
