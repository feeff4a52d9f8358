"""Watching which chunks of a blob a provider has."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from aioiroh.errors import DecodeError, IncompleteReadError, StreamResetError

from ..errors import ProviderError
from ..hash import Hash
from ..messages import MAX_REQUEST_SIZE, ObserveItem, ObserveRequest, encode_request
from ..ranges import ChunkRanges
from ..store.interface import BlobState, BlobStatus
from ..transfer.ends import from_reset
from ..transfer.frames import FrameReader
from .source import Content, Source, resolved

if TYPE_CHECKING:
    from aioiroh.address import Dialable
    from aioiroh.endpoint import Endpoint
    from aioiroh.quic.connection import Connection

__all__ = ["Observation", "observe"]

MAX_BOUNDARIES: Final = 1 << 18
"""Boundaries of chunk ranges that a provider may make us keep."""


def observe(
    source: Endpoint | Connection, content: Content | str, *, provider: Dialable | None = None
) -> Observation:
    """Watches what a provider has of a blob: the whole state, and again with every change.

    `source`, `content` and `provider` are as in `get`; of a hash sequence only the sequence itself is
    watched. Nothing that the provider says is proved.
    """
    content, provider = resolved(content, provider)
    return Observation(Source(source, provider), content.hash)


class Observation:
    """States of a blob at a provider, as an async iterator inside its own block.

        async with blobs.observe(connection, hash) as states:
            async for status in states: ...

    Leaving the block ends it. The iteration ends by itself only if the provider ends it after the blob is
    complete there. Raises ProviderRefusedError if the provider tells nobody, ProviderBusyError if it
    wants us to ask again later, ProviderError, ConnectError or ConnectionLostError.
    """

    def __init__(self, source: Source, hash: Hash) -> None:
        """Not for direct use; see `observe`."""
        self.hash = hash
        self._source = source
        self._opened: contextlib.AsyncExitStack | None = None
        self._frames: FrameReader | None = None
        self._present = ChunkRanges.empty()
        self.status = BlobStatus.missing()
        """The latest state."""

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as opened:
            connection = await opened.enter_async_context(self._source.connection())
            stream = await opened.enter_async_context(connection.open_bi())
            await stream.write(encode_request(ObserveRequest(self.hash, ChunkRanges.all())))
            await stream.finish()
            self._frames = FrameReader(stream.recv, MAX_REQUEST_SIZE)
            self._opened = opened.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        opened, self._opened = self._opened, None
        self._frames = None
        if opened is not None:
            await opened.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BlobStatus:
        if self._frames is None:
            raise RuntimeError("an observation is iterated inside its block: use `async with`")
        try:
            item = ObserveItem.decode(await self._frames.read())
        except (StreamResetError, IncompleteReadError) as error:
            if self.status.is_complete:
                raise StopAsyncIteration from None
            if self.hash == Hash.EMPTY:
                # Upstream resets the stream at once, and the reset may overtake what it said before.
                self.status = BlobStatus.complete(0)
                return self.status
            if isinstance(error, StreamResetError):
                raise from_reset(error.code) from None
            raise ProviderError("the provider broke off the observation; ask again") from None
        except DecodeError as error:
            raise ProviderError(f"the provider told something that is no state: {error}") from None
        self._present ^= item.ranges
        if len(self._present.boundaries) > MAX_BOUNDARIES:
            raise ProviderError("the provider tells of more pieces than we keep in mind")
        self.status = _status(item.size, self._present)
        return self.status

    async def until_complete(self) -> BlobStatus:
        """Waits until the provider has all of the blob; gives the state then."""
        while not self.status.is_complete:
            await self.__anext__()
        return self.status


def _status(size: int, present: ChunkRanges) -> BlobStatus:
    if present.is_all:
        return BlobStatus.complete(size)
    # Without an upper end it holds the last chunk.
    state = BlobState.PARTIAL if present else BlobState.MISSING
    return BlobStatus(state, size or None, present.is_infinite, present)
