"""The same work on many things, a bounded number of them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

__all__ = ["fan_out"]

A = TypeVar("A")
B = TypeVar("B")


async def fan_out(limit: int, items: Iterable[A], work: Callable[[A], Awaitable[B]]) -> list[B]:
    """`await work(item)` for every item, at most `limit` at once; the results in the order of items.

    `items` is drawn from only as work begins. The first failure cancels the rest and is raised.
    """
    if limit < 1:
        raise ValueError("limit must be 1 or more")
    numbered = enumerate(items)
    results: dict[int, B] = {}
    failures: list[BaseException] = []

    async def worker() -> None:
        try:
            for index, item in numbered:
                results[index] = await work(item)
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            # What `work` raised, also if it was a cancellation of its own, which a group ignores.
            failures.append(error)
            raise _Failed from None

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(limit):
                group.create_task(worker())
    except* _Failed:
        pass
    if failures:
        raise failures[0]
    return [results[index] for index in range(len(results))]


class _Failed(Exception):
    """Ends the group; what happened is told by the first entry of `failures`."""
