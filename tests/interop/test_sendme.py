"""sendme at either end: what it sends arrives here, and what is sent from here arrives there."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from pathlib import Path

import pytest

from commands import SECONDS, SLOWLY, Process, fill, sparse, tree
from sendme_commands import Sending, quiet, sendme_receives, sendme_sends

SIZES = [0, 1023, 1024, 1025, 16383, 16384, 16385, 1024 * 1024 + 7]
SIZE = 160 << 20
"""Four seconds of a slow sender."""


def receive(ticket: str, target: Path) -> Process:
    process = Process(["receive", ticket, "-o", target])
    try:
        return process.wait(0)
    finally:
        process.kill()


def many(folder: Path) -> Path:
    """3,000 files, names in several scripts."""
    scripts = [
        "ascii",
        "naïve ü",
        "日本語",
        "кириллица",
        "عربى",
        "👩‍👩‍👧 emoji",
        "e\u0301 decomposed",
    ]
    return fill(
        folder,
        {
            f"{scripts[number % 7]}/{number // 100}/{scripts[number % 5]} {number}": os.urandom(
                number % 2500
            )
            for number in range(3000)
        },
    )


# --- from sendme --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_a_file_from_sendme(sendme: Path, tmp_path: Path, size: int) -> None:
    fill(tmp_path, {"here/a file": os.urandom(size)})
    with sendme_sends(sendme, tmp_path / "here" / "a file", tmp_path / "work") as ticket:
        receive(ticket, tmp_path / "there")
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


def test_a_folder_of_all_sizes_from_sendme(sendme: Path, tmp_path: Path) -> None:
    fill(tmp_path / "here", {f"sizes/{size}": os.urandom(size) for size in SIZES})
    with sendme_sends(sendme, tmp_path / "here" / "sizes", tmp_path / "work") as ticket:
        receive(ticket, tmp_path / "there")
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


def test_3000_files_from_sendme(sendme: Path, tmp_path: Path) -> None:
    many(tmp_path / "here" / "many")
    with sendme_sends(sendme, tmp_path / "here" / "many", tmp_path / "work") as ticket:
        receive(ticket, tmp_path / "there")
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


def test_the_same_content_twice_from_sendme(sendme: Path, tmp_path: Path) -> None:
    data = os.urandom(100_000)
    fill(tmp_path / "here", {"twins/a": data, "twins/b": data, "twins/c": b"", "twins/d": b""})
    with sendme_sends(sendme, tmp_path / "here" / "twins", tmp_path / "work") as ticket:
        receive(ticket, tmp_path / "there")
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


def test_an_empty_folder_from_sendme(sendme: Path, tmp_path: Path) -> None:
    (tmp_path / "hollow").mkdir()
    with sendme_sends(sendme, tmp_path / "hollow", tmp_path / "work") as ticket:
        receive(ticket, tmp_path / "there")
    assert tree(tmp_path / "there") == {}


# --- to sendme ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_a_file_to_sendme(sendme: Path, tmp_path: Path, sending: Sending, size: int) -> None:
    fill(tmp_path, {"here/a file": os.urandom(size)})
    with sending(tmp_path / "here" / "a file", "--once") as (sender, ticket):
        sendme_receives(sendme, ticket, tmp_path / "there")
        sender.wait(0)
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


def test_a_folder_of_all_sizes_to_sendme(sendme: Path, tmp_path: Path, sending: Sending) -> None:
    fill(tmp_path / "here", {f"sizes/{size}": os.urandom(size) for size in SIZES})
    with sending(tmp_path / "here" / "sizes", "--once") as (sender, ticket):
        sendme_receives(sendme, ticket, tmp_path / "there")
        sender.wait(0)
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


def test_3000_files_to_sendme(sendme: Path, tmp_path: Path, sending: Sending) -> None:
    many(tmp_path / "here" / "many")
    with sending(tmp_path / "here" / "many", "--once") as (sender, ticket):
        sendme_receives(sendme, ticket, tmp_path / "there")
        sender.wait(0)
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


def test_several_paths_to_sendme(sendme: Path, tmp_path: Path, sending: Sending) -> None:
    fill(tmp_path / "here", {"one": b"1", "two/a": b"2", "two/b": b"2"})
    with sending(tmp_path / "here" / "one", tmp_path / "here" / "two") as (_, ticket):
        sendme_receives(sendme, ticket, tmp_path / "there")
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


def test_an_empty_folder_to_sendme(sendme: Path, tmp_path: Path, sending: Sending) -> None:
    (tmp_path / "hollow").mkdir()
    with sending(tmp_path / "hollow") as (_, ticket):
        sendme_receives(sendme, ticket, tmp_path / "there")
    assert tree(tmp_path / "there") == {}


def test_from_a_store_to_sendme(sendme: Path, tmp_path: Path) -> None:
    fill(tmp_path / "here", {f"sizes/{size}": os.urandom(size) for size in SIZES})
    store = ["--store", tmp_path / "store"]
    adding = Process(["blob", "add", tmp_path / "here" / "sizes", *store])
    try:
        adding.wait(0)
    finally:
        adding.kill()
    providing = Process(["blob", "provide", "sizes", *store])
    try:
        ticket = providing.until(lambda: providing.out, "ticket").strip()
        sendme_receives(sendme, ticket, tmp_path / "there")
        providing.signal(signal.SIGINT)
        providing.wait(0)
    finally:
        providing.kill()
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


def sent(sender: Process) -> int:
    """Bytes sent so far on the latest connection."""
    told = [event["bytes"] for event in sender.events if event["event"] == "progress"]
    return told[-1] if told else 0


def test_sendme_goes_on_where_it_was_interrupted(
    sendme: Path, tmp_path: Path, sending: Sending
) -> None:
    (tmp_path / "here").mkdir()
    sparse(tmp_path / "here" / "big", SIZE)
    target = tmp_path / "there"
    target.mkdir()
    with sending(tmp_path / "here", "--json", "--once", program=SLOWLY) as (sender, line):
        ticket = sender.event("ticket")["ticket"]
        assert line
        command = quiet(sendme, "receive", ticket)
        with subprocess.Popen(command, cwd=target, stderr=subprocess.DEVNULL) as process:
            sender.until(lambda: sent(sender) > (40 << 20), "40 MiB of progress")
            process.send_signal(signal.SIGINT)
            process.wait(SECONDS)
        assert sender.event("disconnected")["complete"] is False
        subprocess.run(command, cwd=target, check=True, capture_output=True, timeout=SECONDS)
        last = sender.event("disconnected", 2)
        assert last["complete"] is True
        assert last["bytes"] < SIZE - (10 << 20)
        sender.wait(0)
    assert os.path.getsize(target / "here" / "big") == SIZE


def test_sendme_goes_on_after_kills_on_both_sides(
    sendme: Path, tmp_path: Path, sending: Sending
) -> None:
    chance = random.Random(3)
    (tmp_path / "here").mkdir()
    sparse(tmp_path / "here" / "big", SIZE)
    target = tmp_path / "there"
    target.mkdir()
    tickets = set()
    for victim in ("receiver", "sender"):
        with sending(tmp_path / "here", "--json", program=SLOWLY) as (sender, _):
            ticket = sender.event("ticket")["ticket"]
            tickets.add(ticket)
            command = quiet(sendme, "receive", ticket)
            with subprocess.Popen(
                command, cwd=target, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as process:
                goal = chance.randrange(20 << 20, 50 << 20)
                sender.until(lambda sender=sender, goal=goal: sent(sender) > goal, "progress")
                if victim == "sender":
                    sender.kill()
                process.kill()
    # The ticket is the same all the time, and so is what sendme has kept under its hash.
    assert len(tickets) == 1
    with sending(tmp_path / "here", "--json", "--once") as (sender, _):
        subprocess.run(command, cwd=target, check=True, capture_output=True, timeout=SECONDS)
        sender.wait(0)
        assert sent(sender) < SIZE - (20 << 20)
    assert os.path.getsize(target / "here" / "big") == SIZE


def test_a_killed_receive_from_sendme_goes_on(sendme: Path, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    size = 500 << 20
    sparse(tmp_path / "here" / "big", size)
    there = tmp_path / "there"
    reached = 0
    with sendme_sends(sendme, tmp_path / "here", tmp_path / "work") as ticket:
        for _ in range(2):
            process = Process(["receive", ticket, "-o", there, "--json"])
            try:
                reached = process.under_way(reached + (50 << 20))
            finally:
                process.kill()
        process = Process(["receive", ticket, "-o", there, "--json"])
        try:
            process.wait(0)
        finally:
            process.kill()
    assert process.events[-1]["received_bytes"] <= size - reached + (1 << 20)
    assert os.listdir(there) == ["here"]


# --- both name things alike -----------------------------------------------------------------------


def test_the_hash_is_the_same(sendme: Path, tmp_path: Path, sending: Sending) -> None:
    from aioiroh.blobs import BlobTicket

    folder = fill(
        tmp_path / "here", {"b/x": b"1", "a": b"2", "b.txt": b"3", "Ä": b"", ".h/h": b"5"}
    )
    (folder / "a link").symlink_to("a")
    with (
        sendme_sends(sendme, folder, tmp_path / "work") as theirs,
        sending(folder) as (_, ours),
    ):
        assert BlobTicket.parse(ours).content == BlobTicket.parse(theirs).content
