"""What a relay has counted, as Prometheus reads it, on a listener of its own (relay protocol, section 4.10)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, cast

from aioiroh.aio import Closing
from aioiroh.net import Network
from aioiroh.relayserver.shares import Shares

if TYPE_CHECKING:
    from aioiroh.net import TcpListener

__all__ = ["DiscoveryCounters", "MetricsListener", "metrics_text"]

MAX_HEAD: Final = 16 * 1024
"""Bytes of a request."""
MAX_CONNECTIONS: Final = 64
"""Scrapers at a time, of which a sixteenth may have one address; more are sent away."""
TIMEOUT: Final = 10.0
"""Seconds for a request and its answer."""

UPSTREAM: Final = {
    "bytes_sent": "Bytes of datagrams sent to clients",
    "bytes_recv": "Bytes of datagrams received from clients",
    "send_packets_sent": "Frames with datagrams sent to clients",
    "send_packets_recv": "Frames with datagrams received from clients",
    "send_packets_dropped": "Frames with datagrams dropped, since nobody was there",
    "other_packets_sent": "Other frames sent; upstream declares it, and counts nothing",
    "other_packets_recv": "Other frames received; upstream declares it, and counts nothing",
    "other_packets_dropped": "Other frames dropped; upstream declares it, and counts nothing",
    "got_ping": "Pings received from clients",
    "sent_pong": "Answers to them",
    "unknown_frames": "Frames of unknown type; upstream declares it, and counts nothing",
    "bytes_rx_ratelimited_total": "Bytes from clients that came faster than they may",
    "conns_rx_ratelimited_total": "Clients that were slowed down, each once",
    "accepts": "Clients let in",
    "disconnects": "Clients that have gone again",
    "unique_client_keys": "Clients let in, for upstream's dashboards",
    "clients_inactive_added": "Clients put aside when another one came with the same key",
    "clients_inactive_removed": "Of those, how many are back or gone",
    "qad_incoming": "Attempts to connect for address discovery",
    "qad_incoming_error": "Of those, how many failed",
    "qad_connections": "Connections for address discovery",
    "qad_connections_closed": "Of those, how many have ended",
    "qad_connections_errored": "Of those, how many ended badly",
    "http_connections": "TCP connections accepted",
    "http_connections_closed": "Of those, how many have ended",
    "http_connections_errored": "Of those, how many ended badly",
}
"""Upstream's counters in its order; what is not counted here is written as 0."""
OURS: Final = {
    "queue_full_dropped": "Frames with datagrams dropped, since too much waited for the client",
    "access_denied": "Clients that were sent away",
    "handshakes_failed": "Connections that ended before the client had proved its key",
    "connections_refused": "TCP connections that were too many",
}
"""What upstream does not count."""


@dataclass(slots=True)
class DiscoveryCounters:
    """What address discovery counts."""

    qad_incoming: int = 0
    qad_incoming_error: int = 0
    qad_connections: int = 0
    qad_connections_closed: int = 0
    qad_connections_errored: int = 0


def metrics_text(counters: Mapping[str, int]) -> str:
    """OpenMetrics text of `counters`: upstream's, and our own."""
    # Upstream's count of different keys has each connection as another one.
    counters = {"unique_client_keys": counters.get("accepts", 0), **counters}
    lines: list[str] = []
    for name, words in {**UPSTREAM, **OURS}.items():
        family = f"relayserver_{name}"
        sample = family if name.endswith("_total") else f"{family}_total"
        lines += (
            f"# HELP {family} {words}.",
            f"# TYPE {family} counter",
            f"{sample} {counters.get(name, 0)}",
        )
    return "\n".join([*lines, "# EOF", ""])


class MetricsListener(Closing):
    """Answers every HTTP request with `text()`. An async context manager."""

    def __init__(self, listener: TcpListener, scrapers: _Scrapers) -> None:
        """Use `bind`."""
        self._listener = listener
        self._scrapers = scrapers

    @classmethod
    async def bind(
        cls, network: Network, address: tuple[str, int], text: Callable[[], str]
    ) -> Self:
        """Listen there. Raises OSError."""
        scrapers = _Scrapers(text)
        listener = await network.listen_tcp(lambda: _Scraper(scrapers), *address)
        return cls(listener, scrapers)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self._listener.address

    async def aclose(self) -> None:
        """Listen no more, and end what is being asked."""
        self._listener.close()
        for scraper in tuple(self._scrapers.here):
            scraper.abort()


class _Scrapers:
    """Who is here, and what they are told."""

    def __init__(self, text: Callable[[], str]) -> None:
        self.text = text
        self.here: dict[_Scraper, str] = {}
        """Each with whose share it is in."""
        self._shares = Shares(MAX_CONNECTIONS)

    def enter(self, scraper: _Scraper, host: str) -> bool:
        """Whether there is room for one from that IP address."""
        room = len(self.here) < MAX_CONNECTIONS and self._shares.has_room(host)
        if room:
            self.here[scraper] = self._shares.take(host)
        return room

    def leave(self, scraper: _Scraper) -> None:
        """It has gone."""
        share = self.here.pop(scraper, None)
        if share is not None:
            self._shares.give(share)


class _Scraper(asyncio.Protocol):
    """One connection, which is asked one thing."""

    def __init__(self, all: _Scrapers) -> None:
        self._all = all
        self._head = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses.
        self._transport = cast("asyncio.Transport", transport)
        name = transport.get_extra_info("peername")
        if not self._all.enter(self, str(name[0]) if name else ""):
            self._transport.abort()
            return
        self._timer = asyncio.get_running_loop().call_later(TIMEOUT, self.abort)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        if self._transport.is_closing():
            return
        self._head += data
        if b"\r\n\r\n" in self._head:
            body = self._all.text().encode()
            head = (
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            self._transport.write(head.encode() + body)
            self._transport.close()
        elif len(self._head) > MAX_HEAD:
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        self._all.leave(self)
        if self._timer is not None:
            self._timer.cancel()

    def abort(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()
