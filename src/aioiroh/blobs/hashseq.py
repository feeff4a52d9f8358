"""A sequence of hashes: one blob that names many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from aioiroh.errors import DecodeError

from .hash import HASH_SIZE, Hash

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["MAX_HASH_SEQ_SIZE", "HashSeq"]

MAX_HASH_SEQ_SIZE = 32 * 1024 * 1024
"""Largest hash sequence, in bytes, that is loaded into memory: about a million children."""


class HashSeq:
    """Hashes one after the other, nothing else; the children are opaque. Immutable.

    Kept as the bytes of the blob; hashes are made when asked for.
    """

    __slots__ = ("__weakref__", "_raw")

    def __init__(self, hashes: Iterable[Hash] = ()) -> None:
        self._raw = b"".join(map(bytes, hashes))

    @classmethod
    def from_bytes(cls, data: Buffer) -> HashSeq:
        """From the bytes of the blob. DecodeError: not a multiple of 32 bytes, or over 32 MiB."""
        raw = bytes(data)
        if len(raw) % HASH_SIZE:
            raise DecodeError(
                f"not a hash sequence: {len(raw)} bytes are no multiple of {HASH_SIZE}"
            )
        if len(raw) > MAX_HASH_SEQ_SIZE:
            raise DecodeError(f"a hash sequence of {len(raw)} bytes is over {MAX_HASH_SEQ_SIZE}")
        seq = cls.__new__(cls)
        seq._raw = raw
        return seq

    def __bytes__(self) -> bytes:
        return self._raw

    def __len__(self) -> int:
        """Number of hashes."""
        return len(self._raw) // HASH_SIZE

    def __getitem__(self, index: int) -> Hash:
        """The hash at `index`, counted from 0. Raises IndexError."""
        if not 0 <= index < len(self):
            raise IndexError(f"the sequence has {len(self)} hashes, there is none at {index}")
        return Hash(self._raw[index * HASH_SIZE : (index + 1) * HASH_SIZE])

    def __iter__(self) -> Iterator[Hash]:
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return self._raw == other._raw if isinstance(other, HashSeq) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._raw)

    def __repr__(self) -> str:
        return f"HashSeq({len(self)} hashes)"
