"""Types of the native module. One section per source file in `rust/py/src`."""

from typing_extensions import Buffer

# --- identity: Ed25519 as upstream's crate judges it, URLs as upstream's crate parses them --------

def public_key(seed: bytes) -> bytes:
    """Public key (32 bytes) of a 32-byte seed. ValueError: wrong length."""

def sign(seed: bytes, message: Buffer) -> bytes:
    """Signature (64 bytes, RFC 8032) of `message`. ValueError: wrong length of `seed`."""

def verify(public: bytes, message: Buffer, signature: bytes) -> bool:
    """Strict verification; an invalid key gives False. ValueError: a length is wrong."""

def is_public_key(public: bytes) -> bool:
    """Whether these are 32 bytes that decompress to a point of the curve."""

def normalize_url(text: str) -> str:
    """The WHATWG serialisation of a URL. ValueError: not a URL."""
