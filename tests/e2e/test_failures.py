"""What goes wrong is said in a sentence, ends with the documented code, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from commands import DEAD, LOOPBACK, SLOWLY, fill, sparse, tree

Sending = Callable[..., Any]
Receive = Callable[..., Any]
Start = Callable[..., Any]

# --- wrong words ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ticket", "says"),
    [
        ("nonsense", "starts with 'blob'"),
        ("blobabc", "damaged"),
        (DEAD[:-20], "damaged"),
        ("endpointaa", "endpoint"),
        ("", "starts with 'blob'"),
    ],
)
def test_what_is_no_ticket(tmp_path: Path, receive: Receive, ticket: str, says: str) -> None:
    done = receive(ticket, "-o", tmp_path / "there", code=2)
    assert says in done.err
    assert done.out == ""
    assert not (tmp_path / "there").exists()


def test_a_path_that_is_not_there(tmp_path: Path, start: Start) -> None:
    done = start("send", tmp_path / "absent").wait(2)
    assert "absent' does not exist" in done.err
    assert done.out == ""


def test_no_path(start: Start) -> None:
    assert "Missing argument" in start("send").wait(2).err


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost:0", "127.0.0.1:99999", "::1:0"])
def test_what_is_no_address(tmp_path: Path, start: Start, address: str) -> None:
    done = start("send", "--bind", address, fill(tmp_path, {"x": b""})).wait(2)
    assert "--bind" in done.err


def test_an_address_that_is_not_ours(tmp_path: Path, start: Start) -> None:
    done = start("send", "--bind", "192.0.2.1:0", fill(tmp_path, {"x": b""})).wait(1)
    assert "cannot bind 192.0.2.1:0" in done.err


def test_a_secret_that_is_none(tmp_path: Path, start: Start) -> None:
    environment = {"IROH_SECRET": "geheim"}
    done = start("send", fill(tmp_path, {"x": b""}), env=environment).wait(2)
    assert "IROH_SECRET" in done.err
    assert "geheim" not in done.err


def test_two_things_of_the_same_name(tmp_path: Path, start: Start) -> None:
    fill(tmp_path, {"a/x": b"1", "b/x": b"2"})
    done = start("send", *LOOPBACK, tmp_path / "a" / "x", tmp_path / "b" / "x").wait(2)
    assert "two files would be called 'x'" in done.err


def test_a_name_that_is_not_unicode(tmp_path: Path, start: Start) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9", "wb"):
        pass
    done = start("send", *LOOPBACK, tmp_path).wait(5)
    assert "not UTF-8" in done.err


# --- nobody there --------------------------------------------------------------------------------


def test_a_sender_that_is_not_there(tmp_path: Path, receive: Receive) -> None:
    began = time.monotonic()
    done = receive(DEAD, "-o", tmp_path / "there", "--timeout", "1.5", code=4)
    assert time.monotonic() - began < 15
    assert "127.0.0.1:9" in done.err
    assert "no answer" in done.err
    assert not (tmp_path / "there").exists()


def test_a_sender_that_shares_something_else(
    tmp_path: Path, sending: Sending, receive: Receive
) -> None:
    from aioiroh.blobs import BlobFormat, BlobTicket, Hash

    fill(tmp_path, {"x": b"x"})
    with sending(tmp_path / "x") as sender:
        known = BlobTicket.parse(sender.ticket)
        other = BlobTicket(known.addr, Hash.of(b"other"), BlobFormat.HASH_SEQ)
        done = receive(str(other), "-o", tmp_path / "there", code=5)
    assert "lacks" in done.err


def test_a_sender_that_is_killed(tmp_path: Path, sending: Sending, start: Start) -> None:
    sparse(tmp_path / "big", 200 << 20)
    there = tmp_path / "there"
    with sending(tmp_path / "big", program=SLOWLY) as sender:
        receiver = start(
            "receive", *LOOPBACK, sender.ticket, "-o", there, "--json", "--timeout", "2"
        )
        receiver.under_way()
        assert [path.name[:9] for path in there.iterdir()] == [".aioiroh-"]
        sender.kill()
        receiver.wait(4, seconds=12)
    assert "no longer answers" in receiver.err or "has sent nothing" in receiver.err
    assert [path.name[:9] for path in there.iterdir()] == [".aioiroh-"]


def test_a_sender_that_is_stopped_mid_way(tmp_path: Path, sending: Sending, start: Start) -> None:
    sparse(tmp_path / "big", 200 << 20)
    with sending(tmp_path / "big", program=SLOWLY) as sender:
        receiver = start("receive", *LOOPBACK, sender.ticket, "-o", tmp_path / "there", "--json")
        receiver.under_way()
        sender.signal(signal.SIGINT)
        sender.wait(0)
        receiver.wait(4)
    assert "stopped before everything had come" in receiver.err
    assert receiver.events[-2]["event"] == "kept"


# --- in the way ----------------------------------------------------------------------------------


def test_targets_that_exist(tmp_path: Path, sending: Sending, receive: Receive) -> None:
    folder = fill(tmp_path / "here" / "album", {"a": b"new a", "b": b"new b", "c/d": b"new d"})
    there = fill(tmp_path / "there" / "album", {"a": b"old a", "c/d": b"old d"})
    before = tree(tmp_path / "there")
    with sending(folder) as sender:
        done = receive(sender.ticket, "-o", tmp_path / "there", code=3)
    assert f"{there}/a" in done.err
    assert f"{there}/c/d" in done.err
    assert f"{there}/b" not in done.err
    assert tree(tmp_path / "there") == before
    assert done.out == ""


def test_a_link_in_the_target_is_not_followed(
    tmp_path: Path, sending: Sending, receive: Receive
) -> None:
    folder = fill(tmp_path / "here" / "album", {"secret/key": b"evil"})
    outside = fill(tmp_path / "outside", {"untouched": b""})
    (tmp_path / "there" / "album").mkdir(parents=True)
    (tmp_path / "there" / "album" / "secret").symlink_to(outside)
    with sending(folder) as sender:
        receive(sender.ticket, "-o", tmp_path / "there", code=3)
        receive(sender.ticket, "-o", tmp_path / "there", "--overwrite", code=3)
    assert tree(outside) == {"untouched": b""}


def test_a_dangling_link_is_in_the_way(tmp_path: Path, sending: Sending, receive: Receive) -> None:
    fill(tmp_path, {"here/x": b"x"})
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "x").symlink_to(tmp_path / "elsewhere")
    with sending(tmp_path / "here" / "x") as sender:
        receive(sender.ticket, "-o", tmp_path / "there", code=3)
        assert not (tmp_path / "elsewhere").exists()
        receive(sender.ticket, "-o", tmp_path / "there", "--overwrite")
    assert not (tmp_path / "elsewhere").exists()
    assert (tmp_path / "there" / "x").read_bytes() == b"x"
    assert not (tmp_path / "there" / "x").is_symlink()


def test_output_that_is_a_file(tmp_path: Path, receive: Receive) -> None:
    fill(tmp_path, {"there": b""})
    assert "is a file" in receive(DEAD, "-o", tmp_path / "there", code=2).err


# --- file systems --------------------------------------------------------------------------------


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A file system in memory."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("platform: mounting needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_too_small(tmp_path: Path, sending: Sending, receive: Receive) -> None:
    fill(tmp_path, {"big": os.urandom(9 << 20)})
    with mounted(tmp_path / "small", "size=8m") as small, sending(tmp_path / "big") as sender:
        done = receive(sender.ticket, "-o", small, code=1)
        assert "not enough space" in done.err
        assert "9.0 MiB are needed" in done.err
        assert list(small.iterdir()) == []


def test_a_disk_that_fills_up_meanwhile(
    tmp_path: Path, sending: Sending, start: Start, receive: Receive
) -> None:
    sparse(tmp_path / "big", 400 << 20)
    with mounted(tmp_path / "small", "size=440m") as small, sending(tmp_path / "big") as sender:
        receiver = start("receive", *LOOPBACK, sender.ticket, "-o", small / "there", "--json")
        receiver.under_way()
        # It waits meanwhile: on a fast machine it would be done first.
        receiver.signal(signal.SIGSTOP)
        with (small / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
            while ballast.write(bytes(1 << 20)):
                pass
        receiver.signal(signal.SIGCONT)
        receiver.wait(1)
        assert "no space left" in receiver.err
        kept = receiver.events[-2]
        assert kept["event"] == "kept"
        # With space again it goes on, and nothing that was verified comes again.
        (small / "ballast").unlink()
        done = receive(sender.ticket, "-o", small / "there", "--json")
        assert done.events[-1]["received_bytes"] <= (400 << 20) - kept["bytes"] + 4096
        assert os.listdir(small / "there") == ["big"]


def test_a_target_that_cannot_be_written(
    tmp_path: Path, sending: Sending, receive: Receive
) -> None:
    fill(tmp_path, {"x": b"x"})
    with mounted(tmp_path / "fixed", "size=1m,ro") as fixed, sending(tmp_path / "x") as sender:
        done = receive(sender.ticket, "-o", fixed, code=1)
        assert "read-only file system" in done.err
        done = receive(sender.ticket, "-o", fixed / "below", code=1)
        assert "read-only file system" in done.err


def test_a_shared_file_that_changes(tmp_path: Path, sending: Sending, receive: Receive) -> None:
    fill(tmp_path, {"x": bytes(3 << 20)})
    with sending(tmp_path / "x") as sender:
        with (tmp_path / "x").open("r+b") as file:
            file.seek(2 << 20)
            file.write(b"changed")
        done = receive(sender.ticket, "-o", tmp_path / "there", code=5)
        assert "the sender lacks 'x', or it has been changed there" in done.err
        assert not (tmp_path / "there").exists()
        sender.until(lambda: "x has been changed or taken away" in sender.err, "note")


def test_a_shared_file_that_changes_while_it_is_sent(
    tmp_path: Path, sending: Sending, start: Start, receive: Receive
) -> None:
    fill(tmp_path / "here", {"a": os.urandom(1000)})
    sparse(tmp_path / "here" / "big", 300 << 20)
    (tmp_path / "here" / "z").write_bytes(b"last")
    with sending(tmp_path / "here", "--json") as sender:
        receiver = start("receive", *LOOPBACK, sender.ticket, "-o", tmp_path / "there", "--json")
        receiver.under_way()
        receiver.signal(signal.SIGSTOP)
        with (tmp_path / "here" / "big").open("r+b") as file:
            for offset in range(0, 300 << 20, 1 << 16):
                file.seek(offset)
                file.write(b"changed")
        receiver.signal(signal.SIGCONT)
        receiver.wait(5)
        assert "'here/big'" in receiver.err or "do not belong" in receiver.err
        assert receiver.events[-2]["event"] == "kept"
        assert not (tmp_path / "there" / "here").exists()


# --- standard output -----------------------------------------------------------------------------


def test_nobody_reads_the_output(tmp_path: Path, start: Start) -> None:
    read, write = os.pipe()
    sender = start("send", *LOOPBACK, fill(tmp_path, {"x": b"x"}), stdout=write)
    os.close(read)
    os.close(write)
    sender.wait(1)
    assert sender.err.endswith("error: nobody reads the output any more\n")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_output_to_a_full_disk(tmp_path: Path, start: Start, options: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        sender = start("send", *LOOPBACK, fill(tmp_path, {"x": b"x"}), *options, stdout=full)
        sender.wait(1)
    assert "no space left" in sender.err


def test_a_hidden_folder_that_is_not_ours(
    tmp_path: Path, sending: Sending, receive: Receive
) -> None:
    from aioiroh.blobs import BlobTicket

    fill(tmp_path, {"x": b"x", "there/old": b""})
    with sending(tmp_path / "x") as sender:
        hash = BlobTicket.parse(sender.ticket).hash.short()
        trap = tmp_path / "there" / f".aioiroh-receive-{hash}"
        trap.symlink_to(tmp_path)
        done = receive(sender.ticket, "-o", tmp_path / "there", code=1)
    assert "is not ours" in done.err
    assert sorted(os.listdir(tmp_path)) == ["there", "x"]


def test_two_receives_of_the_same_at_once(
    tmp_path: Path, sending: Sending, start: Start, receive: Receive
) -> None:
    sparse(tmp_path / "big", 200 << 20)
    with sending(tmp_path / "big", program=SLOWLY) as sender:
        first = start("receive", *LOOPBACK, sender.ticket, "-o", tmp_path / "there", "--json")
        first.under_way()
        done = receive(sender.ticket, "-o", tmp_path / "there", code=3)
        assert "another receive of the same content" in done.err
        first.signal(signal.SIGINT)
        first.wait(130)
