"""All lookup services of an endpoint as one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from aioiroh.aio import Tasks
from aioiroh.errors import LookupFailedError
from aioiroh.keys import EndpointId
from aioiroh.lookup.filters import AddrFilter
from aioiroh.lookup.service import EndpointData, LookupContext, LookupItem, LookupService

__all__ = ["LookupRegistry"]

logger = logging.getLogger("aioiroh.lookup")

# Answers on their way to a slow reader; the services wait when it is full.
QUEUE_SIZE = 16


class LookupRegistry:
    """Publishes to every service, asks all of them at once, and outlives the failure of each."""

    def __init__(self, context: LookupContext, *, addr_filter: AddrFilter | None = None) -> None:
        """`addr_filter` is applied to all that is published, for every service."""
        self._context = context
        self._filter = addr_filter
        self._services: list[LookupService] = []
        self._published: EndpointData | None = None

    def __len__(self) -> int:
        """How many services there are."""
        return len(self._services)

    async def add(self, service: LookupService) -> None:
        """Start a service and hand it what was published last. Raises what its start raises."""
        await service.start(self._context)
        self._services.append(service)
        if self._published is not None:
            self._publish_to(service, self._published)

    async def remove(self, service: LookupService) -> None:
        """Close and forget one service; searches that run go on with the others."""
        self._services.remove(service)
        await self._close(service)

    async def clear(self) -> None:
        """Close and forget all services."""
        services, self._services = self._services, []
        for service in services:
            await self._close(service)

    async def _close(self, service: LookupService) -> None:
        try:
            await service.aclose()
        except Exception:
            logger.exception("%s did not close well", service.provenance)

    def publish(self, data: EndpointData) -> None:
        """Tell every service our own data."""
        if self._filter is not None:
            data = EndpointData(self._filter(data.addrs), data.user_data)
        self._published = data
        for service in self._services:
            self._publish_to(service, data)

    async def resolve(self, id: EndpointId) -> AsyncGenerator[LookupItem, None]:
        """Answers of all services in the order in which they come, until every service is done.

        LookupFailedError: no service gave any, with `errors` of those that failed. Leave the
        iteration early only under `contextlib.aclosing`, which cancels what is still being asked.
        """
        if not self._services:
            raise LookupFailedError(
                f"nothing is known of where {id.short()} is: no lookup service is configured; "
                "give an address or a ticket, or bind with a lookup service"
            )
        answers: asyncio.Queue[LookupItem | Exception | None] = asyncio.Queue(QUEUE_SIZE)
        errors: list[Exception] = []
        found = False
        async with Tasks(f"lookup of {id.short()}") as tasks:
            asked = 0
            for service in self._services:
                tasks.spawn(_ask(service, id, answers), name=service.provenance)
                asked += 1
            while asked:
                answer = await answers.get()
                if answer is None:
                    asked -= 1
                elif isinstance(answer, Exception):
                    errors.append(answer)
                else:
                    found = True
                    yield answer
        if not found:
            raise LookupFailedError(f"no lookup service knows where {id.short()} is", errors)

    def _publish_to(self, service: LookupService, data: EndpointData) -> None:
        try:
            service.publish(data)
        except Exception:
            logger.exception("%s did not take what we publish", service.provenance)


async def _ask(
    service: LookupService,
    id: EndpointId,
    answers: asyncio.Queue[LookupItem | Exception | None],
) -> None:
    """Put every answer of `service` into `answers`, then its failure if it failed, then None."""
    try:
        stream = service.resolve(id)
        if stream is not None:
            async with aclosing(_closable(stream)) as items:
                async for item in items:
                    if item.id == id:
                        await answers.put(item)
                    else:
                        logger.warning(
                            "%s answered for %s when asked for %s; ignored",
                            service.provenance,
                            item.id.short(),
                            id.short(),
                        )
    except Exception as error:
        logger.debug("%s failed for %s", service.provenance, id.short(), exc_info=error)
        error.add_note(f"lookup service: {service.provenance}")
        await answers.put(error)
    await answers.put(None)


async def _closable(stream: AsyncIterator[LookupItem]) -> AsyncGenerator[LookupItem, None]:
    """The same items; closing it closes the stream, if that can be closed."""
    try:
        async for item in stream:
            yield item
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()
