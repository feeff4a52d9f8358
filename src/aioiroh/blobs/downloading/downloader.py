"""Downloads that share connections, streams and a rate."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from aioiroh.aio import Closing, TokenBucket
from aioiroh.errors import EndpointClosedError
from aioiroh.pool import ConnectionPool

from ..getting.get import MAX_BLOB_SIZE
from ..getting.source import Content, resolved
from ..rangeseq import ChunkRangesSeq
from ..transfer.pacing import Pacer, rate_limit
from .download import Download, Resources
from .peers import Retries
from .shares import Shares
from .turns import Turns

if TYPE_CHECKING:
    from aioiroh.address import Dialable
    from aioiroh.endpoint import Endpoint

    from ..store.interface import Store
    from .discovery import Discovery

__all__ = ["Downloader"]

CONNECT_TIMEOUT: Final = 15.0
"""Seconds: relays and hole punching take their time."""
MAX_REQUESTS: Final = 256
MAX_DOWNLOADS: Final = 64


class Downloader(Closing):
    """Gets content from several providers at once into one store. An async context manager.

    Downloads share one connection to each provider, `max_requests` requests at a time, and `limit` bytes
    per second. `max_downloads` run at once; the others wait, and those of a higher priority come
    first. Leaving the block, or `aclose`, cancels those that are not done.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        store: Store,
        *,
        discovery: Sequence[Discovery] = (),
        limit: float | None = None,
        max_requests: int = MAX_REQUESTS,
        max_downloads: int = MAX_DOWNLOADS,
        retries: Retries | None = None,
    ) -> None:
        """`discovery`: who is asked for providers of everything. `limit`: bytes per second in all."""
        self._shared = Resources(
            endpoint.id,
            store,
            ConnectionPool(endpoint, connect_timeout=CONNECT_TIMEOUT),
            Turns(max_downloads),
            Shares(max_requests),
            Pacer(),
            _limits(limit),
            tuple(discovery),
            retries or Retries(),
            endpoint.network.random.random,
        )
        self._downloads: set[Download] = set()
        self._closed = False

    def download(
        self,
        content: Content | str,
        *,
        providers: Iterable[Dialable] = (),
        ranges: ChunkRangesSeq | None = None,
        priority: int = 0,
        limit: float | None = None,
        max_blob_size: int = MAX_BLOB_SIZE,
    ) -> Download:
        """Starts to get `content`: a ticket (or its text), a hash with format, or the hash of a plain blob.

        What the store has is not asked for. `ranges` limits what is wanted, as in a request: index 0 is the
        blob itself, i + 1 child i; a hash sequence comes whole if anything of its children is wanted. `providers` are asked, the ticket's among them, and
        what `discovery` finds; more can be added while it runs. Where two downloads ask the same provider, or share a
        rate, the one with the higher `priority` goes first. `limit`: bytes per second. A
        provider that says that a blob is larger than `max_blob_size` bytes is not asked again.

        Raises EndpointClosedError after `aclose`, ValueError for a limit that is not positive.
        """
        if self._closed:
            raise EndpointClosedError("the downloader is closed; make a new one")
        content, provider = resolved(content, None)
        named = [*providers] if provider is None else [*providers, provider]
        download = Download(
            self._shared,
            content,
            ranges=ranges,
            priority=priority,
            limits=_limits(limit),
            max_blob_size=max_blob_size,
        )
        for target in named:
            download.add_provider(target)
        self._downloads.add(download)
        download.start().add_done_callback(lambda _: self._downloads.discard(download))
        return download

    async def aclose(self) -> None:
        """Cancels what is running and closes the connections."""
        self._closed = True
        tasks = [download.start() for download in self._downloads]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._shared.pool.aclose()


def _limits(rate: float | None) -> tuple[TokenBucket, ...]:
    if rate is None:
        return ()
    if rate <= 0:
        raise ValueError("a limit is a positive number of bytes per second")
    return (rate_limit(rate, now=asyncio.get_running_loop().time()),)
