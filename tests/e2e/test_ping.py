"""`aioiroh ping`, both ends."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aioiroh import EndpointTicket, SecretKey
from commands import DEAD, LOOPBACK, Process
from relay_process import RelayProcess

Start = Callable[..., Process]


@pytest.fixture
def answering() -> Iterator[Process]:
    process = Process(["ping", "--listen", *LOOPBACK])
    yield process
    process.kill()


def ticket_of(process: Process) -> str:
    text: str = process.until(lambda: process.out, "ticket").strip()
    return text


def test_some_questions(answering: Process, start: Start) -> None:
    ticket = ticket_of(answering)
    [address] = EndpointTicket.parse(ticket).addr.ip_addrs
    asking = start("ping", ticket, "-c", 3, "-i", 0.01, *LOOPBACK).wait(0)
    assert re.fullmatch(rf"([123]: [\d.]+ ms directly, at {address.text}\n){{3}}", asking.out)
    assert f"Reached directly, at {address.text}." in asking.err
    assert re.search(r"3 of 3 answered; least .* ms, average .* ms, most .* ms; last", asking.err)
    answering.until(lambda: "comes directly, at 127.0.0.1:" in answering.err, "guest")


def test_for_programs(answering: Process, start: Start) -> None:
    ticket = ticket_of(answering)
    asking = start("ping", ticket, "-c", 2, "-i", 0.01, "--json", *LOOPBACK).wait(0)
    names = [event["event"] for event in asking.events]
    assert names == ["connected", "way", "answer", "answer", "done"]
    assert asking.events[0]["peer"] == str(EndpointTicket.parse(ticket).addr.id)
    assert asking.events[3]["number"] == 2 and asking.events[3]["seconds"] > 0
    done = asking.events[-1]
    assert done["asked"] == done["answered"] == 2
    assert 0 < done["least"] <= done["average"] <= done["most"]


def test_until_ctrl_c(answering: Process, start: Start) -> None:
    asking = start("ping", ticket_of(answering), "-i", 0.01, *LOOPBACK)
    asking.until(lambda: asking.out.count("\n") > 4, "five answers")
    asking.signal(signal.SIGINT)
    asking.wait(0)
    assert " answered; least " in asking.err
    answering.signal(signal.SIGINT)
    answering.wait(0)


def test_who_answers_stops(answering: Process, start: Start) -> None:
    asking = start("ping", ticket_of(answering), "-i", 0.01, *LOOPBACK)
    asking.until(lambda: asking.out, "an answer")
    answering.signal(signal.SIGTERM)
    answering.wait(143)
    asking.wait(4)
    assert "error: " in asking.err and " answered; " in asking.err


def test_who_answers_is_held_up(answering: Process, start: Start) -> None:
    asking = start("ping", ticket_of(answering), "-i", 0.01, "--timeout", 2, "--json", *LOOPBACK)
    asking.event("answer")
    answering.signal(signal.SIGSTOP)
    number = asking.event("lost")["number"]
    answering.signal(signal.SIGCONT)
    asking.until(lambda: asking.events[-1].get("number", 0) > number, "another answer")
    asking.signal(signal.SIGINT)
    asking.wait(0)
    done = asking.event("done")
    assert 0 < done["answered"] < done["asked"]


def test_the_key_comes_from_the_environment(start: Start) -> None:
    key = SecretKey.generate()
    listening = start("ping", "--listen", *LOOPBACK, env={"IROH_SECRET": bytes(key).hex()})
    assert EndpointTicket.parse(ticket_of(listening)).addr.id == key.public


def test_an_id_is_found_at_the_relay_that_is_named(start: Start, tmp_path: Path) -> None:
    (tmp_path / "relay.toml").write_text('http_bind_addr = "127.0.0.1:0"\nenable_metrics = false\n')
    relay = RelayProcess(tmp_path / "relay.toml")
    try:
        at_it = ("--relay", relay.url(), *LOOPBACK)
        listening = start("ping", "--listen", *at_it)
        peer = EndpointTicket.parse(ticket_of(listening)).addr.id
        asking = start("ping", peer, "-c", 2, "-i", 0.01, *at_it).wait(0)
        assert "2 of 2 answered" in asking.err
    finally:
        relay.kill()


def test_nobody_answers(start: Start) -> None:
    asking = start("ping", DEAD, "--timeout", 0.5, *LOOPBACK).wait(4)
    assert "error: " in asking.err and "127.0.0.1:9" in asking.err
    assert "answered" not in asking.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "say whom to ask"),
        (["--listen", DEAD], "say whom to ask"),
        (["endpointxyz"], "damaged"),
        ([SecretKey.generate().public], "give its ticket, or --relay"),
        ([DEAD, "--count", 0], "--count"),
    ],
)
def test_wrong_usage(arguments: list[object], says: str, start: Start) -> None:
    assert says in start("ping", *arguments).wait(2).err
