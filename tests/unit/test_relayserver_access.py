"""Who may use a relay."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from aioiroh import EndpointId, SecretKey
from aioiroh.relayserver import callback
from aioiroh.relayserver.access import AccessControl, access_control, with_environment
from aioiroh.relayserver.admission import AccessRequest, Allow, Deny
from aioiroh.relayserver.config import (
    AllowList,
    AskByHttp,
    Config,
    ConfigError,
    DenyList,
    Everyone,
    Rule,
    SharedToken,
)

ALICE, BOB = (SecretKey(bytes([n]) * 32).public for n in (1, 2))


def request(
    *headers: tuple[str, bytes], target: str = "/relay", id: EndpointId = ALICE
) -> AccessRequest:
    return AccessRequest(id, 7, 2, target, headers, ("127.0.0.1", 9))


async def admits(rule: Rule, request: AccessRequest) -> bool:
    return await access_control(rule)(request) == Allow()


async def test_lists() -> None:
    assert await admits(Everyone(), request())
    for rule, admitted in (
        (AllowList(frozenset([ALICE])), ALICE),
        (DenyList(frozenset([BOB])), ALICE),
        (AllowList(frozenset()), None),
    ):
        for id in (ALICE, BOB):
            assert await admits(rule, request(id=id)) is (id == admitted)
            assert access_control(rule).still_admits(id) is (id == admitted)


async def test_shared_tokens() -> None:
    rule = SharedToken(("open sesame", "other"))
    for token, welcome in (
        (b"open sesame", True),
        (b"other", True),
        (b"open", False),
        (b"open sesame ", False),
    ):
        assert await admits(rule, request(("authorization", b"Bearer " + token))) is welcome
    assert not await admits(rule, request())
    assert await admits(rule, request(target="/relay?token=open+sesame"))
    assert not await admits(rule, request(target="/relay?token=%ff"))
    assert access_control(rule).still_admits(ALICE)


def test_no_secret_is_shown() -> None:
    config = Config(access=SharedToken(("secret",)))
    asks = AskByHttp("https://may.test/?key=secret", "secret")
    asked = request(("authorization", b"Bearer secret"), target="/relay?token=secret")
    assert asked.token == "secret"
    assert "secret" not in f"{config} {asks} {asked}"


def test_secrets_from_the_environment() -> None:
    environment = {"IROH_RELAY_ACCESS_TOKEN": "t", "IROH_RELAY_HTTP_BEARER_TOKEN": "b"}
    assert with_environment(SharedToken(("a", "c")), environment) == SharedToken(("t",))
    assert with_environment(SharedToken(()), environment) == SharedToken(("t",))
    assert with_environment(AskByHttp("http://x"), environment) == AskByHttp("http://x", "b")
    assert with_environment(Everyone(), environment) == Everyone()
    for tokens in ((), ("a", "")):
        with pytest.raises(ConfigError, match="at least one token"):
            with_environment(SharedToken(tokens), {})
    with pytest.raises(ConfigError, match="IROH_RELAY_ACCESS_TOKEN"):
        with_environment(SharedToken(("a",)), {"IROH_RELAY_ACCESS_TOKEN": ""})


# --- an HTTP service decides ----------------------------------------------------------------------


@asynccontextmanager
async def service(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> AsyncIterator[tuple[str, list[web.Request]]]:
    """An HTTP service on loopback: its URL, and what it was asked."""
    asked: list[web.Request] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        asked.append(request)
        return await answer(request)

    server = web.Server(handle)  # type: ignore[arg-type]
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/may?they=come", asked
    finally:
        await runner.cleanup()


@asynccontextmanager
async def asking(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]], token: str | None = None
) -> AsyncIterator[tuple[AccessControl, list[web.Request]]]:
    async with service(answer) as (url, asked):
        access = access_control(AskByHttp(url, token))
        try:
            yield access, asked
        finally:
            await access.close()


def says(text: str, status: int = 200) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text=text, status=status)

    return answer


async def test_a_service_is_asked_as_upstream_asks() -> None:
    async with asking(says("true"), "secret") as (access, asked):
        assert await access(request()) == Allow()
        assert access.still_admits(BOB)
    [question] = asked
    assert (question.method, question.path_qs) == ("POST", "/may?they=come")
    assert question.headers["X-Iroh-Endpoint-Id"] == str(ALICE)
    assert question.headers["X-Iroh-NodeId"] == str(ALICE)
    assert question.headers["Authorization"] == "Bearer secret"
    assert question.headers["Accept-Encoding"] == "identity"


async def test_without_a_token_none_is_shown() -> None:
    async with asking(says("true")) as (access, asked):
        assert await access(request()) == Allow()
        assert "Authorization" not in asked[0].headers


@pytest.mark.parametrize(
    ("text", "status"), [("false", 200), ("true\n", 200), ("", 200), ("true", 201), ("true", 500)]
)
async def test_everything_else_denies(text: str, status: int) -> None:
    async with asking(says(text, status)) as (access, _):
        assert await access(request()) == Deny()


async def test_a_service_that_is_not_there_denies(caplog: pytest.LogCaptureFixture) -> None:
    access = access_control(AskByHttp("http://127.0.0.1:9/secret"))
    for _ in range(3):
        assert await access(request()) == Deny()
    await access.close()
    # However many come, it is said once, and without what only the two should know.
    [record] = caplog.records
    assert record.levelname == "WARNING" and "secret" not in record.getMessage()


async def test_an_answer_that_is_no_http_tells_no_secret(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-x\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        access = access_control(AskByHttp(f"http://127.0.0.1:{port}/?key=secret"))
        assert await access(request()) == Deny()
        await access.close()
    [record] = caplog.records
    assert record.levelname == "WARNING" and "secret" not in record.getMessage()


async def test_a_service_that_does_not_answer_denies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callback, "TIMEOUT", 0.05)

    async def never(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    async with asking(never) as (access, asked):
        assert await access(request()) == Deny()
        assert asked


async def test_an_answer_is_not_unpacked() -> None:
    async def packed(_: web.Request) -> web.StreamResponse:
        return web.Response(body=gzip.compress(b"true"), headers={"Content-Encoding": "gzip"})

    async with asking(packed) as (access, _):
        assert await access(request()) == Deny()


async def test_an_endless_answer_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"true" * 1000)
            written += 4000

    async with asking(endless) as (access, _):
        assert await access(request()) == Deny()
    # What its own buffers and the system's take, at the most.
    assert written < 50_000_000
