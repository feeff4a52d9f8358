"""`aioiroh blob`: a store that stays, used by one command after the other."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import LOOPBACK, Process, fill, sparse, tree

Blob = Callable[..., Process]

COMMANDS = ["add", "list", "show", "export", "tag set", "rm", "verify", "gc", "provide"]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def start_blob(start: Callable[..., Process], store: Path) -> Blob:
    """`start_blob("add", …)`: the command on the store of this test, running."""

    def run(command: str, *arguments: object, **options: Any) -> Process:
        env = {"AIOIROH_STORE": str(store), **options.pop("env", {})}
        return start("blob", *command.split(), *arguments, env=env, **options)

    return run


@pytest.fixture
def blob(start_blob: Blob) -> Blob:
    """`blob("add", …, code=0)`: the command on the store of this test, ended."""

    def run(*arguments: object, code: int = 0, **options: Any) -> Process:
        return start_blob(*arguments, **options).wait(code)

    return run


@pytest.fixture
def album(tmp_path: Path) -> Path:
    return fill(tmp_path / "album", {"a": b"aaa", "sub/b": os.urandom(200_000), "empty": b""})


def names(listing: Process) -> list[str]:
    return [line.split("  ")[0] for line in listing.out.splitlines()]


# --- in and out ----------------------------------------------------------------------------------


def test_a_folder_in_and_out(tmp_path: Path, album: Path, blob: Blob) -> None:
    added = blob("add", album)
    assert "Added 3 files, 195.3 KiB; its tag is 'album'." in added.err
    hash = added.out.strip()
    assert hash.startswith("s") and len(hash) == 65
    expected = tree(album)
    for what in ("album", hash):
        done = blob("export", what, "-o", tmp_path / what / "there")
        assert tree(tmp_path / what / "there" / "album") == expected
        assert done.out.splitlines() == [f"{tmp_path}/{what}/there/album"]


def test_one_file_is_a_blob_and_with_wrap_a_collection(tmp_path: Path, blob: Blob) -> None:
    fill(tmp_path, {"note": b"hello"})
    hash = blob("add", tmp_path / "note").out.strip()
    assert hash == "ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f"
    blob("export", hash, "-o", tmp_path / "by hash")
    blob("export", "note", "-o", tmp_path / "by tag")
    assert tree(tmp_path / "by hash") == {hash: b"hello"}
    assert tree(tmp_path / "by tag") == {"note": b"hello"}
    assert blob("add", tmp_path / "note", "--wrap", "--tag", "wrapped").out.startswith("s")
    assert "collection of 1 file" in blob("show", "wrapped").out


def test_standard_input_and_output(tmp_path: Path, store: Path, blob: Blob) -> None:
    data = os.urandom(3_000_000)
    command = ["blob", "add", "-", "--tag", "piped", "--store", str(store)]
    adding = Process.spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    out, _ = adding.communicate(data, timeout=60)
    assert adding.returncode == 0
    writing = Process.spawn(
        ["blob", "export", out.decode().strip(), "-o", "-", "--store", str(store)],
        stdout=subprocess.PIPE,
    )
    assert writing.communicate(timeout=60)[0] == data
    assert writing.returncode == 0
    fill(tmp_path, {"file": data})
    with (tmp_path / "file").open("rb") as file:
        assert blob("add", "-", "--tag", "again", stdin=file).out == out.decode()


def test_several_paths_are_one_collection(tmp_path: Path, album: Path, blob: Blob) -> None:
    fill(tmp_path, {"note": b"n"})
    blob("add", tmp_path / "note", album, "--tag", "both")
    blob("export", "both", "-o", tmp_path / "there")
    assert tree(tmp_path / "there") == {
        "note": b"n",
        "album": None,
        **{f"album/{name}": data for name, data in tree(album).items()},
    }


def test_what_is_in_the_way(tmp_path: Path, album: Path, blob: Blob) -> None:
    blob("add", album)
    there = fill(tmp_path / "there", {"album/a": b"old"})
    done = blob("export", "album", "-o", there, code=3)
    assert f"{there}/album/a" in done.err
    assert tree(there) == {"album": None, "album/a": b"old"}
    blob("export", "album", "-o", there, "--rename")
    assert (there / "album" / "a").read_bytes() == b"old"
    assert (there / "album" / "a (1)").read_bytes() == b"aaa"
    blob("export", "album", "-o", there, "--overwrite")
    assert (there / "album" / "a").read_bytes() == b"aaa"


def test_only_some_files(tmp_path: Path, album: Path, blob: Blob) -> None:
    blob("add", album)
    blob("export", "album", "--only", "album/sub", "-o", tmp_path / "there")
    assert list(tree(tmp_path / "there")) == ["album", "album/sub", "album/sub/b"]


def test_what_was_exported_is_no_longer_the_stores(tmp_path: Path, album: Path, blob: Blob) -> None:
    blob("add", album)
    blob("export", "album", "-o", tmp_path / "there")
    (tmp_path / "there" / "album" / "sub" / "b").write_bytes(b"changed")
    (album / "sub" / "b").unlink()
    assert "all of it is good" in blob("verify").err
    blob("export", "album", "-o", tmp_path / "again")


# --- names ---------------------------------------------------------------------------------------


def test_the_tag_of_other_content_is_not_taken_away(tmp_path: Path, blob: Blob) -> None:
    fill(tmp_path, {"one/x": b"1", "two/x": b"2"})
    blob("add", tmp_path / "one" / "x")
    assert "its tag is 'x-2'" in blob("add", tmp_path / "two" / "x").err
    assert "its tag is 'x'." in blob("add", tmp_path / "one" / "x").err
    assert names(blob("list")) == ["x", "x-2"]
    assert names(blob("list", "x-")) == ["x-2"]


def test_tags(tmp_path: Path, blob: Blob) -> None:
    fill(tmp_path, {"x": b"x", "y": b"y"})
    x, y = blob("add", tmp_path / "x").out.strip(), blob("add", tmp_path / "y").out.strip()
    blob("tag set", "new", x)
    assert f"It named {x} before." in blob("tag set", "new", "y").err
    assert "has the name 'x' already" in blob("tag rename", "new", "x", code=3).err
    blob("tag rename", "new", "ümläut ☕")
    assert blob("show", "ümläut ☕", "--json").events[0]["hash"] == y
    assert "no tag 'absent'" in blob("tag delete", "x", "absent", code=2).err
    blob("tag delete", "x", "y")
    assert names(blob("list")) == ["ümläut ☕"]
    assert "nothing has the name 'x'" in blob("show", "x", code=2).err


def test_collecting_and_removing(tmp_path: Path, album: Path, blob: Blob) -> None:
    fill(tmp_path, {"a": b"aaa", "x": b"x"})
    blob("add", album)
    shared = blob("add", tmp_path / "a", "--tag", "same").out
    x = blob("add", tmp_path / "x").out
    blob("tag delete", "x")
    for _ in range(2):
        assert blob("gc", "--dry-run").out == x
    assert "Deleted 1 blob, 1 B." in blob("gc").err
    assert "has the tag 'same'" in blob("rm", shared.strip(), code=3).err
    # The album needs it still.
    assert "Removed 0 blobs" in blob("rm", "same").err
    assert "is a part of what has a tag" in blob("rm", shared.strip(), code=3).err
    blob("verify", "album")
    blob("rm", "album")
    assert blob("list", "--blobs").out == ""


# --- checking ------------------------------------------------------------------------------------


def test_a_reference_that_changed(tmp_path: Path, blob: Blob) -> None:
    path = fill(tmp_path, {"big": os.urandom(1 << 20)}) / "big"
    hash = blob("add", path, "--reference").out.strip()
    assert "all of it is good" in blob("verify").err
    path.write_bytes(os.urandom(1 << 20))
    done = blob("verify", code=5)
    assert hash in done.out
    assert "1 is damaged" in done.err
    blob("verify", "--repair", code=5)
    assert "all of it is good" in blob("verify").err
    assert "has nothing of big" in blob("export", "big", "-o", tmp_path, code=1).err


def test_a_copy_does_not_care(tmp_path: Path, blob: Blob) -> None:
    path = fill(tmp_path, {"big": os.urandom(1 << 20)}) / "big"
    data = path.read_bytes()
    blob("add", path)
    path.write_bytes(b"other")
    assert "all of it is good" in blob("verify").err
    blob("export", "big", "-o", tmp_path / "there")
    assert (tmp_path / "there" / "big").read_bytes() == data


# --- serving -------------------------------------------------------------------------------------


def serve(start_blob: Blob, *arguments: object) -> tuple[Process, dict[str, str]]:
    """A provider, and its tickets by name."""
    provider = start_blob("provide", *LOOPBACK, "--json", *arguments)
    provider.event("ticket")
    return provider, {e["name"]: e["ticket"] for e in provider.events if e["event"] == "ticket"}


def test_providing(
    tmp_path: Path, album: Path, blob: Blob, start_blob: Blob, receive: Callable[..., Process]
) -> None:
    blob("add", album)
    provider, tickets = serve(start_blob)
    receive(tickets["album"], "-o", tmp_path / "there")
    assert tree(tmp_path / "there" / "album") == tree(album)
    assert provider.event("disconnected")["bytes"] >= 200_003
    provider.signal(signal.SIGINT)
    provider.wait(0)


def test_only_what_is_offered_is_served(
    tmp_path: Path, blob: Blob, start_blob: Blob, receive: Callable[..., Process]
) -> None:
    fill(tmp_path, {"x": b"x", "y": b"y"})
    x, y = blob("add", tmp_path / "x").out.strip(), blob("add", tmp_path / "y").out.strip()
    blob("tag delete", "y")
    for options, allowed in (((), True), (("--tagged",), False), (("x",), False)):
        provider, tickets = serve(start_blob, *options)
        other = replaced(tickets["x"], y)
        receive(tickets["x"], "-o", tmp_path / "there")
        receive(other, "-o", tmp_path / "there", code=0 if allowed else 5)
        provider.signal(signal.SIGTERM)
        provider.wait(143)
        for path in (tmp_path / "there").iterdir():
            path.unlink()
    assert x != y


def replaced(ticket: str, hash: str) -> str:
    """A ticket of the same provider for something else."""
    from aioiroh.blobs import BlobTicket, Hash

    return str(BlobTicket(BlobTicket.parse(ticket).addr, Hash.parse(hash)))


def test_one_process_at_a_time(tmp_path: Path, blob: Blob, start_blob: Blob) -> None:
    fill(tmp_path, {"x": b"x"})
    blob("add", tmp_path / "x")
    provider, _ = serve(start_blob)
    done = blob("list", code=3)
    assert "in use by another process" in done.err
    assert "--store" in done.err
    provider.kill()
    blob("list")


# --- what goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["list"], ["show", "x"], ["gc"], ["verify"], ["provide"]])
def test_a_store_that_is_not_there(store: Path, blob: Blob, command: list[str]) -> None:
    assert f"no store at {store}" in blob(*command, code=2).err
    assert not store.exists()


def test_a_folder_of_something_else(store: Path, blob: Blob) -> None:
    fill(store, {"somebody's": b"file"})
    assert blob("list", code=1).err.startswith("error: ")
    assert tree(store) == {"somebody's": b"file"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["add", "-", "x"], "has no name"),
        (["add", "-", "--wrap"], "has no name"),
        (["add", "absent"], "does not exist"),
        (["add"], "Missing argument"),
        (["list", "x", "--blobs"], "no names"),
        (["export", "x", "-o", "-", "--json"], "leave the other options out"),
    ],
)
def test_wrong_use(tmp_path: Path, blob: Blob, arguments: list[str], says: str) -> None:
    assert says in blob(*arguments, code=2, cwd=tmp_path).err


def test_nothing_is_left_of_an_add_that_was_interrupted(
    tmp_path: Path, blob: Blob, start_blob: Blob
) -> None:
    blob("add", fill(tmp_path, {"x": b"x"}) / "x")
    adding = start_blob("add", sparse(tmp_path / "big", 8 << 30), "--json")
    adding.event("import")
    adding.signal(signal.SIGKILL)
    adding.wait(None)
    assert names(blob("list")) == ["x"]
    assert "all of it is good" in blob("verify").err


# --- for people ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples(start: Callable[..., Process], command: str) -> None:
    out = start("blob", *command.split(), "--help").wait(0).out
    assert "Examples:" in out
    assert f"aioiroh blob {command}" in out
    assert "AIOIROH_STORE" in out


def test_completion_of_tags(tmp_path: Path, blob: Blob) -> None:
    fill(tmp_path, {"photos": b"1", "phone": b"2", "x": b"3"})
    for name in ("photos", "phone", "x"):
        blob("add", tmp_path / name)
    env = {
        "_AIOIROH_COMPLETE": "bash_complete",
        "COMP_WORDS": "aioiroh blob show ph",
        "COMP_CWORD": "3",
    }
    assert blob("show", env=env).out.splitlines() == ["plain,phone", "plain,photos"]
