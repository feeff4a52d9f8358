"""Base 32 without padding: the alphabets of RFC 4648 sections 6 (base32) and 7 (base32hex).

Text is written in lowercase. Reading is strict as upstream's is: no padding, no whitespace, no
impossible length, and the bits left over in the last character must be zero.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

from aioiroh.errors import DecodeError

__all__ = ["decode", "decode_hex", "encode", "encode_hex"]

_RFC4648 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
# Characters a final group of 8 can hold when it encodes whole bytes, and the bits left over then.
_SPARE_BITS = {0: 0, 2: 2, 4: 4, 5: 1, 7: 3}


def codec(alphabet: bytes, name: str) -> tuple[Callable[[bytes], str], Callable[[str], bytes]]:
    """Encoder and decoder for 32 characters, most significant bit first, case-sensitive."""
    write = bytes.maketrans(_RFC4648, alphabet)
    read = bytes.maketrans(alphabet, _RFC4648)
    foreign = bytes(set(range(256)) - set(alphabet))

    def encode(data: bytes) -> str:
        return base64.b32encode(data).rstrip(b"=").translate(write).decode("ascii")

    def decode(text: str) -> bytes:
        try:
            raw = text.encode("ascii")
        except UnicodeEncodeError:
            raise DecodeError(f"{name} text holds a character outside its alphabet") from None
        if len(raw.translate(None, foreign)) != len(raw):
            raise DecodeError(f"{name} text holds a character outside its alphabet")
        tail = len(raw) % 8
        if tail not in _SPARE_BITS:
            raise DecodeError(f"no {name} text has {len(raw)} characters")
        if raw and alphabet.index(raw[-1]) & ((1 << _SPARE_BITS[tail]) - 1):
            raise DecodeError(f"the last character of the {name} text has stray bits")
        return base64.b32decode(raw.translate(read) + b"=" * (-tail % 8))

    return encode, decode


_encode, _decode = codec(_RFC4648.lower(), "base32")
_encode_hex, _decode_hex = codec(b"0123456789abcdefghijklmnopqrstuv", "base32hex")


def encode(data: bytes) -> str:
    """Lowercase base32 of `data`, without padding."""
    return _encode(data)


def decode(text: str) -> bytes:
    """Bytes of unpadded base32 in any case. Raises DecodeError."""
    # Only ASCII letters fold: `str.lower` would also turn the Kelvin sign into a valid "k".
    return _decode(text.lower() if text.isascii() else text)


def encode_hex(data: bytes) -> str:
    """Lowercase base32hex of `data`, without padding."""
    return _encode_hex(data)


def decode_hex(text: str) -> bytes:
    """Bytes of unpadded lowercase base32hex. Raises DecodeError."""
    return _decode_hex(text)
