"""One relay of an endpoint: connects, stays connected, tells how it stands."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Final

from aioiroh import _native, events
from aioiroh.address import RelayAddr, RelayConfig
from aioiroh.aio import Backoff, Watch
from aioiroh.errors import RelayError
from aioiroh.quic.mapped import MAPPED_PORT, Mapped, mapped_ip
from aioiroh.relay.connection import RelayConnection
from aioiroh.relay.liveness import UNHEARD, Liveness
from aioiroh.relay.server_url import ServerAddress
from aioiroh.relay.status import RelayState, RelayStatus

if TYPE_CHECKING:
    from aioiroh.keys import EndpointId, SecretKey
    from aioiroh.metrics import SocketMetrics
    from aioiroh.net import Network, TcpDialler
    from aioiroh.quic import Driver
    from aioiroh.quic.state import ConnectionState

__all__ = ["RelayClient"]

logger = logging.getLogger("aioiroh.relay")

CONNECT_TIMEOUT: Final = 10.0
"""Seconds for the whole way from the name to the relay's consent."""
REACH_TIMEOUT: Final = 2.5
"""Seconds in which the relay has to be reached while data wait for that: the longer that takes, the more seldom the
first packet is repeated.
"""
SPACING: Final = 1.0
"""Seconds from one of these attempts to the next. They end with the connection, after half a minute."""
TICK: Final = 0.001
"""Seconds; a loop may call a little early."""
DISCARD_AFTER: Final = 3.0
"""Seconds for which datagrams wait for a relay that is being dialled."""
SHORTEST_USE: Final = 1.0
"""Seconds that a connection has to last for the next one to begin at once: a relay that takes us only to drop us must
not keep us busy.
"""
MAX_RESTART: Final = 60.0
"""Seconds from its word on for which a relay that restarts is left alone at most, whatever it says."""
MAX_PROBLEM: Final = 1024
"""Characters of a relay's own words that are kept."""
STUCK_TIMEOUT: Final = 15.0
"""Seconds for which a relay may take nothing."""

_STATUS_TEXTS = {
    0: None,
    1: "another endpoint with the same key has connected to the relay",
    2: "the relay limits how much this endpoint may send",
}


class RelayClient:
    """Carries the datagrams of `driver` to peers behind the relay that `config` names.

    `run` does the work until it is cancelled. Nothing here raises for what a relay does: `status` tells. `seed` (32
    bytes): peers get the same addresses again from a client with the same seed.
    """

    def __init__(
        self,
        config: RelayConfig,
        driver: Driver,
        network: Network,
        secret_key: SecretKey,
        tls: _native.RelayTls,
        metrics: SocketMetrics,
        dialler: TcpDialler,
        seed: bytes,
    ) -> None:
        """Raises AddressParsingError: the URL cannot be dialled."""
        self.config = config
        self._server = ServerAddress.of(config.url)
        self._driver = driver
        self._network = network
        self._secret_key = secret_key
        self._tls = tls
        self._metrics = metrics
        self._dialler = dialler
        # An address of this kind keeps the engine from using the slot for anything but routes.
        nowhere = mapped_ip(Mapped.RELAY, bytes(8))
        self._slot = driver.add_virtual(nowhere, MAPPED_PORT, self._output)
        self._native = _native.Relay(driver.engine, self._slot, seed)
        self._connection: RelayConnection | None = None
        self._liveness = Liveness(network.monotonic())
        self._limited = False
        # When the relay wants to see us again, if it has said that it restarts.
        self._back_at = 0.0
        self._discarding: asyncio.TimerHandle | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._attempt: asyncio.Timeout | None = None
        self._nudge: asyncio.Future[None] = driver.loop.create_future()
        self.status: Watch[RelayStatus] = Watch(RelayStatus(config.url, RelayState.CONNECTING))
        """How it stands."""
        self.last_sent = network.monotonic()
        """When the engine had something for it last."""

    # --- peers behind it

    def address(self, peer: EndpointId) -> tuple[str, int] | None:
        """Under which address the engine reaches that peer here; None: there are too many peers."""
        return self._native.address(bytes(peer))

    def knows(self, ip: str) -> bool:
        """Whether that is the address of a peer here."""
        return self._native.peer(ip) is not None

    @property
    def slot(self) -> int:
        """Where the engine leaves datagrams for it."""
        return self._slot

    # --- the work

    async def run(self) -> None:
        """Connects, and connects again."""
        # From 10 ms on, doubling to 16 s, and by chance up to twice as long.
        backoff = Backoff(0.02, 32.0, jitter=0.5, random=self._network.random.random)
        while True:
            self._discard_later()
            begun = self._network.monotonic()
            lasted, error = await self._connect_and_serve()
            self._tell(RelayState.DISCONNECTED, str(error))
            logger.debug("relay %s: %s", self.config.url, error)
            told = self._back_at - self._network.monotonic()
            if told > 0:
                await self._pause(told)
            elif not lasted:
                await self._pause_or_less(backoff.next(), begun)
            if lasted or self._nudge.done():
                backoff.reset()
                self._nudge = self._driver.loop.create_future()
            self._tell(RelayState.CONNECTING, str(error))

    async def _pause(self, wait: float) -> None:
        """Until the next attempt."""
        await asyncio.wait((self._nudge,), timeout=wait)

    async def _pause_or_less(self, wait: float, begun: float) -> None:
        """The same; less if data wait for it, now or meanwhile. `begun`: when the last attempt did."""
        now = self._network.monotonic()
        end, next_look = now + wait, begun + SPACING
        while now < end and not self._nudge.done():
            if now >= next_look:
                if self._is_waited_for():
                    return
                next_look = now + SPACING
            await self._pause(min(end, next_look) - now + TICK)
            now = self._network.monotonic()

    def _is_waited_for(self) -> bool:
        """Whether a connection has its data go through this relay."""
        return any(
            path["status"] == "available" and self.knows(path["remote"][0])
            for state in self._through_here()
            for path in _paths(state)
        )

    def use(self, config: RelayConfig) -> None:
        """Go on with other settings of the same relay."""
        changed = config.auth_token != self.config.auth_token
        self.config = config
        if changed:
            if self._connection is not None:
                self._connection.abort(RelayError("lost", "there is another token"))
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Do not wait any longer: for an answer, or until the next attempt."""
        if self._attempt is not None:
            self._attempt.reschedule(self._driver.loop.time())
        if not self._nudge.done():
            self._nudge.set_result(None)

    def network_changed(self, ips: Collection[str]) -> None:
        """The machine has these addresses now. A connection from one of them is asked at once whether it lives; any
        other, and an attempt to make one, begins anew.
        """
        if self._connection is not None:
            if self._connection.local_ip in (*ips, None):
                self._liveness.ask_now()
            else:
                self._connection.abort(RelayError("lost", "the network changed"))
        self._begin_anew()

    def close(self) -> None:
        """Says goodbye. `run` must have ended, or been cancelled. The slot and the addresses of peers remain; `release` gives them back."""
        self._stop_discarding()
        if self._looking is not None:
            self._looking.cancel()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self.status.close()

    def release(self) -> None:
        """After `close`: peers have no addresses here any more."""
        if not self._driver.closing:
            self._native.release()
            self._driver.remove_slot(self._slot)

    async def _connect_and_serve(self) -> tuple[bool, RelayError]:
        """One connection: whether it was of use, and why it ended."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT) as self._attempt:
                connection = await self._connect()
        except TimeoutError:
            self._metrics.relay_conns_failed += 1
            return False, RelayError("timeout", "the relay does not answer")
        except RelayError as error:
            self._metrics.relay_conns_failed += 1
            return False, error
        finally:
            self._attempt = None
        self._stop_discarding()
        self._metrics.relay_conns_success += 1
        begun = self._network.monotonic()
        self._liveness = Liveness(begun)
        self._connection = connection
        self._limited = False
        self._tell(RelayState.CONNECTED, None)
        events.relay_connected(url=self.config.url)
        self._wake_paths()
        try:
            await self._keep(connection)
        finally:
            self._metrics.relay_conns_closed += 1
        self._connection = None
        self._native.drop_connection()
        lasted = self._network.monotonic() - begun >= SHORTEST_USE
        return lasted and self._liveness.rtt is not None, connection.ended.result()

    async def _connect(self) -> RelayConnection:
        server = self._server
        try:
            self._native.open(
                host=server.host_header,
                target=server.target,
                secret_key=bytes(self._secret_key),
                entropy=self._network.secret(24),
                token=self.config.auth_token,
                tls=None if server.server_name is None else self._tls,
                server_name=server.server_name,
            )
        except ValueError as error:
            raise RelayError("tls", str(error)) from error
        consent: asyncio.Future[None] = self._driver.loop.create_future()

        def on_event(event: tuple[Any, ...]) -> None:
            if event[0] == "connected":
                consent.set_result(None)
            else:
                self._heard(event)

        def make() -> RelayConnection:
            return RelayConnection(
                self._native,
                on_event=on_event,
                on_datagrams=self._driver.injected,
                on_frames=self._frames_came,
            )

        try:
            async with asyncio.timeout(REACH_TIMEOUT if self._is_waited_for() else None):
                connection = await self._dialler.connect(
                    make, server.host, server.port, encrypted=server.server_name is not None
                )
        except TimeoutError:
            raise RelayError("timeout", "the relay does not answer") from None
        except OSError as error:
            raise RelayError("dial", f"cannot reach {server.host}: {error}") from error
        try:
            await asyncio.wait((consent, connection.ended), return_when=asyncio.FIRST_COMPLETED)
            if connection.ended.done():
                raise connection.ended.result()
        except BaseException:
            connection.abort(RelayError("timeout", "given up"))
            raise
        return connection

    async def _keep(self, connection: RelayConnection) -> None:
        """Until the connection ends."""
        stuck_since: float | None = None
        while not connection.ended.done():
            now = self._network.monotonic()
            if not connection.is_stuck:
                stuck_since = None
            elif stuck_since is None:
                stuck_since = now
            elif now - stuck_since >= STUCK_TIMEOUT:
                connection.abort(RelayError("silent", "the relay takes no more data"))
            if self._liveness.is_dead(now):
                connection.abort(RelayError("silent", "the relay has fallen silent"))
            elif self._liveness.should_ask(now):
                data = self._network.random.randbytes(8)
                self._liveness.ask(now, data)
                self._native.ping(data)
                connection.write()
            wait = min(max(self._liveness.deadline - now, 0.0), STUCK_TIMEOUT)
            await asyncio.wait(
                (connection.ended, self._nudge),
                timeout=wait,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if self._nudge.done():
                self._nudge = self._driver.loop.create_future()

    def _wake_paths(self) -> None:
        """Paths that found the relay gone ask more and more seldom whether it is back: now it is."""
        for state in self._through_here():
            with contextlib.suppress(_native.NativeError):  # it has ended meanwhile
                state.native.wake_paths()
        self._driver.touched()

    def _through_here(self) -> list[ConnectionState]:
        here = RelayAddr(self.config.url)
        return [s for s in self._driver.established() if here in s.open_paths.values()]

    # --- what comes and goes

    def _output(self, _slot: int) -> None:
        now = self.last_sent = self._network.monotonic()
        if self._connection is not None:
            self._connection.write()
            if self._liveness.sent(now) and self._looking is None:
                self._looking = self._driver.loop.call_later(UNHEARD, self._look)

    def _look(self) -> None:
        """Something was sent; if nothing has come since, it is time to ask."""
        self._looking = None
        if self._connection is not None and not self._nudge.done():
            self._nudge.set_result(None)

    def _discard_later(self) -> None:
        # What is lost QUIC sends again; what is as old as this has been sent again already.
        if self._discarding is None:
            self._discarding = self._driver.loop.call_later(DISCARD_AFTER, self._discard)

    def _discard(self) -> None:
        self._discarding = None
        self._native.discard()
        self._discard_later()

    def _stop_discarding(self) -> None:
        if self._discarding is not None:
            self._discarding.cancel()
            self._discarding = None

    def _frames_came(self) -> None:
        self._liveness.frame_came(self._network.monotonic())

    def _heard(self, event: tuple[Any, ...]) -> None:
        match event:
            case ("pong", data):
                if self._liveness.pong_came(self._network.monotonic(), data):
                    self._tell(RelayState.CONNECTED, self.status.value.problem)
            case ("status", code):
                if code == 2 and not self._limited:
                    self._limited = True
                    self._metrics.relay_conns_ratelimited += 1
                text = _STATUS_TEXTS.get(code, f"the relay reports a problem with number {code}")
                self._tell(RelayState.CONNECTED, text)
            case ("restarting", reconnect_in_ms, _):
                wait = min(reconnect_in_ms / 1000, MAX_RESTART)
                self._back_at = self._network.monotonic() + wait
            case ("health", text):
                self._tell(RelayState.CONNECTED, text)
            # ("gone", peer): it may come back, and the connections to it live as long as QUIC lets them.

    def _tell(self, state: RelayState, problem: str | None) -> None:
        latency = self._liveness.rtt if state is RelayState.CONNECTED else None
        if problem is not None:
            problem = problem[:MAX_PROBLEM]
        self.status.set(RelayStatus(self.config.url, state, problem, latency))


def _paths(state: ConnectionState) -> Sequence[dict[str, Any]]:
    try:
        return state.native.paths()
    except _native.NativeError:
        return ()  # it has ended meanwhile
