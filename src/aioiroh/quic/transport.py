"""How the connections of an endpoint behave on the wire."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, Self

from aioiroh import _native

__all__ = ["TransportConfig"]

MIN_NAT_ADDRESSES = 8
MAX_PATH_IDLE_TIMEOUT = 15.0
MAX_PATH_KEEP_ALIVE = 5.0
MIN_PATHS = 8
MAX_STREAM_RECEIVE_WINDOW = 2_500_000
MAX_TIME = 1e9
"""Seconds; with much more the engine's instants overflow."""
_MAX_SIZE = 2**62 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportConfig:
    """Transport settings of a connection; the defaults are those of iroh.

    Times are in seconds, sizes in bytes. Four settings keep peers of iroh working and are
    clamped as iroh clamps them instead of being refused: `max_paths` counts from 8 upwards,
    `nat_addresses` from 8 upwards, `path_idle_timeout` up to 15 s, `path_keep_alive` up to 5 s.
    Everything else out of range raises ValueError.
    """

    max_bidi_streams: int = 100
    """Bidirectional streams that the peer may have open at once."""
    max_uni_streams: int = 100
    """Unidirectional streams that the peer may have open at once."""
    idle_timeout: float | None = 30.0
    """Silence after which the connection counts as lost; also bounds dialling. None: the peer's."""
    keep_alive: float | None = 5.0
    """Silence after which a ping is sent. None: no pings."""
    path_idle_timeout: float | None = 15.0
    """Silence after which one of several paths is given up; at most 15."""
    path_keep_alive: float | None = 5.0
    """Silence after which one of several paths is pinged; at most 5."""
    max_paths: int = 8
    """Network paths in use at once (multipath extension); at least 8."""
    nat_addresses: int = 32
    """Candidate addresses accepted from the peer for hole punching; 8 to 255."""
    stream_receive_window: int = 1_250_000
    """Bytes of one stream that the peer may send before they are read; at most 2,500,000."""
    receive_window: int = 16 << 20
    """Bytes of all streams together that the peer may send before they are read."""
    send_window: int = 10_000_000
    """Bytes that may be sent and not yet acknowledged."""
    datagram_receive_buffer: int | None = 1_250_000
    """Unread datagrams kept, the oldest dropped beyond that. None: datagrams are refused."""
    datagram_send_buffer: int = 1 << 20
    """Datagrams waiting to be sent."""
    congestion: Literal["cubic", "newreno", "bbr3"] = "cubic"
    """Congestion controller."""
    initial_rtt: float = 0.333
    """Round-trip time assumed before the first sample."""
    initial_mtu: int = 1200
    """UDP payload size to begin with; at least 1200."""
    min_mtu: int = 1200
    """UDP payload size that every path is known to carry; at least 1200."""
    mtu_discovery: bool = True
    """Whether larger datagrams are probed for."""
    mtu_upper_bound: int = 1452
    """Largest UDP payload that is probed for."""
    segmentation_offload: bool = True
    """Whether several datagrams may leave in one system call."""
    send_fairness: bool = True
    """Whether streams of equal priority take turns, instead of first come, first served."""
    packet_threshold: int = 3
    """Reordering, in packets, after which a packet counts as lost (RFC 9002 section 6.1.1)."""
    crypto_buffer: int = 16384
    """Handshake bytes kept out of order."""
    pad_to_mtu: bool = False
    """Whether every datagram is padded to the path's MTU, to hide sizes."""
    send_observed_addresses: bool = False
    """Whether the peer is told the address it is seen at."""
    receive_observed_addresses: bool = False
    """Whether the peer is asked for the address we are seen at."""
    qlog_dir: str | Path | None = None
    """A directory that gets one qlog file per connection. ValueError unless the native part was built with
    the cargo feature `qlog` (docs/qlog.md), which costs speed."""

    def __post_init__(self) -> None:
        for name, most in _COUNTS.items():
            count = getattr(self, name)
            if count is not None and not 0 <= count <= most:
                raise ValueError(f"{name} must be from 0 to {most}")
        for name in _TIMES:
            seconds = getattr(self, name)
            if seconds is not None and not 0 < seconds <= MAX_TIME:
                raise ValueError(f"{name} must be positive and at most {MAX_TIME:g} s (or None)")
        if self.send_window < 1:
            raise ValueError("send_window must be at least 1 byte, or nothing could be sent")
        if self.crypto_buffer < 4096:
            raise ValueError(
                "crypto_buffer must be at least 4096 bytes, for the handshake (RFC 9000 7.5)"
            )
        if self.idle_timeout is not None and self.idle_timeout < 0.001:
            raise ValueError("idle_timeout must be at least 1 ms, its unit on the wire")
        if not 1 <= self.stream_receive_window <= MAX_STREAM_RECEIVE_WINDOW:
            raise ValueError(
                f"stream_receive_window must be from 1 to {MAX_STREAM_RECEIVE_WINDOW} bytes; "
                "use several streams on long fast links"
            )
        if not 1200 <= self.min_mtu <= self.initial_mtu:
            raise ValueError("min_mtu must be at least 1200 bytes, initial_mtu at least min_mtu")

    def replace(self, **changes: object) -> Self:
        """A copy with some settings changed."""
        return replace(self, **changes)  # type: ignore[arg-type]

    def native(self) -> _native.Transport:
        """The engine's form of it. ValueError: a setting that the engine refuses."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}
        settings["max_paths"] = max(self.max_paths, MIN_PATHS)
        settings["nat_addresses"] = max(self.nat_addresses, MIN_NAT_ADDRESSES)
        settings["path_idle_timeout"] = _at_most(self.path_idle_timeout, MAX_PATH_IDLE_TIMEOUT)
        settings["path_keep_alive"] = _at_most(self.path_keep_alive, MAX_PATH_KEEP_ALIVE)
        settings["qlog_dir"] = None if self.qlog_dir is None else str(self.qlog_dir)
        return _native.Transport(**settings)


_COUNTS = {
    # RFC 9000 section 4.6: a peer ends the connection over a larger limit.
    "max_bidi_streams": 2**60,
    "max_uni_streams": 2**60,
    "max_paths": 2**32 - 1,
    "nat_addresses": 255,
    "receive_window": _MAX_SIZE,
    "send_window": _MAX_SIZE,
    "datagram_receive_buffer": _MAX_SIZE,
    "datagram_send_buffer": _MAX_SIZE,
    "initial_mtu": 65527,
    "min_mtu": 65527,
    "mtu_upper_bound": 65527,
    "packet_threshold": 2**32 - 1,
    "crypto_buffer": _MAX_SIZE,
}
_TIMES = ("idle_timeout", "keep_alive", "path_idle_timeout", "path_keep_alive", "initial_rtt")


def _at_most(seconds: float | None, limit: float) -> float:
    return limit if seconds is None else min(seconds, limit)
