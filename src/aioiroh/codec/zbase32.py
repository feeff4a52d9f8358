"""z-base-32, the spelling of public keys in pkarr and DNS names. Lowercase only, no padding."""

from __future__ import annotations

from aioiroh.codec import base32

__all__ = ["decode", "encode"]

_encode, _decode = base32.codec(b"ybndrfg8ejkmcpqxot1uwisza345h769", "z-base-32")


def encode(data: bytes) -> str:
    """z-base-32 of `data`."""
    return _encode(data)


def decode(text: str) -> bytes:
    """Bytes of z-base-32 text; bits left over must be zero. Raises DecodeError."""
    return _decode(text)
