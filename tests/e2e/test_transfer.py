"""Two processes, one ticket: what was sent is what arrives."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import fill, tree

Sending = Callable[..., Any]
Receive = Callable[..., Any]

SIZES = [0, 1, 1023, 1024, 1025, 16383, 16384, 16385, 1024 * 1024 + 7]


def test_a_file(tmp_path: Path, sending: Sending, receive: Receive) -> None:
    data = os.urandom(3_000_000)
    fill(tmp_path, {"here/data.bin": data})
    with sending(tmp_path / "here" / "data.bin") as sender:
        done = receive(sender.ticket, "-o", tmp_path / "there")
    assert tree(tmp_path / "there") == {"data.bin": data}
    assert done.out == f"{tmp_path}/there/data.bin\n"


def test_to_standard_output(tmp_path: Path, sending: Sending, receive: Receive) -> None:
    data = os.urandom(9_500_000)
    fill(tmp_path, {"here/data.bin": data, "here/empty": b"", "here/text": b"hello"})
    there = tmp_path / "there"
    with sending(tmp_path / "here") as sender:
        assert "3 files for standard output" in receive(sender.ticket, "-o", "-", code=2).err
        assert receive(sender.ticket, "-o", "-", "--only", "*/text").out == "hello"
        assert receive(sender.ticket, "-o", "-", "--only", "*/empty").out == ""
        assert receive(sender.ticket, "-o", "-", "--json", code=2).out == ""
        with there.open("wb") as file:
            receive(sender.ticket, "-o", "-", "--only", "*.bin", stdout=file)
    assert there.read_bytes() == data
    with sending(tmp_path / "here" / "data.bin", "--once") as sender, there.open("wb") as file:
        receive(sender.ticket, "-o", "-", stdout=file)
        sender.wait(0)
    assert there.read_bytes() == data
    assert not list(tmp_path.glob(".aioiroh*"))


def test_only_the_ticket_is_on_standard_output(
    tmp_path: Path, sending: Sending, receive: Receive
) -> None:
    fill(tmp_path, {"a": b"a"})
    with sending(tmp_path / "a") as sender:
        receive(sender.ticket, "-o", tmp_path / "there")
        sender.signal(signal.SIGINT)
        sender.wait(0)
        assert sender.out == f"{sender.ticket}\n"
        assert sender.ticket.startswith("blob")
        assert "Sharing a (1 file, 1 B)" in sender.err
        assert "has got everything" in sender.err
        assert "\x1b" not in sender.err


def test_files_around_the_sizes_of_chunks_and_groups(
    tmp_path: Path, sending: Sending, receive: Receive
) -> None:
    folder = fill(tmp_path / "sizes", {f"{size} bytes": os.urandom(size) for size in SIZES})
    with sending(folder) as sender:
        receive(sender.ticket, "-o", tmp_path / "there")
    assert tree(tmp_path / "there" / "sizes") == tree(folder)


def test_names_of_all_kinds(tmp_path: Path, sending: Sending, receive: Receive) -> None:
    names = [
        "with spaces/ leading and trailing ",
        "naïve/café ☕",
        "日本語/ファイル.txt",
        "עברית",
        "emoji 👩‍👩‍👧",
        ".hidden/.file",
        "-o",
        "[bold]markup[/bold]",
        "quote'\"`$(x)",
        "a" * 255,
        "deep/" * 60 + "end",
    ]
    folder = fill(tmp_path / "names", {name: name.encode() for name in names})
    with sending(folder) as sender:
        receive(sender.ticket, "-o", tmp_path / "there")
    assert tree(tmp_path / "there" / "names") == tree(folder)


def test_several_paths_in_one_ticket(tmp_path: Path, sending: Sending, receive: Receive) -> None:
    fill(tmp_path / "here", {"one": b"1", "two/a": b"2a", "two/b/c": b"2bc", "not this": b""})
    with sending(tmp_path / "here" / "one", tmp_path / "here" / "two") as sender:
        done = receive(sender.ticket, "-o", tmp_path / "there")
    assert tree(tmp_path / "there") == {
        "one": b"1",
        "two": None,
        "two/a": b"2a",
        "two/b": None,
        "two/b/c": b"2bc",
    }
    assert done.out.splitlines() == [f"{tmp_path}/there/one", f"{tmp_path}/there/two"]


def test_this_folder(tmp_path: Path, sending: Sending, receive: Receive) -> None:
    folder = fill(tmp_path / "this one", {"x": b"x"})
    with sending(".", cwd=folder) as sender:
        receive(sender.ticket, "-o", tmp_path / "there")
    assert tree(tmp_path / "there") == {"this one": None, "this one/x": b"x"}


def test_into_the_current_folder(tmp_path: Path, sending: Sending, receive: Receive) -> None:
    fill(tmp_path, {"here/x": b"x"})
    (tmp_path / "there").mkdir()
    with sending("here", cwd=tmp_path) as sender:
        done = receive(sender.ticket, cwd=tmp_path / "there")
    assert tree(tmp_path / "there") == {"here": None, "here/x": b"x"}
    assert done.out == "here\n"


@pytest.mark.parametrize("files", [{}, {"only/empty": b"", "another": b""}])
def test_nothing_in_it(
    tmp_path: Path, sending: Sending, receive: Receive, files: dict[str, bytes]
) -> None:
    folder = tmp_path / "hollow"
    folder.mkdir()
    fill(folder, files)
    with sending(folder, "--once") as sender:
        receive(sender.ticket, "-o", tmp_path / "there")
        sender.wait(0)
    expected = tree(tmp_path / "hollow") if files else {}
    assert tree(tmp_path / "there" / "hollow" if files else tmp_path / "there") == expected


def test_the_same_content_under_several_names(
    tmp_path: Path, sending: Sending, receive: Receive
) -> None:
    data = os.urandom(200_000)
    folder = fill(tmp_path / "twins", {"a": data, "b": data, "c/d": data, "e": b"other"})
    with sending(folder, "--once") as sender:
        receive(sender.ticket, "-o", tmp_path / "there")
        sender.wait(0)
    assert tree(tmp_path / "there" / "twins") == tree(folder)


def test_many_files(tmp_path: Path, sending: Sending, receive: Receive) -> None:
    folder = fill(
        tmp_path / "many",
        {
            f"{number % 40}/datei-ü-{number}": b"%d" % number * (number % 300)
            for number in range(3000)
        },
    )
    with sending(folder, "--once") as sender:
        receive(sender.ticket, "-o", tmp_path / "there")
        sender.wait(0)
    assert tree(tmp_path / "there" / "many") == tree(folder)


def test_several_receivers_at_once(
    tmp_path: Path, sending: Sending, start: Callable[..., Any]
) -> None:
    folder = fill(tmp_path / "popular", {"data": os.urandom(5_000_000)})
    with sending(folder) as sender:
        receivers = [
            start("receive", "--bind", "127.0.0.1:0", sender.ticket, "-o", tmp_path / str(number))
            for number in range(4)
        ]
        for receiver in receivers:
            receiver.wait(0)
    for number in range(4):
        assert tree(tmp_path / str(number) / "popular") == tree(folder)


def test_once_ends_after_the_first_complete_transfer(
    tmp_path: Path, sending: Sending, receive: Receive
) -> None:
    fill(tmp_path, {"x": os.urandom(100_000), "there/x": b"in the way"})
    with sending(tmp_path / "x", "--once") as sender:
        # Looking and leaving is no transfer.
        receive(sender.ticket, "-o", tmp_path / "there", code=3)
        receive(sender.ticket, "-o", tmp_path / "elsewhere")
        sender.wait(0)
    assert tree(tmp_path / "elsewhere") == {"x": tree(tmp_path)["x"]}


def test_the_same_secret_address_and_files_give_the_same_ticket(
    tmp_path: Path, sending: Sending, receive: Receive
) -> None:
    fill(tmp_path, {"x": b"x"})
    with sending(tmp_path / "x", env={"IROH_SECRET": "11" * 32}) as sender:
        ticket = sender.ticket
        address = receive(ticket, "-o", tmp_path / "there", "--json").events
        assert address[0]["event"] == "connecting"
        port = _port(ticket)
        sender.signal(signal.SIGINT)
        sender.wait(0)
    with sending(
        tmp_path / "x", env={"IROH_SECRET": "11" * 32}, bind=f"127.0.0.1:{port}"
    ) as sender:
        assert sender.ticket == ticket
        receive(ticket, "-o", tmp_path / "again")


def _port(ticket: str) -> int:
    from aioiroh.blobs import BlobTicket

    return BlobTicket.parse(ticket).addr.ip_addrs[0].port


def test_a_folder_that_is_there_gets_the_new_files(
    tmp_path: Path, sending: Sending, receive: Receive
) -> None:
    folder = fill(tmp_path / "here" / "album", {"new": b"new", "sub/new": b"new"})
    fill(tmp_path / "there" / "album", {"old": b"old"})
    with sending(folder) as sender:
        receive(sender.ticket, "-o", tmp_path / "there")
    assert tree(tmp_path / "there" / "album") == {
        "new": b"new",
        "old": b"old",
        "sub": None,
        "sub/new": b"new",
    }


def test_overwrite_replaces_files(tmp_path: Path, sending: Sending, receive: Receive) -> None:
    folder = fill(tmp_path / "here" / "album", {"a": b"new", "b": b"new"})
    fill(tmp_path / "there" / "album", {"a": b"old"})
    with sending(folder) as sender:
        receive(sender.ticket, "-o", tmp_path / "there", "--overwrite")
    assert tree(tmp_path / "there" / "album") == {"a": b"new", "b": b"new"}


def test_verbose_lists_the_files(tmp_path: Path, sending: Sending, receive: Receive) -> None:
    fill(tmp_path, {"album/a": b"hello"})
    hash = "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f"
    with sending(tmp_path / "album", "-v") as sender:
        done = receive(sender.ticket, "-o", tmp_path / "there", "-v")
        assert f"{hash} album/a" in sender.err
        assert f"{hash} album/a" in done.err


def test_json_events(tmp_path: Path, sending: Sending, receive: Receive) -> None:
    fill(tmp_path, {"album/a": os.urandom(3_000_000), "album/b": b"hello"})
    with sending(tmp_path / "album", "--json", "--once") as sender:
        done = receive(sender.ticket, "-o", tmp_path / "there", "--json")
        sender.wait(0)
        told = {event["event"]: event for event in sender.events}
    assert list(told) == ["import", "ticket", "connected", "progress", "disconnected"]
    assert told["ticket"]["files"] == 2
    assert told["ticket"]["bytes"] == 3_000_005
    assert told["progress"]["bytes"] == told["progress"]["total_bytes"] == 3_000_005
    assert told["disconnected"]["complete"] is True
    assert told["connected"]["connection"] == told["disconnected"]["connection"]

    names = [event["event"] for event in done.events]
    assert names[:2] == ["connecting", "content"]
    assert names[-3:] == ["file", "file", "done"]
    content, last = done.events[1], done.events[-1]
    assert content["hash"] == told["ticket"]["hash"]
    assert (content["files"], content["bytes"]) == (2, 3_000_005)
    assert (last["files"], last["bytes"]) == (2, 3_000_005)
    assert {event["path"] for event in done.events if event["event"] == "file"} == {
        f"{tmp_path}/there/album/a",
        f"{tmp_path}/there/album/b",
    }
    assert done.err == ""


def test_over_ipv6(tmp_path: Path, sending: Sending, start: Callable[..., Any]) -> None:
    fill(tmp_path, {"x": b"x"})
    with sending(tmp_path / "x", bind="[::1]:0") as sender:
        sender.until(lambda: "at [::1]:" in sender.err, "address")
        start("receive", "--bind", "[::1]:0", sender.ticket, "-o", tmp_path / "there").wait(0)
    assert tree(tmp_path / "there") == {"x": b"x"}
