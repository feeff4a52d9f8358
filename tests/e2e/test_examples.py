"""The programs in `examples/`, as a person would run them."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import aioiroh
from aioiroh import sync
from aioiroh.blobs import BlobFormat, HashAndFormat
from aioiroh.sync import blobs

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SECONDS = 60

pytestmark = pytest.mark.usefixtures("isolated_network")


@pytest.fixture
def run() -> Iterator[Callable[..., Any]]:
    """`run(name, *arguments)`: an example that runs until it ends or the test does."""
    processes: list[subprocess.Popen[str]] = []

    def start(name: str, *arguments: object) -> subprocess.Popen[str]:
        source = Path(aioiroh.__file__).parent.parent
        command = [sys.executable, "-W", "error", EXAMPLES / name, *map(str, arguments)]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(source)},
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    """The next line that it prints. The time limit of the test is that of this."""
    assert process.stdout is not None and process.stderr is not None
    text = process.stdout.readline().strip()
    assert text, process.stderr.read()
    return text


def interrupt(process: subprocess.Popen[str]) -> None:
    process.send_signal(2)
    _, errors = process.communicate(timeout=SECONDS)
    assert (process.returncode, errors) == (0, "")


def test_serve_a_folder(run, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.txt").write_text("a picture of a cat")
    serving = run("serve_folder.py", folder)
    ticket = line(serving)
    with sync.Endpoint.bind() as endpoint, blobs.MemoryStore() as store:
        got = blobs.get(endpoint, ticket, into=store).result()
        assert blobs.load_collection(store, got.content.hash).names == ("photos/cat.txt",)
    assert line(serving).endswith(f"{got.received} bytes")
    interrupt(serving)


def test_mirror_a_store(run, tmp_path):
    large, small = os.urandom(300_000), b"small"
    with blobs.FileStore.open(tmp_path / "original") as store:
        child = store.add_bytes(large)
        root = store.add_bytes(bytes(child.hash), BlobFormat.HASH_SEQ)
        kept = store.add_bytes(small)
        store.tags.set(b"tree", HashAndFormat(root.hash, BlobFormat.HASH_SEQ))
        store.tags.set(b"\xff odd name", HashAndFormat(kept.hash))
    serving = run("mirror_store.py", "serve", tmp_path / "original")
    ticket = line(serving)
    for outcome in ("2 tags, 300037 bytes received", "2 tags, 0 bytes received"):
        mirroring = run("mirror_store.py", "mirror", tmp_path / "copy", ticket)
        assert line(mirroring) == f"{outcome}, 0 blobs deleted"
        assert mirroring.wait(SECONDS) == 0
    interrupt(serving)
    with blobs.FileStore.open(tmp_path / "copy") as copy:
        assert copy.read_bytes(child.hash, limit=len(large)) == large
        assert [name for name, _ in copy.tags.list()] == [b"tree", b"\xff odd name"]
        copy.tags.set(b"theirs no more", HashAndFormat(copy.add_bytes(b"x").hash))
    serving = run("mirror_store.py", "serve", tmp_path / "original")
    mirroring = run("mirror_store.py", "mirror", tmp_path / "copy", line(serving))
    assert line(mirroring) == "2 tags, 0 bytes received, 1 blobs deleted"
    interrupt(serving)


def test_stream_a_range_of_a_video(run, tmp_path):
    video = os.urandom(5_000_000)
    (tmp_path / "film.mp4").write_bytes(video)
    with blobs.MemoryStore() as store:
        imported = blobs.import_paths(store, [tmp_path / "film.mp4"])
        sent = 0

        def count(event: object) -> None:
            nonlocal sent
            if isinstance(event, aioiroh.blobs.TransferCompleted):
                sent += event.stats.payload_bytes

        handlers = {blobs.ALPN: blobs.Provider(store, on_transfer=count)}
        with sync.serve(handlers) as router:
            ticket = blobs.BlobTicket(router.endpoint.addr, imported.root.hash, BlobFormat.HASH_SEQ)
            url = line(run("stream_video.py", ticket, "film.mp4"))
            for text, start, end in (
                ("bytes=3000000-3000999", 3_000_000, 3_001_000),
                ("bytes=-500", 4_999_500, 5_000_000),
                ("bytes=4999000-", 4_999_000, 5_000_000),
            ):
                request = urllib.request.Request(url, headers={"Range": text})
                with urllib.request.urlopen(request, timeout=SECONDS) as answer:
                    assert answer.status == 206
                    assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/5000000"
                    assert answer.headers["Content-Type"] == "video/mp4"
                    assert answer.read() == video[start:end]
            assert 0 < sent < 100_000
            with urllib.request.urlopen(url, timeout=SECONDS) as answer:
                assert (answer.status, answer.read()) == (200, video)


def test_a_checkpoint_for_several_workers(run, tmp_path):
    checkpoint = os.urandom(6_000_000)
    (tmp_path / "model.bin").write_bytes(checkpoint)
    leader = run("shared_checkpoint.py", "lead", tmp_path / "model.bin")
    ticket = line(leader)
    workers = []
    for number in range(3):
        file, store = tmp_path / f"worker{number}.bin", tmp_path / f"store{number}"
        workers.append(run("shared_checkpoint.py", "work", ticket, file, store))
        if number == 0:
            assert line(workers[0]) == "ready; 0 others were asked, too"
    for worker in workers[1:]:
        assert line(worker).startswith("ready; ")
    for number in range(3):
        assert (tmp_path / f"worker{number}.bin").read_bytes() == checkpoint
    for process in (*workers, leader):
        interrupt(process)


def test_a_custom_transport(run: Callable[..., Any], tmp_path: Path) -> None:
    server = run("unix_transport.py", "serve", tmp_path)
    id = line(server)
    client = run("unix_transport.py", "call", tmp_path, id)
    assert line(client) == "olleh"
    assert line(client) == f"custom:20_{id[:10].encode().hex()}"
    assert client.wait(SECONDS) == 0
    assert line(server).endswith(" says hello")
    interrupt(server)
    assert list(tmp_path.iterdir()) == []
