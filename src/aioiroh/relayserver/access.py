"""The rules of the configuration about who may use a relay (upstream's `access`)."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Protocol

from aioiroh.keys import EndpointId
from aioiroh.relayserver.admission import AccessRequest, Allow, Deny
from aioiroh.relayserver.config import (
    AllowList,
    AskByHttp,
    ConfigError,
    DenyList,
    Everyone,
    Rule,
    SharedToken,
)

__all__ = ["AccessControl", "access_control", "with_environment"]

TOKEN_VARIABLE: Final = "IROH_RELAY_ACCESS_TOKEN"
BEARER_VARIABLE: Final = "IROH_RELAY_HTTP_BEARER_TOKEN"


class AccessControl(Protocol):
    """An `Access` whose answer may change, and which holds something."""

    async def __call__(self, request: AccessRequest) -> Allow | Deny:
        """Decides about a client."""

    def still_admits(self, endpoint_id: EndpointId) -> bool:
        """Whether an endpoint that came under other rules may stay."""

    async def close(self) -> None:
        """It is not asked any more."""


class _ByRule:
    """A rule that needs nobody else."""

    def __init__(self, rule: Everyone | AllowList | DenyList | SharedToken) -> None:
        self._rule = rule

    async def __call__(self, request: AccessRequest) -> Allow | Deny:
        if isinstance(self._rule, SharedToken):
            welcome = _is_one_of(request.token, self._rule.tokens)
        else:
            welcome = self.still_admits(request.endpoint_id)
        return Allow() if welcome else Deny()

    def still_admits(self, endpoint_id: EndpointId) -> bool:
        match self._rule:
            case AllowList(ids):
                return endpoint_id in ids
            case DenyList(ids):
                return endpoint_id not in ids
        # Of those who came with a token only newcomers have to show another one.
        return True

    async def close(self) -> None:
        pass


def _is_one_of(token: str | None, tokens: tuple[str, ...]) -> bool:
    if token is None:
        return False
    raw = token.encode("utf-8", "surrogatepass")
    # How long it takes tells nothing of how much of a guess was right.
    matches = [hmac.compare_digest(raw, known.encode()) for known in tokens]
    return any(matches)


def with_environment(rule: Rule, environment: Mapping[str, str]) -> Rule:
    """`rule` with the secrets that upstream takes from the environment in place of those in the file.

    Raises ConfigError: a shared token that anybody could guess.
    """
    match rule:
        case AskByHttp() if BEARER_VARIABLE in environment:
            return replace(rule, bearer_token=environment[BEARER_VARIABLE])
        case SharedToken(tokens):
            if TOKEN_VARIABLE in environment:
                tokens = (environment[TOKEN_VARIABLE],)
            if not tokens or not all(tokens):
                raise ConfigError(
                    f"access.shared_token (or {TOKEN_VARIABLE}) must name at least one token, and "
                    "none may be empty"
                )
            return SharedToken(tokens)
    return rule


def access_control(rule: Rule) -> AccessControl:
    """What decides by `rule`. Raises ConfigError: a package is missing."""
    if isinstance(rule, AskByHttp):
        from aioiroh.relayserver.callback import AccessByHttp

        return AccessByHttp(rule)
    return _ByRule(rule)
