"""Asking a server at which address it sees us: QUIC address discovery (endpoint reference, section 3.8)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from aioiroh import _native
from aioiroh.quic.causes import loss_copy
from aioiroh.quic.observer import ConnectionObserver

if TYPE_CHECKING:
    from aioiroh.quic.driver import Driver
    from aioiroh.quic.state import ConnectionState

__all__ = ["ALPN", "CLOSE_CODE", "CLOSE_REASON", "AddressQuery"]

ALPN: Final = b"/iroh-qad/0"
CLOSE_CODE: Final = 1
CLOSE_REASON: Final = b"finished"

# Times are upstream's. The low initial guess of the round trip makes a query that nobody answers end
# soon after it is closed. A server has nothing to send but addresses, so it may open no streams.
_TRANSPORT = _native.Transport(
    initial_rtt=0.111,
    keep_alive=25.0,
    idle_timeout=35.0,
    path_keep_alive=None,
    path_idle_timeout=None,
    max_paths=0,
    nat_addresses=0,
    max_bidi_streams=0,
    max_uni_streams=0,
    datagram_receive_buffer=None,
    receive_observed_addresses=True,
)


class AddressQuery(ConnectionObserver):
    """A connection from the sockets of `driver` to an address discovery server at `address`.

    `name` is what its certificate must show, as `tls` judges it. `on_observed(address)`: the server sees
    us there; again whenever that changes. Has to be closed.
    """

    def __init__(
        self,
        driver: Driver,
        address: tuple[str, int],
        name: str,
        tls: _native.RelayTls,
        on_observed: Callable[[tuple[str, int]], None] | None = None,
    ) -> None:
        """Raises ValueError: `name` is none that a certificate can have."""
        driver.check()
        self._on_observed = on_observed
        self._first: asyncio.Future[tuple[str, int]] = driver.loop.create_future()
        native = driver.engine.connect_named(address, name, (ALPN,), tls, transport=_TRANSPORT)
        self._state = driver.adopt(native, None, self)

    async def observed(self) -> tuple[str, int]:
        """The first answer. Raises ConnectionLostError when there will be none."""
        return await asyncio.shield(self._first)

    @property
    def rtt(self) -> float:
        """Smoothed round-trip time to the server, in seconds."""
        try:
            return self._state.native.rtt() or 0.0
        except _native.NativeError:
            return 0.0

    @property
    def is_over(self) -> bool:
        """Whether the connection has ended."""
        return self._state.lost is not None

    def close(self) -> None:
        """Tell the server that nothing more is asked."""
        if self._state.lost is None:
            self._state.close(CLOSE_CODE, CLOSE_REASON)

    # --- as the connection's observer

    def observed_at(self, state: ConnectionState, path: int, address: tuple[str, int]) -> None:
        """The server tells."""
        if not self._first.done():
            self._first.set_result(address)
        if self._on_observed is not None:
            self._on_observed(address)

    def lost(self, state: ConnectionState) -> None:
        """The connection is over."""
        if not self._first.done():
            assert state.lost is not None
            self._first.set_exception(loss_copy(state.lost))
            self._first.exception()  # nobody has to ask for it
