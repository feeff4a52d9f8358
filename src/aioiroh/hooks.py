"""Hooks: what an application wants to know and to forbid about every connection of an endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aioiroh.address import EndpointAddr
from aioiroh.errors import LocallyRejectedError
from aioiroh.quic import Connection

__all__ = ["Hook", "Reject", "ask_after_handshake", "ask_before_connect"]


@dataclass(frozen=True, slots=True)
class Reject:
    """The answer of a hook that refuses.

    After a handshake the peer sees `code` (0 to 2**62 - 1) and `reason` as those of the close.
    """

    code: int = 0
    reason: bytes = b""


class Hook:
    """Base of all hooks; each method may be left as it is.

    Hooks run in the order in which they were given to `Endpoint.bind`, and the first that refuses is the
    last that is asked. A hook that raises refuses, too: a dialling caller gets its exception. Hooks
    should not keep connections: one that somebody keeps is not closed when the application lets go of it.
    """

    async def before_connect(self, addr: EndpointAddr, alpn: bytes) -> Reject | None:
        """Before anything is sent to `addr`; `alpn` is the preferred protocol."""
        return None

    async def after_handshake(self, connection: Connection) -> Reject | None:
        """The peer has proved its key, on either side; the application has not seen it yet.

        With early data it has, and a refusal closes the connection under its hands.
        """
        return None


async def ask_before_connect(hooks: Sequence[Hook], addr: EndpointAddr, alpn: bytes) -> None:
    """Raises LocallyRejectedError, or what a hook raised."""
    for hook in hooks:
        if await hook.before_connect(addr, alpn) is not None:
            raise LocallyRejectedError(f"a hook forbids connecting to {addr.id.short()}")


async def ask_after_handshake(hooks: Sequence[Hook], connection: Connection) -> None:
    """Raises LocallyRejectedError, or what a hook raised; the connection is closed then."""
    refusal: Reject | None = None
    try:
        for hook in hooks:
            refusal = await hook.after_handshake(connection)
            if refusal is not None:
                break
    except BaseException:
        connection.close()
        raise
    if refusal is not None:
        connection.close(refusal.code, refusal.reason)
        raise LocallyRejectedError(
            f"a hook refused the connection with {connection.remote_id.short()} "
            f"(code {refusal.code})"
        )
