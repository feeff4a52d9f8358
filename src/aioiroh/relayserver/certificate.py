"""What a relay shows to its clients."""

from __future__ import annotations

from dataclasses import dataclass, field

from aioiroh import _native

__all__ = ["Certificate"]


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with those above it, and its private key, both as PEM.

    ValueError: there is none, there is no key, or the two do not belong together.
    """

    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)
    _tls: _native.RelayServerTls = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_tls", _native.RelayServerTls(self.chain, self.key))
