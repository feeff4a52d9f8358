"""Identity: Ed25519 secret keys, the endpoint ids that are their public halves, signatures.

An id is the compressed point of RFC 8032 and is kept verbatim. As with upstream, all 32 bytes that
decompress to a point are an id, also of small order or in a non-canonical spelling; signatures
are judged by the strict rule, under which ids of small order verify nothing.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Self

from aioiroh import _native
from aioiroh.codec import base32, zbase32
from aioiroh.errors import DecodeError, KeyParsingError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["EndpointId", "PublicKey", "SecretKey", "Signature"]

KEY_SIZE = 32
SIGNATURE_SIZE = 64

_HEX_DIGITS = frozenset("0123456789abcdef")


class EndpointId:
    """Who an endpoint is: its Ed25519 public key, 32 bytes.

    Equality, order and hash are those of the bytes. `str()` is 64 lowercase hex characters.
    """

    __slots__ = ("_raw",)
    SIZE: ClassVar[int] = KEY_SIZE

    def __init__(self, raw: Buffer) -> None:
        """`raw`: 32 bytes. KeyParsingError: another length, or no point of the curve."""
        self._raw = _sized(raw, KEY_SIZE, "an endpoint id")
        if not _native.is_public_key(self._raw):
            raise KeyParsingError("not an endpoint id: these bytes are no point of the curve")

    @classmethod
    def parse(cls, text: str) -> Self:
        """From 64 lowercase hex characters or 52 characters of base32 in any case.

        Raises KeyParsingError.
        """
        return cls(_parse_key(text, "an endpoint id"))

    @classmethod
    def from_zbase32(cls, text: str) -> Self:
        """From the spelling used in pkarr and DNS names. Raises KeyParsingError."""
        try:
            return cls(zbase32.decode(text))
        except KeyParsingError:
            raise
        except DecodeError as error:
            raise KeyParsingError(f"not an endpoint id: {error}") from None

    def zbase32(self) -> str:
        """52 characters of z-base-32, for pkarr and DNS names."""
        return zbase32.encode(self._raw)

    def hex(self) -> str:
        """64 lowercase hex characters."""
        return self._raw.hex()

    def short(self) -> str:
        """First 5 bytes as 10 hex characters, for people; it cannot be parsed."""
        return self._raw[:5].hex()

    def verify(self, message: Buffer, signature: Signature | bytes) -> bool:
        """Whether `signature` over `message` was made with this id's secret key (strict rule).

        A signature of bytes that are not 64 long is not valid.
        """
        raw = bytes(signature)
        return len(raw) == SIGNATURE_SIZE and _native.verify(self._raw, message, raw)

    def __bytes__(self) -> bytes:
        return self._raw

    def __str__(self) -> str:
        return self._raw.hex()

    def __repr__(self) -> str:
        return f"EndpointId({self.short()}…)"

    def __eq__(self, other: object) -> bool:
        return self._raw == other._raw if isinstance(other, EndpointId) else NotImplemented

    def __lt__(self, other: EndpointId) -> bool:
        return self._raw < other._raw if isinstance(other, EndpointId) else NotImplemented

    def __le__(self, other: EndpointId) -> bool:
        return self._raw <= other._raw if isinstance(other, EndpointId) else NotImplemented

    def __gt__(self, other: EndpointId) -> bool:
        return self._raw > other._raw if isinstance(other, EndpointId) else NotImplemented

    def __ge__(self, other: EndpointId) -> bool:
        return self._raw >= other._raw if isinstance(other, EndpointId) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._raw)


PublicKey = EndpointId
"""The same thing under the name used where no endpoint is meant (documents, records)."""


class SecretKey:
    """An Ed25519 secret key: a seed of 32 bytes. Never shown by `repr` or `str`."""

    __slots__ = ("_public", "_seed")
    SIZE: ClassVar[int] = KEY_SIZE

    def __init__(self, seed: Buffer) -> None:
        """`seed`: any 32 bytes. KeyParsingError: another length."""
        self._seed = _sized(seed, KEY_SIZE, "a secret key")
        self._public: EndpointId | None = None

    @classmethod
    def generate(cls, random: Callable[[int], bytes] = os.urandom) -> Self:
        """A new key. `random(n)` gives n random bytes; the default asks the operating system."""
        return cls(random(KEY_SIZE))

    @classmethod
    def from_bytes(cls, seed: Buffer) -> Self:
        """From 32 bytes. Raises KeyParsingError."""
        return cls(seed)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From 64 lowercase hex characters or 52 characters of base32. Raises KeyParsingError."""
        return cls(_parse_key(text, "a secret key"))

    @property
    def public(self) -> EndpointId:
        """The endpoint id that belongs to this key."""
        if self._public is None:
            self._public = EndpointId(_native.public_key(self._seed))
        return self._public

    def sign(self, message: Buffer) -> Signature:
        """Sign `message` (RFC 8032, deterministic)."""
        return Signature(_native.sign(self._seed, message))

    def hex(self) -> str:
        """The secret as 64 lowercase hex characters: to store it, not to show it."""
        return self._seed.hex()

    def __bytes__(self) -> bytes:
        return self._seed

    def __str__(self) -> str:
        return repr(self)

    def __repr__(self) -> str:
        return "SecretKey(…)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SecretKey):
            return NotImplemented
        return hmac.compare_digest(self._seed, other._seed)

    def __hash__(self) -> int:
        return hash(self._seed)


class Signature:
    """An Ed25519 signature, 64 bytes (R followed by S). `str()` is lowercase hex."""

    __slots__ = ("_raw",)
    SIZE: ClassVar[int] = SIGNATURE_SIZE

    def __init__(self, raw: Buffer) -> None:
        """`raw`: 64 bytes. KeyParsingError: another length."""
        self._raw = _sized(raw, SIGNATURE_SIZE, "a signature")

    def hex(self) -> str:
        """128 lowercase hex characters."""
        return self._raw.hex()

    def __bytes__(self) -> bytes:
        return self._raw

    def __str__(self) -> str:
        return self._raw.hex()

    def __repr__(self) -> str:
        return f"Signature({self._raw[:5].hex()}…)"

    def __eq__(self, other: object) -> bool:
        return self._raw == other._raw if isinstance(other, Signature) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._raw)


def _sized(raw: Buffer, size: int, what: str) -> bytes:
    if isinstance(raw, int | str):  # bytes(n) would give n zeros
        raise TypeError(f"{what} is made from bytes, not from {type(raw).__name__}; see parse()")
    data = bytes(raw)
    if len(data) != size:
        raise KeyParsingError(f"{what} has {size} bytes, not {len(data)}")
    return data


def _parse_key(text: str, what: str) -> bytes:
    # The length in UTF-8 decides about the form, as it does upstream: a key is never guessed.
    if len(text.encode("utf-8", "surrogatepass")) == 2 * KEY_SIZE:
        if not _HEX_DIGITS.issuperset(text):
            raise KeyParsingError(f"not {what}: 64 characters must be lowercase hex digits")
        return bytes.fromhex(text)
    try:
        raw = base32.decode(text)
    except DecodeError as error:
        raise KeyParsingError(f"not {what}: {error}") from None
    if len(raw) != KEY_SIZE:
        raise KeyParsingError(f"not {what}: {len(raw)} bytes instead of {KEY_SIZE}")
    return raw
