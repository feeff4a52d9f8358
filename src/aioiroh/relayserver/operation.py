"""A relay as its configuration says: started, changed while it runs, and ended in good order."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import asdict, replace
from typing import Any, Final, Self

from aioiroh.aio import Closing, Pending, Tasks
from aioiroh.errors import BindError
from aioiroh.keys import EndpointId
from aioiroh.net import Network, SystemNetwork
from aioiroh.relayserver.access import AccessControl, access_control, with_environment
from aioiroh.relayserver.admission import AccessRequest, Allow, Deny
from aioiroh.relayserver.certificate import Certificate
from aioiroh.relayserver.config import Config, ConfigError
from aioiroh.relayserver.discovery import DiscoveryServer
from aioiroh.relayserver.limits import Limits
from aioiroh.relayserver.metrics import DiscoveryCounters, MetricsListener, metrics_text
from aioiroh.relayserver.server import RelayServer
from aioiroh.relayserver.tls import CertificateFiles

__all__ = ["RelayOperation"]

logger = logging.getLogger("aioiroh.relayserver")

LOOK_AT_CERTIFICATE: Final = 60.0
"""Seconds between two looks whether the files of a certificate have changed."""

ADVICE: Final = {
    errno.EACCES: "; ports below 1024 need root or the capability CAP_NET_BIND_SERVICE",
    errno.EADDRINUSE: "; is another relay running there?",
    errno.EADDRNOTAVAIL: "; it is no address of this machine",
}


class RelayOperation(Closing):
    """A relay, its metrics and its certificate. Made by `start`; leaving its block ends it at once."""

    def __init__(
        self,
        config: Config,
        network: Network,
        environment: Mapping[str, str],
        limits: Limits | None = None,
    ) -> None:
        """Use `start`."""
        self._config = config
        self._limits = limits or Limits()
        self._network = network
        self._environment = environment
        self._stack = AsyncExitStack()
        self._tasks = Tasks("relay operation")
        self._rule = with_environment(config.access, environment)
        self._access: AccessControl = access_control(self._rule)
        self._certificate: CertificateFiles | None = None
        self._server: RelayServer | None = None
        self._discovery: DiscoveryServer | None = None
        self._discovery_counters = DiscoveryCounters()
        self._metrics: MetricsListener | None = None

    @classmethod
    def start(
        cls,
        config: Config,
        *,
        network: Network | None = None,
        environment: Mapping[str, str] | None = None,
        limits: Limits | None = None,
    ) -> Pending[Self]:
        """Everything that `config` wants; secrets in `environment` count more than those in it, and its rates more than
        those of `limits`.

        Raises ConfigError; BindError: an address cannot be had.
        """
        return Pending(cls._start(config, network or SystemNetwork(), environment or {}, limits))

    @classmethod
    async def _start(
        cls,
        config: Config,
        network: Network,
        environment: Mapping[str, str],
        limits: Limits | None,
    ) -> Self:
        operation = cls(config, network, environment, limits)
        try:
            await operation._open()
        except BaseException:
            await operation.aclose()
            raise
        return operation

    @classmethod
    async def check(cls, config: Config, environment: Mapping[str, str]) -> None:
        """Everything that can be known before it listens. Raises ConfigError."""
        operation = cls(config, SystemNetwork(), environment)
        try:
            files = _certificate_files(config)
            if files is not None:
                files.load()
        finally:
            await operation._close_access()

    async def _open(self) -> None:
        config = self._config
        self._stack.push_async_callback(self._close_access)
        self._certificate = _certificate_files(config)
        certificate = None if self._certificate is None else self._certificate.load()
        if config.enable_relay:
            await self._open_server(certificate)
        if config.enable_quic_addr_discovery:
            self._open_discovery(certificate)
        if config.enable_metrics:
            with _binding(config.metrics_address):
                self._metrics = await MetricsListener.bind(
                    self._network, config.metrics_address, lambda: metrics_text(self.counters)
                )
            await self._stack.enter_async_context(self._metrics)
        await self._stack.enter_async_context(self._tasks)
        self._tasks.spawn(self._follow_certificate(), name="certificate")

    async def _open_server(self, certificate: Certificate | None) -> None:
        config = self._config
        https = config.https_address if config.is_https else None
        with _binding(*filter(None, (https, config.http_address))):
            self._server = await RelayServer.bind(
                http=config.http_address,
                https=https,
                certificate=None if https is None else certificate,
                access=self._judge,
                limits=replace(self._limits, rate=config.rate, accept=config.accept),
                on_disconnect=_gone,
                network=self._network,
            )
        await self._stack.enter_async_context(self._server)

    def _open_discovery(self, certificate: Certificate | None) -> None:
        assert certificate is not None
        address = self._config.quic_address
        with _binding(address), _unusable():
            self._discovery = DiscoveryServer(
                self._network,
                address,
                chain=certificate.chain,
                key=certificate.key,
                metrics=self._discovery_counters,
            )
        self._stack.push_async_callback(self._discovery.aclose)

    # --- what is known of it

    @property
    def config(self) -> Config:
        """What holds now."""
        return self._config

    @property
    def server(self) -> RelayServer | None:
        """What forwards; None if that is switched off."""
        return self._server

    @property
    def clients(self) -> int:
        """How many are here."""
        return 0 if self._server is None else self._server.clients

    @property
    def counters(self) -> dict[str, int]:
        """What was counted, under upstream's names."""
        counted = {} if self._server is None else self._server.counters
        return {**counted, **asdict(self._discovery_counters)}

    @property
    def addresses(self) -> dict[str, tuple[str, int]]:
        """Where it listens for what."""
        server = self._server
        found = {
            "http": server.http_address if server else None,
            "https": server.https_address if server else None,
            "quic": self._discovery.address if self._discovery else None,
            "metrics": self._metrics.address if self._metrics else None,
        }
        return {name: address for name, address in found.items() if address is not None}

    # --- changes

    async def reload(self, config: Config) -> list[str]:
        """Change to `config`, as far as that is possible without a restart; gives the keys for which it is not.

        Clients that the new lists do not admit are sent away. Raises ConfigError, and then nothing has
        changed.
        """
        rule = with_environment(config.access, self._environment)
        access = self._access if rule == self._rule else access_control(rule)
        try:
            files = _certificate_files(config)
            if files is not None:
                self._use_certificate(files.load())
        except BaseException:
            if access is not self._access:
                await access.close()
            raise
        fixed, wanted = _fixed(self._config), _fixed(config)
        self._config, self._rule, self._certificate = config, rule, files
        if self._server is not None:
            self._server.set_rate(config.rate)
            self._server.set_accept(config.accept)
        if access is not self._access:
            previous, self._access = self._access, access
            self._send_away()
            await previous.close()
        return [key for key in wanted if wanted[key] != fixed[key]]

    def _send_away(self) -> None:
        """Those whom the rules do not admit any more."""
        if self._server is not None:
            for endpoint_id in self._server.endpoint_ids:
                if not self._access.still_admits(endpoint_id):
                    self._server.disconnect(endpoint_id)

    async def _follow_certificate(self) -> None:
        """Takes the files of a renewed certificate; as long as they are not right, the old one stays."""
        while True:
            await asyncio.sleep(LOOK_AT_CERTIFICATE)
            files = self._certificate
            if files is None or not files.is_watched:
                continue
            # They are small and on this machine: not worth a thread.
            if not files.have_changed():
                continue
            try:
                self._use_certificate(files.load())
            except ConfigError as error:
                logger.error("the certificate has changed and cannot be used: %s", error)
            else:
                logger.info("the certificate was read again")

    def _use_certificate(self, certificate: Certificate) -> None:
        """For clients that come from now on. Raises ConfigError, and then nothing has changed."""
        if self._discovery is not None:
            with _unusable():
                self._discovery.replace_certificate(certificate.chain, certificate.key)
        if self._server is not None and self._server.https_address is not None:
            self._server.set_certificate(certificate)

    # --- clients

    async def _judge(self, request: AccessRequest) -> Allow | Deny:
        access: AccessControl | None = None
        while access is not self._access:  # what was asked before a change does not count after it
            access = self._access
            verdict = await access(request)
        facts: dict[str, Any] = {
            "endpoint_id": str(request.endpoint_id),
            "connection": request.connection_id,
            "remote": _text(request.remote),
        }
        if isinstance(verdict, Deny):
            logger.debug("a client was refused", extra={"fields": facts})
        else:
            logger.debug("a client was let in", extra={"fields": facts})
        return verdict

    async def _close_access(self) -> None:
        await self._access.close()

    # --- its end

    async def drain(self, timeout: float) -> None:
        """Take nobody in any more, and send the clients away within `timeout` seconds; see `RelayServer.drain`."""
        if self._server is not None:
            await self._server.drain(timeout)
        await self.aclose()

    async def aclose(self) -> None:
        """End everything at once."""
        await self._stack.aclose()


def _fixed(config: Config) -> dict[str, object]:
    """What a running relay cannot change, by the keys that decide it."""
    discovers, measures = config.enable_quic_addr_discovery, config.enable_metrics
    return {
        "enable_relay": config.enable_relay,
        "http_bind_addr": config.http_address,
        "tls": config.is_https,
        "tls.https_bind_addr": config.https_address if config.is_https else None,
        "enable_quic_addr_discovery": discovers,
        "tls.quic_bind_addr": config.quic_address if discovers else None,
        "enable_metrics": measures,
        "metrics_bind_addr": config.metrics_address if measures else None,
    }


def _certificate_files(config: Config) -> CertificateFiles | None:
    """The files of the certificate; None if none is needed. Raises ConfigError: it is to come by ACME."""
    needed = config.enable_quic_addr_discovery or (config.enable_relay and config.is_https)
    return CertificateFiles(config.tls) if config.tls is not None and needed else None


@contextmanager
def _binding(*addresses: tuple[str, int]) -> Iterator[None]:
    """What goes wrong with these addresses says so, and what to do."""
    try:
        yield
    except OSError as error:
        text = os.strerror(error.errno) if error.errno else str(error)
        where = " or ".join(map(_text, addresses))
        advice = ADVICE.get(error.errno or 0, "")
        raise BindError(error.errno or 0, f"cannot listen at {where}: {text}{advice}") from error


@contextmanager
def _unusable() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"the certificate cannot be used: {error}") from None


def _text(address: tuple[str, int]) -> str:
    """As people write it; IPv4 at a listener for both families is IPv4."""
    ip, port = address
    ip = ip.removeprefix("::ffff:")
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _gone(endpoint_id: EndpointId, connection_id: int) -> None:
    facts = {"endpoint_id": str(endpoint_id), "connection": connection_id}
    logger.debug("a client has gone", extra={"fields": facts})
