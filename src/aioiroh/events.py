"""Structured log events, under the names that upstream gives its event targets.

Upstream's target `iroh::_events::conn::connected` is the logger `aioiroh.events.conn.connected` here,
at level DEBUG. The record carries the facts as data: `record.event` is `"conn.connected"`,
`record.fields` a dict; the message spells both for people. To follow all of them:

    logging.getLogger("aioiroh.events").setLevel(logging.DEBUG)

Emitting an event that nobody listens to costs one cached look-up.
"""

from __future__ import annotations

import logging

__all__ = [
    "Event",
    "conn_closed",
    "conn_connected",
    "conn_connecting",
    "conn_incoming",
    "direct_addrs",
    "link_change",
    "path_abandoned",
    "path_open",
    "path_selected",
    "path_set_status",
    "qnt_init",
    "relay_connected",
    "relay_home_changed",
]


class Event:
    """One kind of event; call it with the facts as keyword arguments."""

    __slots__ = ("_log", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self._log = logging.getLogger(f"aioiroh.events.{name}")

    @property
    def enabled(self) -> bool:
        """Whether anybody listens: worth asking where the facts cost something."""
        return self._log.isEnabledFor(logging.DEBUG)

    def __call__(self, **fields: object) -> None:
        """Log the event, if anybody listens."""
        if self.enabled:
            facts = " ".join(f"{key}={value}" for key, value in fields.items())
            self._log.debug(
                "%s %s",
                self.name,
                facts,
                extra={"event": self.name, "fields": fields},
                stacklevel=2,
            )


conn_connecting = Event("conn.connecting")
"""A peer is being dialled: remote_id, alpn."""
conn_incoming = Event("conn.incoming")
"""A peer knocks: remote_addr."""
conn_connected = Event("conn.connected")
"""A handshake completed: conn_id, remote_id, alpn, side."""
conn_closed = Event("conn.closed")
"""A connection ended: conn_id, remote_id, reason."""

path_open = Event("path.open")
"""A path is usable: conn_id, remote_id, path_id, remote_addr."""
path_set_status = Event("path.set_status")
"""A path became available or backup: conn_id, remote_id, path_id, status."""
path_selected = Event("path.selected")
"""Data go another way now: remote_id, remote_addr, previous."""
path_abandoned = Event("path.abandoned")
"""A path was given up: conn_id, remote_id, path_id, reason."""

qnt_init = Event("qnt.init")
"""Hole punching begins: conn_id, remote_id, local_addrs, remote_addrs."""

relay_connected = Event("relay.connected")
"""A relay took us in: url, home_relay."""
relay_home_changed = Event("relay.home_changed")
"""Another relay is home: old_relay, new_relay."""

direct_addrs = Event("direct_addrs")
"""Our own addresses changed: addrs."""
link_change = Event("link_change")
"""The network changed: is_major."""
