"""One call where a program does one thing: no endpoint to hold and to close."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from aioiroh.address import Dialable
from aioiroh.aio import Pending
from aioiroh.endpoint import Endpoint
from aioiroh.keys import SecretKey
from aioiroh.lookup import LookupService
from aioiroh.presets import BindAddress, Preset
from aioiroh.quic import Connection, TransportConfig
from aioiroh.quic.alpn import Alpns
from aioiroh.router import Handler, IncomingFilter, Router

__all__ = ["connect", "serve"]


class Lone(Pending[Connection]):
    """A connection with an endpoint of its own, which closes with it."""

    __slots__ = ("_endpoint",)

    def __init__(self, binding: Pending[Endpoint], options: dict[str, Any]) -> None:
        super().__init__(self._connect(binding, options))

    async def _connect(self, binding: Pending[Endpoint], options: dict[str, Any]) -> Connection:
        endpoint = self._endpoint = await binding
        try:
            connection = await endpoint.connect(**options)
        except BaseException:
            await endpoint.close()
            raise
        endpoint.close_when_empty()
        return connection

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await super().__aexit__(kind, error, traceback)
        finally:
            await self._endpoint.close()


def connect(
    target: Dialable,
    *,
    alpn: Alpns,
    transport: TransportConfig | None = None,
    timeout: float | None = None,
    secret_key: SecretKey | None = None,
    preset: Preset | None = None,
    lookup: Sequence[LookupService] = (),
) -> Pending[Connection]:
    """A connection from a new endpoint, which is closed with it: `await` it or use `async with`.

    The options are those of `Endpoint.bind` and `Endpoint.connect`; so are the errors. A program that
    dials more than once should keep an endpoint.
    """
    binding = Endpoint.bind(secret_key=secret_key, preset=preset, lookup=lookup)
    return Lone(
        binding, {"target": target, "alpn": alpn, "transport": transport, "timeout": timeout}
    )


def serve(
    handlers: Mapping[bytes, Handler],
    *,
    secret_key: SecretKey | None = None,
    bind: Sequence[BindAddress] | BindAddress | None = None,
    transport: TransportConfig | None = None,
    preset: Preset | None = None,
    lookup: Sequence[LookupService] = (),
    incoming_filter: IncomingFilter | None = None,
) -> Pending[Router]:
    """A running router on a new endpoint, which closes with it: `await` it or use `async with`.

    `router.endpoint.addr` is what peers dial. The options are those of `Endpoint.bind` and `Router`.
    """
    binding = Endpoint.bind(
        secret_key=secret_key, bind=bind, transport=transport, preset=preset, lookup=lookup
    )
    return Pending(_serve(binding, handlers, incoming_filter))


async def _serve(
    binding: Pending[Endpoint],
    handlers: Mapping[bytes, Handler],
    incoming_filter: IncomingFilter | None,
) -> Router:
    endpoint = await binding
    router = Router(endpoint, handlers, incoming_filter=incoming_filter)
    try:
        router.start(owns_endpoint=True)
    except BaseException:
        await endpoint.close()
        raise
    return router
