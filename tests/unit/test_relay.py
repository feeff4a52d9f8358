"""The relay client without a relay: where to dial, when to ask for a sign of life, and liars."""

from __future__ import annotations

import asyncio
import pickle

import pytest

from aioiroh import AddressParsingError, Endpoint, RelayConfig, RelayError, RelayState, RelayUrl
from aioiroh.relay.client import MAX_PROBLEM
from aioiroh.relay.liveness import INTERVAL, Liveness
from aioiroh.relay.server_url import ServerAddress
from aioiroh.relayserver import AccessRequest, Deny, RelayServer


@pytest.mark.parametrize(
    ("url", "host", "port", "header", "target", "name"),
    [
        ("http://127.0.0.1:3340", "127.0.0.1", 3340, "127.0.0.1:3340", "/relay", None),
        (
            "https://r.example./a?token=x",
            "r.example.",
            443,
            "r.example.",
            "/relay?token=x",
            "r.example",
        ),
        ("ws://r.example", "r.example", 80, "r.example", "/relay", None),
        ("wss://u:p@r.example:8443/", "r.example", 8443, "r.example:8443", "/relay", "r.example"),
        ("https://[::1]:1/", "::1", 1, "[::1]:1", "/relay", "::1"),
    ],
)
def test_where_a_relay_is_dialled(url, host, port, header, target, name):
    assert ServerAddress.of(RelayUrl(url)) == ServerAddress(host, port, header, target, name)


def test_a_url_without_a_host():
    with pytest.raises(AddressParsingError, match="names no host"):
        ServerAddress.of(RelayUrl("mailto:somebody"))


@pytest.mark.parametrize("token", ["a\r\nHost: b", "é", "a\n", " a"])
def test_a_token_that_is_no_header(token: str):
    with pytest.raises(AddressParsingError, match="visible ASCII"):
        RelayConfig("https://r.example/", auth_token=token)
    assert RelayConfig("https://r.example/", auth_token="open sesame").auth_token


def test_when_a_relay_is_asked_and_given_up():
    liveness = Liveness(100.0)
    assert liveness.should_ask(100.0)
    liveness.ask(100.0, b"1" * 8)
    assert not liveness.should_ask(104.0) and not liveness.is_dead(104.9)
    assert liveness.is_dead(105.0)
    assert not liveness.pong_came(101.0, b"2" * 8)
    assert liveness.pong_came(101.0, b"1" * 8) and liveness.rtt == 1.0
    liveness.frame_came(101.0)
    assert liveness.deadline == 101.0 + INTERVAL
    assert not liveness.should_ask(101.0 + INTERVAL - 0.1)
    liveness.ask(116.0, b"3" * 8)
    # Three times what the last answer took, within bounds.
    assert not liveness.is_dead(118.9) and liveness.is_dead(119.0)
    liveness.pong_came(116.01, b"3" * 8)
    liveness.ask(200.0, b"4" * 8)
    assert liveness.deadline == 200.5


def test_its_error_survives_pickling():
    error = pickle.loads(pickle.dumps(RelayError("denied", "the relay refuses")))
    assert (error.kind, str(error)) == ("denied", "the relay refuses")


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (b"", "the relay closed the connection"),
        (b"SSH-2.0-x\r\n", "the answer is no HTTP"),
        (
            b"HTTP/1.1 200 OK\r\n\r\n",
            "the relay answered with HTTP status 200 in place of an upgrade",
        ),
        (b"HTTP/1.1 302 Found\r\nlocation: /\r\n\r\n", "the relay answered with HTTP status 302"),
        (b"x" * 20_000, "the answer is no HTTP"),
    ],
)
async def test_what_is_no_relay(answer: bytes, problem: str):
    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(lie, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        bound = Endpoint.bind(bind="127.0.0.1:0", relays=[f"http://127.0.0.1:{port}"])
        async with bound as endpoint, asyncio.timeout(10):
            status = await endpoint.watch_home_relay.wait_for(
                lambda status: status and status.state is RelayState.DISCONNECTED
            )
        assert status is not None and (status.problem or "").startswith(problem)
        assert endpoint.metrics.snapshot()["socket"]["relay_conns_failed"] >= 1


async def test_nobody_is_there():
    bound = Endpoint.bind(bind="127.0.0.1:0", relays=["http://127.0.0.1:1"])
    async with bound as endpoint, asyncio.timeout(10):
        status = await endpoint.watch_home_relay.wait_for(
            lambda status: status and status.state is RelayState.DISCONNECTED
        )
        assert status is not None and "cannot reach 127.0.0.1" in (status.problem or "")


async def test_the_words_of_a_relay_are_not_kept_at_any_length():
    async def talkative(_: AccessRequest) -> Deny:
        return Deny("no " * 3_000)

    async with (
        RelayServer.bind(http=("127.0.0.1", 0), access=talkative) as relay,
        Endpoint.bind(bind="127.0.0.1:0", relays=[relay.url]) as endpoint,
        asyncio.timeout(10),
    ):
        status = await endpoint.watch_home_relay.wait_for(lambda status: status and status.problem)
        assert "no no no" in status.problem
        assert len(status.problem) == MAX_PROBLEM
