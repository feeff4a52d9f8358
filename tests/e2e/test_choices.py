"""What a receiver can choose: which files, what to do about what is there; and a look beforehand."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from commands import LOOPBACK, Sender, fill, tree

Sending = Callable[..., Any]
Receive = Callable[..., Any]
Start = Callable[..., Any]

FILES = {
    "a.jpg": b"new a",
    "b.txt": b"new b",
    "raw/a.jpg": os.urandom(100_000),
    "raw/c.jpg": b"new c",
}


@pytest.fixture
def sender(tmp_path: Path, sending: Sending) -> Iterator[Sender]:
    with sending(fill(tmp_path / "here" / "album", FILES), "--json") as sender:
        yield sender


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A target where one file is right, and three other things are in the way."""
    return fill(
        tmp_path / "there" / "album",
        {"a.jpg": b"old a", "b.txt": b"new b", "raw/a.jpg": b"old", "raw/c.jpg/x": b"old"},
    )


def placed(process: Any) -> list[str]:
    return [event["name"] for event in process.events if event["event"] == "file"]


def test_overwrite(sender: Sender, there: Path, receive: Receive) -> None:
    done = receive(sender.ticket, "-o", there.parent, "--overwrite", code=3)
    assert f"{there}/raw/c.jpg\n" in done.err
    assert "a.jpg" not in done.err
    (there / "raw/c.jpg/x").unlink()
    (there / "raw/c.jpg").rmdir()
    before = (there / "b.txt").stat().st_ino
    done = receive(sender.ticket, "-o", there.parent, "--overwrite", "--json")
    assert placed(done) == ["album/a.jpg", "album/raw/a.jpg", "album/raw/c.jpg"]
    assert {name: data for name, data in tree(there).items() if data is not None} == FILES
    assert (there / "b.txt").stat().st_ino == before


def test_skip(sender: Sender, there: Path, receive: Receive) -> None:
    (there / "raw/a.jpg").unlink()
    done = receive(sender.ticket, "-o", there.parent, "--skip")
    assert "in their place: 2 files, 10 B." in done.err
    assert "There already: 1 file, 5 B." in done.err
    assert tree(there)["a.jpg"] == b"old a"
    assert tree(there)["raw/a.jpg"] == FILES["raw/a.jpg"]
    assert tree(there)["raw/c.jpg/x"] == b"old"


def test_rename(sender: Sender, there: Path, receive: Receive) -> None:
    before = tree(there)
    done = receive(sender.ticket, "-o", there.parent, "--rename")
    assert "'album/a.jpg' becomes 'album/a (1).jpg'" in done.err
    beside = {
        "a (1).jpg": FILES["a.jpg"],
        "raw/a (1).jpg": FILES["raw/a.jpg"],
        "raw/c (1).jpg": FILES["raw/c.jpg"],
    }
    assert tree(there) == {**before, **beside}
    again = receive(sender.ticket, "-o", there.parent, "--rename", "--json")
    assert placed(again) == []
    assert tree(there) == {**before, **beside}


def test_what_is_there_and_right_is_not_fetched_again(
    sender: Sender, tmp_path: Path, receive: Receive
) -> None:
    receive(sender.ticket, "-o", tmp_path / "there")
    done = receive(sender.ticket, "-o", tmp_path / "there", "--json")
    assert done.events[-1]["received_bytes"] == 0
    assert done.events[-1]["files"] == 0
    (tmp_path / "there/album/raw/a.jpg").unlink()
    done = receive(sender.ticket, "-o", tmp_path / "there", "--json")
    assert placed(done) == ["album/raw/a.jpg"]
    assert done.events[-1]["received_bytes"] == len(FILES["raw/a.jpg"])
    assert tree(tmp_path / "there/album") == {**FILES, "raw": None}


def test_only(sender: Sender, tmp_path: Path, receive: Receive) -> None:
    done = receive(
        sender.ticket, "-o", tmp_path / "there", "--only", "a.*", "--only", "album/*.txt", "--json"
    )
    files = {name: data for name, data in tree(tmp_path / "there/album").items() if data}
    assert files == {name: FILES[name] for name in ("a.jpg", "b.txt", "raw/a.jpg")}
    assert done.events[1]["files"] == 4
    assert done.events[1]["wanted_files"] == 3
    assert done.events[-1]["received_bytes"] == sum(map(len, files.values()))


def test_only_what_is_not_there(sender: Sender, tmp_path: Path, receive: Receive) -> None:
    done = receive(sender.ticket, "-o", tmp_path / "there", "--only", "*.png", code=2)
    assert "no file matches '*.png'" in done.err
    assert not (tmp_path / "there").exists()


def test_a_file_in_the_way_that_is_not_wanted(
    sender: Sender, there: Path, receive: Receive
) -> None:
    (there / "raw/a.jpg").unlink()
    receive(sender.ticket, "-o", there.parent, "--only", "album/raw/a.jpg")
    assert tree(there)["raw/a.jpg"] == FILES["raw/a.jpg"]


def test_list(sender: Sender, tmp_path: Path, start: Start) -> None:
    done = start("list", *LOOPBACK, sender.ticket, cwd=tmp_path).wait(0)
    assert [line.split(maxsplit=2) for line in done.out.splitlines()] == [
        ["5", "B", "album/a.jpg"],
        ["5", "B", "album/b.txt"],
        ["97.7", "KiB", "album/raw/a.jpg"],
        ["5", "B", "album/raw/c.jpg"],
    ]
    assert done.err == "4 files, 97.7 KiB\n"
    sender.event("disconnected")
    assert "progress" not in {event["event"] for event in sender.events}
    assert os.listdir(tmp_path) == ["here"]


def test_list_as_json(sender: Sender, start: Start) -> None:
    done = start("list", *LOOPBACK, sender.ticket, "--only", "raw", "--json").wait(0)
    names = [event["name"] for event in done.events if event["event"] == "listed"]
    assert names == ["album/raw/a.jpg", "album/raw/c.jpg"]
    assert done.events[-1]["files"] == 4
    assert done.events[-1]["wanted_bytes"] == 100_005
    assert len(json.dumps(done.events[1])) < 250
