"""Names of content: a BLAKE3 hash, and what the bytes behind it mean."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar, Final, Self

from aioiroh import _native
from aioiroh.codec import base32, postcard
from aioiroh.errors import DecodeError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["HASH_SIZE", "BlobFormat", "Hash", "HashAndFormat"]

HASH_SIZE: Final = 32

_HEX = frozenset("0123456789abcdef")


class Hash:
    """BLAKE3 hash of a blob, 32 bytes. `str()` is 64 lowercase hex characters.

    Equality, order and hash are those of the bytes.
    """

    __slots__ = ("_raw",)
    SIZE: ClassVar[int] = HASH_SIZE
    EMPTY: ClassVar[Hash]
    """Hash of the blob without any bytes; every store has it."""

    def __init__(self, raw: Buffer) -> None:
        """`raw`: 32 bytes. DecodeError: another length."""
        if isinstance(raw, int | str):
            raise TypeError("a hash is made from 32 bytes; see Hash.parse() and Hash.of()")
        self._raw = bytes(raw)
        if len(self._raw) != HASH_SIZE:
            raise DecodeError(f"a hash has {HASH_SIZE} bytes, not {len(self._raw)}")

    @classmethod
    def of(cls, data: Buffer) -> Self:
        """Hash of `data`."""
        return cls(_native.blake3(data))

    @classmethod
    def parse(cls, text: str) -> Self:
        """From 64 lowercase hex characters or 52 characters of base32 in any case.

        Raises DecodeError.
        """
        # As with upstream the length alone, in UTF-8, decides about the form.
        if len(text.encode("utf-8", "surrogatepass")) == 2 * HASH_SIZE:
            if not _HEX.issuperset(text):
                raise DecodeError("not a hash: 64 characters must be lowercase hex digits")
            return cls(bytes.fromhex(text))
        raw = base32.decode(text)
        if len(raw) != HASH_SIZE:
            raise DecodeError(
                f"not a hash: it has {len(raw)} bytes instead of {HASH_SIZE}; write it as 64 hex "
                "or 52 base32 characters"
            )
        return cls(raw)

    def hex(self) -> str:
        """64 lowercase hex characters."""
        return self._raw.hex()

    def base32(self) -> str:
        """52 characters of lowercase base32, the form that older programs print."""
        return base32.encode(self._raw)

    def short(self) -> str:
        """First 5 bytes as 10 hex characters, for people; it cannot be parsed."""
        return self._raw[:5].hex()

    def __bytes__(self) -> bytes:
        return self._raw

    def __str__(self) -> str:
        return self._raw.hex()

    def __repr__(self) -> str:
        return f"Hash({self._raw.hex()})"

    def __eq__(self, other: object) -> bool:
        return self._raw == other._raw if isinstance(other, Hash) else NotImplemented

    def __lt__(self, other: Hash) -> bool:
        return self._raw < other._raw if isinstance(other, Hash) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._raw)


Hash.EMPTY = Hash(bytes.fromhex("af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"))


class BlobFormat(IntEnum):
    """What the bytes of a blob mean. The values are those of the wire."""

    RAW = 0
    """Plain bytes."""
    HASH_SEQ = 1
    """A sequence of hashes: whoever asks for it wants the blobs they name, too."""


@dataclass(frozen=True, slots=True)
class HashAndFormat:
    """A hash with the meaning of its bytes: what one shares, keeps and asks for."""

    hash: Hash
    format: BlobFormat = BlobFormat.RAW

    @classmethod
    def parse(cls, text: str) -> HashAndFormat:
        """From 64 hex digits (plain bytes) or `s` and 64 hex digits (hash sequence), in any case.

        Raises DecodeError.
        """
        format = BlobFormat.RAW
        digits = text
        if digits[:1] in ("s", "S"):
            format, digits = BlobFormat.HASH_SEQ, digits[1:]
        if (
            len(digits) != 2 * HASH_SIZE
            or not digits.isascii()
            or not _HEX.issuperset(digits.lower())
        ):
            raise DecodeError("not a hash with format: expected an optional s and 64 hex digits")
        return cls(Hash(bytes.fromhex(digits)), format)

    @classmethod
    def from_bytes(cls, data: Buffer) -> HashAndFormat:
        """From 33 bytes: the hash and one byte for the format. Raises DecodeError."""
        reader = postcard.Reader(data)
        value = cls(Hash(reader.raw(HASH_SIZE)), BlobFormat(reader.variant(len(BlobFormat))))
        reader.end()
        return value

    def __bytes__(self) -> bytes:
        return bytes(self.hash) + bytes((self.format,))

    def __str__(self) -> str:
        return ("s" if self.format is BlobFormat.HASH_SEQ else "") + self.hash.hex()
