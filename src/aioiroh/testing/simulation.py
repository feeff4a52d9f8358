"""Running a scenario in virtual time, under one seed or many."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import random
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from aioiroh.testing.loop import VirtualLoop
from aioiroh.testing.network import VirtualNetwork

__all__ = ["chosen_seeds", "run", "run_seeds", "simulated"]

T = TypeVar("T")

Scenario = Callable[[VirtualNetwork], Coroutine[Any, Any, T]]

SEED_VARIABLE = "AIOIROH_SEED"
SEEDS_VARIABLE = "AIOIROH_SEEDS"
TIME_LIMIT = 3600.0


def run(scenario: Scenario[T], *, seed: int = 0, time_limit: float | None = TIME_LIMIT) -> T:
    """Run `scenario(network)` on a new virtual network in virtual time, and return its result.

    `time_limit` in virtual seconds; None: 24 days, the most there is. The module `random` is seeded too, for
    the time of the run. Raises what the scenario raises, with a note that names the seed;
    DeadlockError if everything waits and no timer is set; SimulatedTimeoutError at the limit.
    """

    async def main() -> T:
        return await scenario(VirtualNetwork(seed=seed))

    state = random.getstate()
    random.seed(f"{seed} random")
    try:
        with asyncio.Runner(loop_factory=lambda: VirtualLoop(time_limit=time_limit)) as runner:
            return runner.run(main())
    except BaseException as error:
        error.add_note(f"seed={seed} ({SEED_VARIABLE}={seed} replays it)")
        raise
    finally:
        random.setstate(state)


def chosen_seeds(count: int) -> Sequence[int]:
    """The seeds to try: 0 to `count` - 1, unless the environment says otherwise.

    AIOIROH_SEED=n: only that one. AIOIROH_SEEDS=n: n of them, for a longer search.
    """
    one = os.environ.get(SEED_VARIABLE)
    if one:
        return (int(one),)
    return range(int(os.environ.get(SEEDS_VARIABLE) or count))


def run_seeds(
    scenario: Scenario[object], *, seeds: int = 30, time_limit: float | None = TIME_LIMIT
) -> None:
    """`run` the scenario under many seeds; the first one that fails is printed, and its error raised.

    See `chosen_seeds` for how to replay one.
    """
    for seed in chosen_seeds(seeds):
        try:
            run(scenario, seed=seed, time_limit=time_limit)
        except BaseException:
            print(f"failed with seed={seed}", file=sys.stderr)
            raise


def simulated(
    *, seeds: int = 1, time_limit: float | None = TIME_LIMIT
) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], Callable[..., None]]:
    """Make a pytest test of a coroutine function `test(network, ...)`, run once for each seed.

    The test gets a parameter `seed`; its others (fixtures, parametrisation) stay. Needs pytest. See
    `chosen_seeds` for how to replay one.
    """
    import pytest

    def decorate(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
        @functools.wraps(test)
        def run_test(*, seed: int, **arguments: Any) -> None:
            run(lambda network: test(network, **arguments), seed=seed, time_limit=time_limit)

        _, *others = inspect.signature(test).parameters.values()
        seed = inspect.Parameter("seed", inspect.Parameter.KEYWORD_ONLY)
        signature = inspect.Signature([*others, seed])
        run_test.__signature__ = signature  # type: ignore[attr-defined]
        marked: Callable[..., None] = pytest.mark.parametrize("seed", chosen_seeds(seeds))(run_test)
        return marked

    return decorate
