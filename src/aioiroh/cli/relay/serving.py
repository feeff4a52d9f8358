"""`aioiroh relay`: run a relay until somebody stops it."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from aioiroh.relayserver import Config, ConfigError, Limits, RelayOperation, read_config

from ..display import Display
from ..failures import ExitCode, Failure
from ..run import Interrupts

__all__ = ["RelayOptions", "check", "serve_relay"]

logger = logging.getLogger("aioiroh.relayserver")


@dataclass(frozen=True, slots=True)
class RelayOptions:
    """What was typed. `config`: the file; None: upstream's defaults. `drain`: seconds within which clients are
    sent away when the relay stops.
    """

    config: Path | None = None
    dev: bool = False
    drain: float = 5.0

    def load(self) -> Config:
        """Raises Failure: what is wrong with the file."""
        try:
            config = Config() if self.config is None else read_config(self.config)
        except ConfigError as error:
            raise Failure(str(error), ExitCode.USAGE) from None
        except OSError as error:
            raise Failure(f"{self.config}: {error.strerror}", ExitCode.USAGE) from None
        return config.for_development() if self.dev else config


async def check(options: RelayOptions, display: Display) -> int:
    """Says whether a relay could be started that way."""
    config = options.load()
    try:
        await RelayOperation.check(config, os.environ)
    except ConfigError as error:
        raise Failure(str(error), ExitCode.USAGE) from None
    display.note("The configuration is right.")
    return ExitCode.OK


async def serve_relay(options: RelayOptions, _display: Display, interrupts: Interrupts) -> int:
    """Serves until a signal, then lets the clients go. SIGHUP: read the configuration again."""
    config, files = options.load(), _use_all_files()
    limits = Limits() if files is None else Limits().within(files)
    try:
        operation = await RelayOperation.start(config, environment=os.environ, limits=limits)
    except ConfigError as error:
        raise Failure(str(error), ExitCode.USAGE) from None
    async with operation:
        hangups = asyncio.Event()
        interrupts.on_hangup = hangups.set
        _ready(operation, limits)
        try:
            while True:
                await hangups.wait()
                hangups.clear()
                await _reload(operation, options)
        except asyncio.CancelledError:
            if interrupts.received is None:
                raise
        clients = operation.clients
        logger.info("the relay stops", extra={"fields": {"clients": clients}})
        await operation.drain(options.drain)
    logger.info("the relay has stopped")
    return ExitCode.OK


def _ready(operation: RelayOperation, limits: Limits) -> None:
    fields: dict[str, object] = {
        name: f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        for name, (host, port) in operation.addresses.items()
    }
    fields["connections"] = limits.connections
    logger.info("the relay is ready", extra={"fields": fields})


def _use_all_files() -> int | None:
    """How many files it may have open; None: there is no end to it. Each client is one, and many systems allow a
    process few unless it asks for more.
    """
    try:
        import resource
    except ImportError:  # a system without such limits
        return None
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Where there is no end to it some systems take no number either.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if allowed == resource.RLIM_INFINITY else allowed


async def _reload(operation: RelayOperation, options: RelayOptions) -> None:
    try:
        later = await operation.reload(options.load())
    except (ConfigError, Failure) as error:
        logger.error("the configuration was not changed: %s", error)
        return
    logger.info("the configuration was read again")
    if later:
        logger.warning("these changes need a restart", extra={"fields": {"keys": ", ".join(later)}})
