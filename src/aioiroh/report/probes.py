"""What is asked of a relay: where it sees us, how far it is, and whether it is the one who answers."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from aioiroh import _native
from aioiroh.address import IpAddr, RelayConfig, RelayUrl
from aioiroh.net.http import Head
from aioiroh.quic.discovery import AddressQuery
from aioiroh.quic.mapped import is_mapped
from aioiroh.relay import ServerAddress
from aioiroh.report.http import HttpError, ask
from aioiroh.report.report import Measurement, Probe

if TYPE_CHECKING:
    from aioiroh.net import TcpDialler
    from aioiroh.quic import Driver

__all__ = ["Question", "ask_relay", "check_portal", "host_of", "measure_https"]

HTTP_PORT: Final = 80
MAX_CHALLENGE: Final = 63
"""Characters of a challenge that a relay repeats."""


def host_of(url: RelayUrl) -> str:
    """The name or IP address of a relay."""
    return urlsplit(url).hostname or ""


class Question:
    """Asks one relay over one IP version where it sees the socket in `slot`, and goes on listening.

    `on_change` is called when the relay sees it somewhere else. Has to be closed.
    """

    def __init__(
        self,
        driver: Driver,
        relay: RelayConfig,
        address: str,
        slot: int,
        tls: _native.RelayTls,
        on_change: Callable[[], None],
    ) -> None:
        """Raises ValueError: the relay's host is none that a certificate can name."""
        assert relay.quic_port is not None
        self.relay = relay.url
        self.probe = Probe.QAD_IPV6 if ":" in address else Probe.QAD_IPV4
        self._slot = slot
        self._on_change = on_change
        self._answer: Measurement | None = None
        # The root dot of a name is not part of certificates.
        name = host_of(relay.url).rstrip(".")
        self._query = AddressQuery(driver, (address, relay.quic_port), name, tls, self._observed)

    async def answer(self) -> Measurement:
        """The first answer. Raises ConnectionLostError."""
        await self._query.observed()
        assert self._answer is not None
        return self._answer

    def current(self) -> Measurement | None:
        """The latest answer with the latest round-trip time; None: the relay answers no more."""
        if self._answer is None or self._query.is_over:
            return None
        return self._measured(self._answer.address)

    def close(self) -> None:
        """Nothing more is asked."""
        self._query.close()

    def _observed(self, pair: tuple[str, int]) -> None:
        before, self._answer = self._answer, self._measured(_usable(pair))
        if before is not None:
            self._on_change()

    def _measured(self, address: IpAddr | None) -> Measurement:
        return Measurement(self.probe, self.relay, self._query.rtt, address, self._slot)


def _usable(pair: tuple[str, int]) -> IpAddr | None:
    """An address where somebody could be; whatever else a relay tells is nobody's."""
    ip = ip_address(pair[0])
    strange = ip.is_unspecified or ip.is_multicast or not pair[1]
    if strange or (isinstance(ip, IPv6Address) and is_mapped(ip)):
        return None
    return IpAddr.from_pair(pair)


async def ask_relay(
    dialler: TcpDialler, url: RelayUrl, tls: _native.RelayTls
) -> tuple[float, Head]:
    """How many seconds a relay takes to answer over a new connection, and what. Raises as `measure_https`."""
    server = ServerAddress.of(url)
    start = dialler.network.monotonic()
    stream = None
    if server.server_name is not None:
        stream = _native.TlsStream(tls, server.server_name)
    answer = await ask(
        dialler, (server.host, server.port), "/ping", host=server.host_header, tls=stream
    )
    if not 200 <= answer.status < 300:
        raise HttpError(f"the relay answered with status {answer.status}")
    return dialler.network.monotonic() - start, answer


async def measure_https(
    dialler: TcpDialler, relay: RelayConfig, tls: _native.RelayTls
) -> Measurement:
    """How long a relay takes to answer over a new connection. Raises HttpError, OSError, ValueError."""
    seconds, _ = await ask_relay(dialler, relay.url, tls)
    return Measurement(Probe.HTTPS, relay.url, seconds)


async def check_portal(dialler: TcpDialler, url: RelayUrl) -> bool:
    """Whether somebody else answers in the relay's place. Raises HttpError, OSError."""
    host = host_of(url)
    # A relay repeats only such characters; upstream takes every relay with an IPv6 address for a portal.
    challenge = ("ts_" + re.sub(r"[^A-Za-z0-9._-]", "_", host))[:MAX_CHALLENGE]
    answer = await ask(
        dialler,
        (host, HTTP_PORT),
        "/generate_204",
        host=f"[{host}]" if ":" in host else host,
        headers={"x-iroh-challenge": challenge},
    )
    repeated = answer.fields.get("x-iroh-response") == f"response {challenge}"
    return answer.status != 204 or not repeated
