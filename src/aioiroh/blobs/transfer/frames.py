"""Messages with their length before them, one after the other on a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aioiroh.errors import DecodeError

if TYPE_CHECKING:
    from aioiroh.quic.receiving import RecvStream

__all__ = ["FrameReader"]

MAX_PREFIX: Final = 10
"""Bytes of the longest varint of 64 bits."""


class FrameReader:
    """Reads messages of at most `limit` bytes. A cancelled read loses nothing: the next goes on."""

    def __init__(self, recv: RecvStream, limit: int) -> None:
        self._recv = recv
        self._limit = limit
        self._length = 0
        self._prefix = 0
        self._is_body = False
        self.received = 0
        """Bytes of complete messages and their lengths."""

    async def read(self) -> bytes:
        """The next message.

        DecodeError: what should be its length is none, or too much. IncompleteReadError: the stream
        ended; with an empty `partial` before a message. Others as reading from the stream.
        """
        while not self._is_body:
            byte = (await self._recv.read_exactly(1))[0]
            self._length |= (byte & 0x7F) << (7 * self._prefix)
            self._prefix += 1
            if byte >= 0x80 and self._prefix < MAX_PREFIX:
                continue
            if byte >= 0x80 or self._length > self._limit:
                raise DecodeError(f"a message of over {self._limit} bytes")
            self._is_body = True
        body = await self._recv.read_exactly(self._length)
        self.received += self._prefix + self._length
        self._length = self._prefix = 0
        self._is_body = False
        return body
