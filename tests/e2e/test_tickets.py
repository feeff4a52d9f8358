"""What send remembers: the same paths get the same ticket, unless something stands against it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aioiroh import Endpoint, blobs
from aioiroh.blobs import BlobTicket, MemoryStore
from commands import fill, tree

Sending = Callable[..., Any]
Receive = Callable[..., Any]
Start = Callable[..., Any]


def shared(sending: Sending, *arguments: object, **options: Any) -> tuple[str, str]:
    """Shares for a moment; gives the ticket, and what was said."""
    with sending(*arguments, **options) as sender:
        sender.signal(signal.SIGINT)
        sender.wait(0)
        return sender.ticket, sender.err


def port(ticket: str) -> int:
    return BlobTicket.parse(ticket).addr.ip_addrs[0].port


@pytest.fixture
def album(tmp_path: Path) -> Path:
    return fill(tmp_path / "here" / "album", {"a": b"a", "b/c": os.urandom(100_000)})


def test_the_same_paths_get_the_same_ticket(
    album: Path, tmp_path: Path, sending: Sending, receive: Receive
) -> None:
    ticket, _ = shared(sending, album)
    # However they are typed, and in whatever order.
    other = os.path.join("..", "here", "album")
    with sending(other, cwd=album.parent) as sender:
        assert sender.ticket == ticket
        receive(ticket, "-o", tmp_path / "there")
    assert tree(tmp_path / "there" / "album") == tree(album)
    fill(tmp_path, {"x": b"x"})
    both, _ = shared(sending, album, tmp_path / "x")
    assert both != ticket
    assert shared(sending, tmp_path / "x", album)[0] == both


def test_a_killed_sender_comes_back_with_its_ticket(album: Path, sending: Sending) -> None:
    with sending(album) as sender:
        ticket = sender.ticket
    assert shared(sending, album)[0] == ticket


def test_other_content_is_another_ticket(album: Path, sending: Sending) -> None:
    ticket, _ = shared(sending, album)
    (album / "a").write_bytes(b"other")
    again, said = shared(sending, album)
    assert again != ticket
    assert "The content is not that of last time" in said
    assert BlobTicket.parse(again).addr == BlobTicket.parse(ticket).addr


def test_new_ticket(album: Path, sending: Sending) -> None:
    ticket, _ = shared(sending, album)
    new, _ = shared(sending, album, "--new-ticket")
    assert BlobTicket.parse(new).addr.id != BlobTicket.parse(ticket).addr.id
    assert shared(sending, album)[0] == new


def test_a_port_that_is_taken(album: Path, sending: Sending) -> None:
    ticket, _ = shared(sending, album)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", port(ticket)))
        other, said = shared(sending, album)
    assert "The ports of last time are not free" in said
    assert port(other) != port(ticket)
    assert shared(sending, album)[0] == other


def test_two_senders_of_the_same(
    album: Path, tmp_path: Path, sending: Sending, receive: Receive
) -> None:
    with sending(album) as one, sending(album) as two:
        assert "Another process is sharing the same" in two.err
        assert one.ticket != two.ticket
        receive(one.ticket, "-o", tmp_path / "1")
        receive(two.ticket, "-o", tmp_path / "2")
    assert shared(sending, album)[0] == one.ticket


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# --- other ends, other ways to hand over ----------------------------------------------------------


def test_timeout_without_a_receiver(album: Path, start: Start) -> None:
    done = start("send", "--bind", "127.0.0.1:0", album, "--timeout", "0.5").wait(4)
    assert "nobody has come for 0.5 s" in done.err


def test_timeout_after_receivers(album: Path, sending: Sending) -> None:
    async def receive(ticket: str) -> None:
        async with Endpoint.bind(bind="127.0.0.1:0") as endpoint, MemoryStore() as store:
            await blobs.get(endpoint, ticket, into=store)

    with sending(album, "--timeout", "1.5") as sender:
        # Not by the command, which may take that long to start.
        asyncio.run(receive(sender.ticket))
        sender.wait(0)
    assert sender.err.endswith("Nobody came any more.\n")


def test_qr(album: Path, sending: Sending) -> None:
    with sending(album, "--qr") as sender:
        sender.until(lambda: "▀" in sender.err and sender.err.endswith("█\n"), "code")
    lines = [line for line in sender.err.splitlines() if set(line) <= set("█▀▄ ") and line]
    assert len({len(line) for line in lines}) == 1
    assert len(lines) in (len(lines[0]) // 2, len(lines[0]) // 2 + 1)


def test_qr_without_what_it_needs(album: Path, tmp_path: Path, start: Start) -> None:
    fill(tmp_path, {"modules/sitecustomize.py": b"import sys; sys.modules['segno'] = None\n"})
    done = start("send", album, "--qr", env={"PYTHONPATH_FIRST": str(tmp_path / "modules")}).wait(2)
    assert re.search(r"pip install 'aioiroh\[qr\]'", done.err)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(start: Start, shell: str) -> None:
    assert "_AIOIROH_COMPLETE" in start("completion", shell).wait(0).out


# --- standard input -------------------------------------------------------------------------------


def test_standard_input(tmp_path: Path, sending: Sending, receive: Receive, state: Path) -> None:
    data = os.urandom(3_000_000)
    fill(tmp_path, {"piped": data, "x": b"x"})
    with (tmp_path / "piped").open("rb") as file:
        cat = subprocess.Popen(["cat"], stdin=file, stdout=subprocess.PIPE)
    with sending("-", tmp_path / "x", "--name", "from/a pipe", stdin=cat.stdout) as sender:
        receive(sender.ticket, "-o", tmp_path / "there")
        sender.signal(signal.SIGINT)
        sender.wait(0)
    assert cat.stdout is not None
    cat.stdout.close()
    assert cat.wait() == 0
    assert tree(tmp_path / "there") == {"from": None, "from/a pipe": data, "x": b"x"}
    # It cannot come a second time, so nothing is remembered of it.
    assert os.listdir(state / "aioiroh" / "send") == []


def test_standard_input_from_a_file(tmp_path: Path, sending: Sending, receive: Receive) -> None:
    fill(tmp_path, {"data": b"data"})
    with (tmp_path / "data").open("rb") as file, sending("-", stdin=file) as sender:
        receive(sender.ticket, "-o", tmp_path / "there")
    assert tree(tmp_path / "there") == {"stdin": b"data"}


def test_ctrl_c_while_nothing_comes(start: Start) -> None:
    read, write = os.pipe()
    sender = start("send", "-", "--json", stdin=read)
    os.write(write, b"a beginning")
    sender.event("import")
    sender.signal(signal.SIGINT)
    sender.wait(130, seconds=10)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("arguments", [["-", "-"], ["x", "--name", "y"]])
def test_wrong_use_of_standard_input(tmp_path: Path, start: Start, arguments: list[str]) -> None:
    fill(tmp_path, {"x": b""})
    assert "--name is for standard input" in start("send", *arguments, cwd=tmp_path).wait(2).err


@pytest.mark.parametrize(("name", "code"), [("../x", 5), ("a\\b", 5), ("", 5), ("x", 2)])
def test_names_that_standard_input_cannot_have(
    tmp_path: Path, start: Start, name: str, code: int
) -> None:
    fill(tmp_path, {"x": b""})
    start("send", "-", "x", "--name", name, cwd=tmp_path).wait(code)


def test_what_is_passed_over_is_said(tmp_path: Path, sending: Sending) -> None:
    folder = fill(tmp_path / "album", {"a": b"", ".aioiroh-receive-0123456789/ticket": b""})
    (folder / "link").symlink_to("a")
    with sending(folder) as sender:
        said = sender.err
    assert "Passed over" in said
    assert "album/link" in said and ".aioiroh-receive-0123456789" in said
