"""Access control by an HTTP service, as upstream asks it (`access.http`, relay.md 4.7).

The only module that loads aiohttp.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from aioiroh.keys import EndpointId
from aioiroh.relayserver.admission import AccessRequest, Allow, Deny
from aioiroh.relayserver.config import AskByHttp, ConfigError

try:
    import aiohttp
except ImportError:
    raise ConfigError(
        "access.http needs the package aiohttp: pip install 'aioiroh[relay]'"
    ) from None

__all__ = ["AccessByHttp"]

logger = logging.getLogger("aioiroh.relayserver.access")

TIMEOUT: Final = 5.0
"""Seconds for one question, the wait for its turn included; a client waits 10 s for its handshake."""
MAX_QUESTIONS: Final = 64
"""Questions at a time; more wait for their turn."""
ENDPOINT_ID: Final = "X-Iroh-Endpoint-Id"
NODE_ID: Final = "X-Iroh-NodeId"
"""The older name of the header, which upstream still sends, too."""
GRANTED: Final = b"true"


class AccessByHttp:
    """Asks with a POST; only status 200 and the body `true` let a client in."""

    def __init__(self, rule: AskByHttp) -> None:
        self._url = rule.url
        self._headers = {"User-Agent": "aioiroh-relay", "Accept-Encoding": "identity"}
        if rule.bearer_token is not None:
            self._headers["Authorization"] = f"Bearer {rule.bearer_token}"
        self._session: aiohttp.ClientSession | None = None
        self._problem: str | None = None

    async def __call__(self, request: AccessRequest) -> Allow | Deny:
        try:
            async with asyncio.timeout(TIMEOUT):
                granted = await self._ask(str(request.endpoint_id))
        except (aiohttp.ClientResponseError, aiohttp.InvalidURL) as error:
            # Their texts show the URL.
            self._tell(type(error).__name__)
            return Deny()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            self._tell(str(error) or type(error).__name__)
            return Deny()
        self._tell(None)
        return Allow() if granted else Deny()

    def _tell(self, problem: str | None) -> None:
        """Once when the service falls silent, and once when it is back; not the URL, which may hold a secret."""
        if (problem is None) == (self._problem is None):
            return
        self._problem = problem
        if problem is None:
            logger.info("the access service answers again")
        else:
            logger.warning("the access service gives no answer, so nobody is let in: %s", problem)

    async def _ask(self, id: str) -> bool:
        if self._session is None:
            # Whoever makes it has to be on the loop.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=MAX_QUESTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=True,
                # A word of four letters is not worth what unpacking may come to.
                auto_decompress=False,
            )
        headers = {**self._headers, ENDPOINT_ID: id, NODE_ID: id}
        async with self._session.post(self._url, headers=headers) as response:
            if response.status != 200:
                logger.debug("the access service answered with status %d", response.status)
                return False
            # One byte more than is right; of a long answer the rest is not read.
            body = b""
            while len(body) <= len(GRANTED) and (piece := await response.content.readany()):
                body += piece
            return body == GRANTED

    def still_admits(self, endpoint_id: EndpointId) -> bool:
        """Who was let in stays."""
        return True

    async def close(self) -> None:
        """Closes its connections."""
        if self._session is not None:
            await self._session.close()
