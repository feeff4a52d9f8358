"""Where a request goes: to the peer of a given connection, or to one that is dialled."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from ..hash import Hash, HashAndFormat
from ..messages import ALPN
from ..ticket import BlobTicket

if TYPE_CHECKING:
    from aioiroh.address import Dialable
    from aioiroh.endpoint import Endpoint
    from aioiroh.quic.connection import Connection

__all__ = ["Content", "Source", "resolved"]

Content = BlobTicket | HashAndFormat | Hash


class Source:
    """Where a connection to the provider comes from."""

    def __init__(self, source: Endpoint | Connection, provider: Dialable | None) -> None:
        self.given: Any = source
        self.is_connection = hasattr(source, "open_bi")
        self._provider = provider
        if not self.is_connection and provider is None:
            raise ValueError("name the provider: give a ticket, or `provider=`")

    def connection(self) -> contextlib.AbstractAsyncContextManager[Connection]:
        """The given connection, which stays open, or one of our own, which does not."""
        if self.is_connection:
            return contextlib.nullcontext(self.given)
        ours: contextlib.AbstractAsyncContextManager[Connection] = self.given.connect(
            self._provider, alpn=ALPN
        )
        return ours


def resolved(
    content: Content | str, provider: Dialable | None
) -> tuple[HashAndFormat, Dialable | None]:
    """What is wanted and whom to ask: a ticket says both, if `provider` does not say otherwise."""
    if isinstance(content, str):
        content = BlobTicket.parse(content)
    if isinstance(content, BlobTicket):
        return content.content, content.addr if provider is None else provider
    return HashAndFormat(content) if isinstance(content, Hash) else content, provider
