"""How peers come in to an endpoint, and who accepts them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from aioiroh import events
from aioiroh.errors import BusyError
from aioiroh.hooks import Hook, ask_after_handshake
from aioiroh.incoming import Incoming
from aioiroh.quic import Connection, Driver
from aioiroh.quic import Incoming as Knock

if TYPE_CHECKING:
    from aioiroh.aio import Tasks

__all__ = ["Doorway"]


class Doorway:
    """What comes in goes to those who `accept`, or to one who has claimed it all."""

    def __init__(self, driver: Driver, hooks: Sequence[Hook], tasks: Tasks) -> None:
        self._driver = driver
        self._hooks = tuple(hooks)
        self._tasks = tasks
        self._claimed = False
        self._accepting = 0

    async def accept(self) -> Incoming:
        """As `Endpoint.accept`."""
        if self._claimed:
            raise BusyError(
                "a router accepts this endpoint's connections; add a handler to it instead"
            )
        self._accepting += 1
        try:
            knock = await self._driver.accept()
        finally:
            self._accepting -= 1
        _announce(knock)
        return self.incoming_of(knock)

    def incoming_of(self, knock: Knock) -> Incoming:
        """What `accept` gives, of what the engine gives."""
        return Incoming(knock, self.admit, self._admit_later)

    async def admit(self, connection: Connection) -> Connection:
        """Complete the handshake of an accepted connection and ask the hooks.

        Gives it back, or closes it and raises as `Incoming.accept` does.
        """
        try:
            await connection.handshake_completed()
            if self._hooks:
                await ask_after_handshake(self._hooks, connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _admit_later(self, connection: Connection) -> None:
        async def admit() -> None:
            try:
                await self.admit(connection)
            except ConnectionError:
                # Whoever uses the connection learns it there.
                return

        if self._hooks:
            self._tasks.spawn(admit(), name="hooks")

    def claim(self, taker: Callable[[Knock], bool]) -> Callable[[], None]:
        """Give every incoming connection to `taker` and nobody else; gives the function that ends this.

        `taker(knock)` is called as soon as a peer knocks, must not raise, and returns whether it took
        it; else it can be had from `next_waiting` later. BusyError: somebody accepts already.
        """
        self._driver.check()
        if self._claimed or self._accepting:
            raise BusyError("somebody else accepts this endpoint's connections already")

        def take(knock: Knock) -> bool:
            _announce(knock)
            return taker(knock)

        def release() -> None:
            self._claimed = False
            self._driver.divert(None)

        self._claimed = True
        self._driver.divert(take)
        return release

    def next_waiting(self) -> Knock | None:
        """The next incoming connection of those that the one who has claimed them did not take."""
        return self._driver.incoming.pop()


def _announce(knock: Knock) -> None:
    if events.conn_incoming.enabled:
        events.conn_incoming(remote_addr=knock.remote_address)
