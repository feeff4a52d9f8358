"""Who may ask a provider for what."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from ..messages import ErrorCode, Request, RequestKind

if TYPE_CHECKING:
    from aioiroh.keys import EndpointId

__all__ = ["Admit", "Authorize", "IncomingRequest", "Verdict", "judge"]

T = TypeVar("T")


class Verdict(Enum):
    """Answer to a request for permission; the value is the code that the peer sees."""

    ALLOW = ErrorCode.NONE
    DENY = ErrorCode.PERMISSION
    LATER = ErrorCode.LIMIT

    @property
    def reason(self) -> bytes:
        """What a connection is closed with, as upstream's provider does."""
        return {Verdict.ALLOW: b"", Verdict.DENY: b"permission", Verdict.LATER: b"limit"}[self]


@dataclass(frozen=True, slots=True)
class IncomingRequest:
    """Who asks for what. `connection` and `stream` tell requests of one peer apart."""

    remote_id: EndpointId
    connection: int
    stream: int
    request: Request

    @property
    def kind(self) -> RequestKind:
        return self.request.kind


Judgement = Verdict | bool | Awaitable[Verdict | bool]
Admit = Callable[["EndpointId"], Judgement]
"""Decides about a connection: a verdict, or True for ALLOW and False for DENY."""
Authorize = Callable[[IncomingRequest], Judgement]
"""Decides about a request, likewise."""


async def judge(hook: Callable[[T], Judgement] | None, asker: T) -> Verdict:
    """What a hook says; everything is allowed if there is none."""
    if hook is None:
        return Verdict.ALLOW
    verdict = hook(asker)
    if inspect.isawaitable(verdict):
        verdict = await verdict
    if isinstance(verdict, Verdict):
        return verdict
    return Verdict.ALLOW if verdict else Verdict.DENY
