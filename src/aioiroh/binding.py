"""From what an application wants of an endpoint to an engine that does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from aioiroh import _native
from aioiroh.address import RelayMap
from aioiroh.keys import SecretKey
from aioiroh.net import Network, Proxies
from aioiroh.paths.guessing import Guessing
from aioiroh.presets import EndpointOptions, Preset, bind_addresses, udp_address
from aioiroh.quic import Driver
from aioiroh.quic.alpn import checked_alpns

if TYPE_CHECKING:
    from aioiroh.metrics import Metrics
    from aioiroh.paths import Steering
    from aioiroh.whereabouts import Whereabouts

__all__ = ["guess_ports", "make_driver", "options_of"]

MAX_BUSY_POLL: Final = 0.001
"""Seconds; more would hold up the other tasks of the loop."""


def options_of(preset: Preset | None, given: dict[str, Any]) -> EndpointOptions:
    """The options of a preset, and those that are given: not None.

    Given ones count more; of what there may be several, they are added. Raises AddressParsingError, ValueError.
    """
    options = EndpointOptions() if preset is None else preset(EndpointOptions())
    changes = {name: value for name, value in given.items() if value is not None}
    if "bind" in changes:
        changes["bind"] = bind_addresses(changes["bind"])
    if not isinstance(changes.get("relays"), RelayMap | None):
        changes["relays"] = RelayMap(changes["relays"])
    if isinstance(changes.get("proxy"), str):
        changes["proxy"] = Proxies.all(changes["proxy"])
    changes["external_addrs"] = map(udp_address, changes["external_addrs"])
    for name in ("external_addrs", "lookup", "hooks", "custom_transports"):
        changes[name] = (*getattr(options, name), *changes[name])
    options = replace(options, **changes)
    if not 0 <= options.busy_poll <= MAX_BUSY_POLL:
        raise ValueError(f"busy_poll must be from 0 to {MAX_BUSY_POLL:g} s")
    return options


def make_driver(
    secret_key: SecretKey, alpns: Sequence[bytes], options: EndpointOptions, network: Network
) -> Driver:
    """An engine without sockets, driven by the running loop. Raises InvalidAlpnError, OSError for `keylog`."""
    clock = network.engine_clock
    engine = _native.Engine(
        bytes(secret_key),
        alpns=checked_alpns(alpns) if alpns else (),
        transport=None if options.transport is None else options.transport.native(),
        keylog=options.keylog,
        clock=clock,
        # What else the engine draws at random must be repeatable in virtual time.
        seed=None if clock is None else network.secret(32),
        max_incoming=options.max_incoming,
        retry_above=options.retry_above,
        max_tickets=options.max_tickets,
    )
    return Driver(
        engine,
        virtual=clock is not None,
        max_incoming=options.max_incoming,
        busy_poll=options.busy_poll,
    )


def guess_ports(
    driver: Driver, network: Network, metrics: Metrics, where: Whereabouts, steering: Steering
) -> None:
    """Have ports guessed where hole punching alone finds no direct path."""

    def make(on_announce: Callable[[bytes], None]) -> Guessing:
        return Guessing(
            driver,
            network,
            metrics.guessing,
            sockets=lambda: where.sockets.slots,
            mapping=lambda: where.mapping,
            on_announce=on_announce,
        )

    steering.use_guessing(make)
