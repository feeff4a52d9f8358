"""Looking around for `aioiroh doctor`: what addresses there are, what relays see of us, what they answer."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Final

from aioiroh import Endpoint, _native
from aioiroh.address import RelayUrl
from aioiroh.aio import fan_out
from aioiroh.errors import AioirohError
from aioiroh.net import Network, TcpDialler
from aioiroh.portmap import probe
from aioiroh.report import NetReport
from aioiroh.report.http import HttpError
from aioiroh.report.probes import ask_relay, check_portal

from ..relays import RelayChoice
from .diagnosis import Findings

__all__ = ["look_around"]

REPORT_TIMEOUT: Final = 10.0
"""Seconds for the report of the endpoint, which takes less by itself."""
ANSWER_TIMEOUT: Final = 5.0
"""Seconds for a relay to answer over HTTP."""
MAX_AT_ONCE: Final = 16
"""Relays that are asked at a time."""

_FAILURES: Final = (OSError, ValueError, AioirohError, HttpError)


async def look_around(
    network: Network, choice: RelayChoice, bind: tuple[str, ...] = ()
) -> Findings:
    """Everything that can be found out within some seconds. Raises BindError; OSError or ValueError: the CA."""
    relays = tuple(map(RelayUrl, dict.fromkeys(choice.urls)))
    async with asyncio.TaskGroup() as group:
        probing = group.create_task(probe(network))
        asking = group.create_task(_ask_relays(network, relays, choice, bind))
    report, answers = asking.result()
    clocks = [answer.ahead for answer in answers if answer.ahead is not None]
    return Findings(
        addresses=network.local_addresses(),
        outward=network.outward_addresses(),
        relays=relays,
        report=report,
        problems={answer.url: answer.problem for answer in answers if answer.problem is not None},
        port_mapping=probing.result(),
        # A relay may be wrong itself.
        clock=min(clocks, key=abs, default=None),
    )


async def _ask_relays(
    network: Network, relays: Sequence[RelayUrl], choice: RelayChoice, bind: tuple[str, ...]
) -> tuple[NetReport | None, Sequence[_Answer]]:
    """What an endpoint reports, and what the relays answered besides. Without relays nobody is asked."""
    if not relays:
        return None, ()
    tls = _native.RelayTls(roots=None if choice.ca is None else choice.ca.read_bytes())
    async with asyncio.TaskGroup() as group:
        reporting = group.create_task(_report(network, choice, bind))
        answers = await fan_out(MAX_AT_ONCE, relays, lambda url: _try(network, url, tls, choice))
    report = reporting.result()
    seconds = {answer.url: answer.seconds for answer in answers if answer.seconds is not None}
    latency = report.relay_latency
    report = replace(report, relay_latency=replace(latency, https={**seconds, **latency.https}))
    if report.captive_portal is None:
        report = replace(report, captive_portal=await _captive(network, relays[0]))
    return report, answers


async def _report(network: Network, choice: RelayChoice, bind: tuple[str, ...]) -> NetReport:
    """What an endpoint finds out by itself."""
    async with Endpoint.bind(
        network=network, bind=bind or None, port_mapping=False, **choice.binding
    ) as endpoint:
        try:
            async with asyncio.timeout(REPORT_TIMEOUT):
                report = await endpoint.watch_net_report.wait_for(lambda report: report is not None)
        except TimeoutError:
            report = None
    return report or NetReport()


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of asking a relay. Times are seconds; `ahead`: by which our clock is ahead of its."""

    url: RelayUrl
    seconds: float | None = None
    ahead: float | None = None
    problem: str | None = None


async def _try(
    network: Network, url: RelayUrl, tls: _native.RelayTls, choice: RelayChoice
) -> _Answer:
    """Whether a relay answers, and if it does, whether it lets us in."""
    answer = await _ask(network, url, tls)
    return answer if answer.problem else replace(answer, problem=await _enter(network, url, choice))


async def _enter(network: Network, url: RelayUrl, choice: RelayChoice) -> str | None:
    """Why a relay is of no use to an endpoint; None: it is."""
    relays = replace(choice, urls=(url,)).binding
    async with Endpoint.bind(network=network, bind=(), port_mapping=False, **relays) as endpoint:
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT):
                status = await endpoint.watch_home_relay.wait_for(
                    lambda status: status and (status.is_connected or status.problem)
                )
        except TimeoutError:
            return f"nobody is let in within {ANSWER_TIMEOUT:g} s"
    return None if status is None or status.is_connected else status.problem


async def _ask(network: Network, url: RelayUrl, tls: _native.RelayTls) -> _Answer:
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            seconds, answer = await ask_relay(TcpDialler(network), url, tls)
    except TimeoutError:
        return _Answer(url, problem=f"no answer within {ANSWER_TIMEOUT:g} s")
    except _FAILURES as error:
        return _Answer(url, problem=_in_words(error))
    return _Answer(url, seconds, _ahead(network.wall_clock(), answer.fields.get("date")))


def _in_words(error: Exception) -> str:
    """Why a relay does not answer."""
    if isinstance(error, socket.gaierror):
        return f"its name cannot be looked up: {error.strerror}"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    text = str(error)
    if "UnknownIssuer" in text:
        return f"nobody who is trusted vouches for it, see --relay-ca ({text})"
    return text


def _ahead(now: float, date: str | None) -> float | None:
    """By how many seconds `now` is ahead of an HTTP date, which has whole seconds."""
    try:
        return None if date is None else now - parsedate_to_datetime(date).timestamp() - 0.5
    except (ValueError, OverflowError):
        return None


async def _captive(network: Network, url: RelayUrl) -> bool | None:
    """Whether somebody answers in the relay's place; None: nobody answers at all."""
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            return await check_portal(TcpDialler(network), url)
    except _FAILURES:
        return None
