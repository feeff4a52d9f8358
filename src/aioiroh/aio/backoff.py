"""How long to wait before trying again."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Backoff"]


class Backoff:
    """Delays that grow by a factor, are capped, and are shortened by chance so that many do not
    try again in step.
    """

    __slots__ = ("_base", "_factor", "_initial", "_jitter", "_maximum", "_random")

    def __init__(
        self,
        initial: float,
        maximum: float,
        factor: float = 2.0,
        *,
        jitter: float = 0.5,
        random: Callable[[], float],
    ) -> None:
        """`initial` and `maximum` in seconds. `jitter`: the part of a delay, 0 to 1, that chance
        may take away. `random()` gives a number from 0 to below 1.
        """
        if not (0 < initial <= maximum and factor >= 1 and 0 <= jitter <= 1):
            raise ValueError("wanted: 0 < initial <= maximum, factor >= 1, 0 <= jitter <= 1")
        self._initial = initial
        self._maximum = maximum
        self._factor = factor
        self._jitter = jitter
        self._random = random
        self._base = initial

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        base = self._base
        self._base = min(base * self._factor, self._maximum)
        return base * (1.0 - self._jitter * self._random())

    def reset(self) -> None:
        """An attempt succeeded: start from `initial` again."""
        self._base = self._initial
