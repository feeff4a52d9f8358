"""Reading an answer in the small pieces that it consists of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aioiroh.errors import StreamResetError

from ..errors import NotAvailableError, ProviderError
from ..hash import Hash
from ..transfer.ends import from_reset

if TYPE_CHECKING:
    from aioiroh.quic.receiving import RecvStream

__all__ = ["HEADER", "Answer"]

HEADER: Final = 8
"""Bytes before each blob: its size."""


class Answer:
    """What comes on a stream. It is read ahead, so nobody else can read the stream afterwards."""

    __slots__ = ("_data", "_recv", "_start")

    def __init__(self, recv: RecvStream) -> None:
        self._recv = recv
        self._data = b""
        self._start = 0

    async def header(self, hash: Hash) -> int:
        """The size of the blob that follows, as it is claimed. Errors as `take`."""
        return int.from_bytes(await self.take(hash, HEADER), "little")

    async def take(self, hash: Hash, n: int) -> bytes:
        """The next `n` bytes, of blob `hash`.

        NotAvailableError: there are none; ProviderError: there are fewer; what a reset of the stream
        means, and what reading raises.
        """
        taken = self.at_once(n)
        if taken is None:
            self._data, self._start = await self._more(hash, self._data[self._start :], n), n
            taken = self._data[:n]
        return taken

    def at_once(self, n: int) -> bytes | None:
        """The next `n` bytes, if they are here already."""
        start = self._start
        if len(self._data) - start < n:
            return None
        self._start = start + n
        return self._data[start : start + n]

    async def _more(self, hash: Hash, begun: bytes, n: int) -> bytes:
        """At least `n` bytes, the first of which are there."""
        parts = [begun] if begun else []
        missing = n - len(begun)
        while missing > 0:
            try:
                more = await self._recv.read()
            except StreamResetError as error:
                raise from_reset(error.code) from None
            if not more:
                if parts and n != HEADER:
                    raise ProviderError(f"blob {hash}: the provider broke off; ask again")
                raise NotAvailableError(
                    f"blob {hash}: the provider lacks it or a part of it; ask another one", hash
                )
            parts.append(more)
            missing -= len(more)
        return parts[0] if len(parts) == 1 else b"".join(parts)
