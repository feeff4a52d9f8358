"""Interrupted at any point, a transfer goes on by the same command, and nothing comes twice."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import LOOPBACK, SLOWLY, fill, sparse, tree

Sending = Callable[..., Any]
Receive = Callable[..., Any]
Start = Callable[..., Any]

SIZE = 80 << 20
"""Two seconds of a slow sender."""
PIECE = 1 << 20
"""What a kill may lose: what was on its way to the disk."""


def hidden(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(".")]


@pytest.fixture
def big(tmp_path: Path) -> Path:
    return sparse(tmp_path / "big", SIZE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_a_signal(
    tmp_path: Path, big: Path, sending: Sending, start: Start, receive: Receive, number: int
) -> None:
    there = tmp_path / "there"
    with sending(big, program=SLOWLY) as sender:
        receiver = start("receive", *LOOPBACK, sender.ticket, "-o", there, "--json")
        receiver.under_way()
        receiver.signal(number)
        receiver.wait(128 + number)
        [kept] = [event for event in receiver.events if event["event"] == "kept"]
        assert kept["total_bytes"] == SIZE
        assert Path(kept["folder"]).parent == there
        done = receive(sender.ticket, "-o", there, "--json")
    assert done.events[-1]["received_bytes"] <= SIZE - kept["bytes"] + PIECE
    assert os.listdir(there) == ["big"]
    assert (there / "big").stat().st_size == SIZE


def test_after_kills_on_both_sides(
    tmp_path: Path, sending: Sending, start: Start, receive: Receive
) -> None:
    chance = random.Random(7)
    album = fill(tmp_path / "album", {"b": os.urandom(8 << 20), "c": b"c"})
    sparse(album / "big", 2 * SIZE)
    there = tmp_path / "there"
    came = 0
    tickets = set()
    for victim in ("receiver", "sender", "receiver"):
        with sending(album, "--json", program=SLOWLY) as sender:
            tickets.add(sender.ticket)
            receiver = start(
                "receive", *LOOPBACK, sender.ticket, "-o", there, "--json", "--timeout", "2"
            )
            reached = receiver.under_way(came + chance.randrange(1, SIZE // 16))
            (receiver if victim == "receiver" else sender).kill()
            receiver.wait(None)
            assert reached > came
            came = reached - PIECE
    assert len(tickets) == 1
    with sending(album) as sender:
        done = receive(sender.ticket, "-o", there, "--json")
    assert done.events[-1]["received_bytes"] <= 2 * SIZE + (9 << 20) - came
    assert tree(there / "album") == tree(album)
    assert hidden(there) == []


def test_a_sender_that_comes_back_is_found_again(
    tmp_path: Path, big: Path, sending: Sending, start: Start
) -> None:
    there = tmp_path / "there"
    with sending(big, program=SLOWLY) as sender:
        receiver = start(
            "receive", *LOOPBACK, sender.ticket, "-o", there, "--json", "--timeout", "3"
        )
        receiver.under_way()
        receiver.signal(signal.SIGSTOP)
    with sending(big):
        receiver.signal(signal.SIGCONT)
        receiver.event("lost")
        receiver.wait(0)
    assert receiver.events[-1]["received_bytes"] < SIZE + PIECE
    assert (there / "big").stat().st_size == SIZE


def test_a_receiver_that_is_killed_while_it_puts_files_in_place(
    tmp_path: Path, sending: Sending, start: Start, receive: Receive
) -> None:
    album = fill(tmp_path / "album", {f"{n}": b"%06d" % n * 4000 for n in range(600)})
    there = tmp_path / "there"
    with sending(album) as sender:
        receiver = start("receive", *LOOPBACK, sender.ticket, "-o", there, "--json")
        receiver.event("file", 5)
        receiver.kill()
        ticket = sender.ticket
    # What is still to be done needs no sender.
    done = receive(ticket, "-o", there, "--json", "--timeout", "1")
    assert done.events[-1]["received_bytes"] == 0
    assert tree(there / "album") == tree(album)
    assert hidden(there) == []


def test_a_file_that_the_user_takes_away_comes_again(
    tmp_path: Path, sending: Sending, start: Start, receive: Receive
) -> None:
    album = fill(tmp_path / "album", {f"{n}": os.urandom(20_000) for n in range(600)})
    there = tmp_path / "there"
    with sending(album) as sender:
        receiver = start("receive", *LOOPBACK, sender.ticket, "-o", there, "--json")
        path = Path(receiver.event("file")["path"])
        receiver.kill()
        path.write_bytes(b"changed")
        receive(sender.ticket, "-o", there, code=3)
        path.unlink()
        receive(sender.ticket, "-o", there)
    assert tree(there / "album") == tree(album)


def test_the_rest_of_an_earlier_receive_is_not_lost_to_a_smaller_one(
    tmp_path: Path, sending: Sending, start: Start, receive: Receive
) -> None:
    album = fill(tmp_path / "album", {"a": b"a"})
    sparse(album / "b", SIZE)
    there = tmp_path / "there"
    with sending(album, program=SLOWLY) as sender:
        receiver = start("receive", *LOOPBACK, sender.ticket, "-o", there, "--json")
        receiver.under_way()
        receiver.signal(signal.SIGINT)
        receiver.wait(130)
        done = receive(sender.ticket, "-o", there, "--only", "a")
        assert "of other files, from an earlier receive, stay in" in done.err
        assert os.listdir(there / "album") == ["a"]
        done = receive(sender.ticket, "-o", there, "--json")
        assert done.events[-1]["received_bytes"] < SIZE
    assert hidden(there) == []


def test_clean(tmp_path: Path, big: Path, sending: Sending, start: Start) -> None:
    there = fill(tmp_path / "there", {"mine": b"mine"})
    with sending(big, program=SLOWLY) as sender:
        receiver = start("receive", *LOOPBACK, sender.ticket, "-o", there, "--json")
        receiver.under_way()
        # It waits meanwhile, and is not done first.
        receiver.signal(signal.SIGSTOP)
        used = start("clean", there, "--yes").wait(0)
        receiver.signal(signal.SIGCONT)
        assert "is in use, and stays" in used.err
        receiver.signal(signal.SIGINT)
        receiver.wait(130)
        ticket = sender.ticket
    listed = start("clean", cwd=there).wait(0)
    assert f"aioiroh receive {ticket} -o ." in listed.out
    assert "Nothing is removed without --yes" in listed.err
    [left] = start("clean", there, "--dry-run", "--json").wait(0).events
    assert left["ticket"] == ticket
    assert left["bytes"] >= 0
    assert len(hidden(there)) == 1
    assert "removed" in start("clean", there, "--yes").wait(0).err
    assert os.listdir(there) == ["mine"]
    assert "nothing to clean" in start("clean", there).wait(0).err


def test_clean_what_was_sent(big: Path, sending: Sending, start: Start, state: Path) -> None:
    with sending(big) as sender:
        ticket = sender.ticket
        [known] = start("clean", "--sent", "-n", "--json", cwd=state).wait(0).events
        assert known["paths"] == [str(big)]
        assert "is being shared" in start("clean", "--sent", "-y", cwd=state).wait(0).err
    start("clean", "--sent", "-y", cwd=state).wait(0)
    assert os.listdir(state / "aioiroh" / "send") == []
    with sending(big) as sender:
        assert sender.ticket != ticket
