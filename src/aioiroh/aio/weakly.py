"""Calls that keep nobody alive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec
from weakref import WeakMethod

__all__ = ["weakly"]

P = ParamSpec("P")


def weakly(method: Callable[P, Any]) -> Callable[P, None]:
    """Calls the bound method while its object is there, and then nothing."""
    reference = WeakMethod(method)

    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        target = reference()
        if target is not None:
            target(*args, **kwargs)

    return call
