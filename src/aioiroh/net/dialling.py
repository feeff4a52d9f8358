"""Dialling the several addresses of a name, as RFC 8305 has it."""

from __future__ import annotations

from asyncio.staggered import staggered_race
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import chain, zip_longest
from typing import Final, TypeVar

__all__ = ["NEXT_ADDRESS_AFTER", "race"]

T = TypeVar("T")

NEXT_ADDRESS_AFTER: Final = 0.25
"""Seconds that one address has before the next one is tried as well."""


async def race(host: str, ips: Sequence[str], dial: Callable[[str], Awaitable[T]]) -> T:
    """What `dial(ip)` gives for the address of `host` that answers first; both IP versions take turns.

    A dial that is cancelled must leave nothing behind. Raises OSError.
    """
    attempts = [partial(dial, ip) for ip in _taking_turns(ips)]
    result: T | None
    result, winner, errors = await staggered_race(attempts, NEXT_ADDRESS_AFTER)
    if result is not None and winner is not None:
        return result
    for error in errors:
        if error is not None and not isinstance(error, OSError):
            raise error
    if errors[0] is not None and len({str(error) for error in errors}) == 1:
        raise errors[0]
    raise OSError(f"no address of {host} answers: {'; '.join(map(str, errors))}")


def _taking_turns(ips: Sequence[str]) -> list[str]:
    first = [ip for ip in ips if (":" in ip) == (":" in ips[0])]
    other = [ip for ip in ips if ip not in first]
    return [ip for ip in chain.from_iterable(zip_longest(first, other)) if ip is not None]
