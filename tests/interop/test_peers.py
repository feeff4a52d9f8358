"""The peers themselves: what the tests of this folder stand on."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_the_network_is_loopback_alone() -> None:
    assert [name for _, name in socket.if_nameindex()] == ["lo"]
    with pytest.raises(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as outside:
        outside.connect(("192.0.2.1", 9))


def test_sendme_is_the_pinned_version(sendme: Path) -> None:
    run = subprocess.run([sendme, "--version"], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["sendme", "0.37.1"]


@pytest.mark.parametrize("direction", ["crates to wheel", "wheel to crates"])
async def test_upstream_talks_to_itself(
    direction: str, iroh_peer: Callable[..., Any], wheel_peer: Callable[..., Any]
) -> None:
    makers = [iroh_peer, wheel_peer]
    make_client, make_server = makers if direction == "crates to wheel" else makers[::-1]
    async with make_server(alpns={"e": "echo", "q": "queue"}) as server, make_client() as client:
        known = await client("connect", alpn="e", **server.where)
        assert known["peer"] == server.id
        stream = (await client("open", conn=known["conn"]))["stream"]
        await client("write", stream=stream, pattern=100_000, finish=True)
        reply = await client("read_all", stream=stream)
        assert (reply["length"], reply["pattern"]) == (100_000, True)

        known = await client("connect", alpn="q", **server.where)
        arrived = await server("accept")
        assert arrived["peer"] == client.id
        await server("close", conn=arrived["conn"], code=9, reason="because")
        closed = await client("closed", conn=known["conn"])
        assert closed["code"] == 9

        with pytest.raises(Exception, match="known protocol"):
            await client("connect", alpn="unknown", **server.where)
