"""The blob classes of the native module: arguments, results, errors, jobs."""

from __future__ import annotations

import errno
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioiroh import _native
from aioiroh._native import BaoError, Blob, BlobReceiver, BlobSender, Worker

VECTORS = json.loads((Path(__file__).parent / "vectors" / "bao.json").read_text())
ALL = (0,)
LAST = (2**64 - 1,)
EMPTY = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


def content(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def collect(worker: Worker, job: int) -> tuple[list[tuple[str, Any]], str, Any]:
    """Events of a job before the last, then kind and value of the last."""
    events: list[tuple[str, Any]] = []
    while True:
        ready, _, _ = select.select([worker.fileno()], [], [], 20)
        assert ready, "the worker says nothing"
        for number, kind, value in worker.poll():
            assert number == job
            if kind in ("done", "error"):
                return events, kind, value
            events.append((kind, value))


@pytest.fixture(params=[False, True], ids=["thread", "inline"])
def worker(request: pytest.FixtureRequest) -> Any:
    worker = Worker(inline=request.param)
    yield worker
    worker.close()


# --- hashing and responses ------------------------------------------------------------------------


@pytest.mark.parametrize("row", VECTORS["hashes"], ids=lambda row: str(row["size"]))
def test_hash_vectors(row: dict[str, Any]) -> None:
    data = content(row["size"])
    assert _native.blake3(data).hex() == row["hash"]
    assert Blob.from_bytes(data).hash.hex() == row["hash"]
    pieces = _native.Blake3()
    for start in range(0, len(data), 777):
        pieces.update(data[start : start + 777])
    assert pieces.digest().hex() == row["hash"]


@pytest.mark.parametrize("row", VECTORS["outboards"], ids=lambda row: str(row["size"]))
def test_outboard_vectors(row: dict[str, Any]) -> None:
    assert Blob.from_bytes(content(row["size"])).outboard().hex() == row["outboard"]


@pytest.mark.parametrize(
    "row", VECTORS["encodings"], ids=lambda row: f"{row['size']} {row['query']}"
)
def test_encoding_vectors(row: dict[str, Any]) -> None:
    data = content(row["size"])
    boundaries = tuple(int(boundary) for boundary in row["boundaries"])
    encoded = _native.encode_blob(data, boundaries)
    assert len(encoded) == row["length"]
    assert _native.blake3(encoded).hex() == row["blake3"]
    for offset, leaf in _native.decode_blob(_native.blake3(data), boundaries, encoded):
        assert data[offset : offset + len(leaf)] == leaf


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_buffer_is_taken(kind: Any) -> None:
    data = content(5_000_000)
    assert _native.blake3(kind(data)) == _native.blake3(data)
    assert Blob.from_bytes(kind(data)).hash == _native.blake3(data)
    assert Blob.from_bytes(kind(data)).read(0, len(data)) == data
    hasher = _native.Blake3()
    hasher.update(kind(data))
    assert hasher.digest() == _native.blake3(data)


@pytest.mark.parametrize("data", ["text", 5, None, [1, 2]])
def test_what_is_no_buffer_is_refused(data: Any) -> None:
    for call in (_native.blake3, Blob.from_bytes, lambda data: _native.encode_blob(data, ALL)):
        with pytest.raises((TypeError, BufferError)):
            call(data)


@pytest.mark.parametrize("boundaries", [(1, 1), (2, 1), (0, 5, 5)])
def test_boundaries_increase(boundaries: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="increase"):
        _native.encode_blob(b"x", boundaries)
    with pytest.raises(OverflowError):
        _native.encode_blob(b"x", (2**64,))
    with pytest.raises((OverflowError, ValueError)):
        _native.encode_blob(b"x", (-1,))


def test_decoding_says_what_is_wrong() -> None:
    data = content(40_000)
    digest = _native.blake3(data)
    good = _native.encode_blob(data, ALL)
    cases = {
        "missing_header": good[:7],
        "missing_item": good[:8],
        "truncated": good[:30],
        "parent_mismatch": good[:9] + b"\0" + good[10:],
        "leaf_mismatch": good[:-1] + b"\xff",
        "size_invalid": bytes(8),
        "trailing": good + b"x",
    }
    for kind, encoded in cases.items():
        with pytest.raises(BaoError) as caught:
            _native.decode_blob(digest, ALL, encoded)
        assert caught.value.kind == kind
        assert isinstance(caught.value, ValueError)
    with pytest.raises(ValueError, match="32 bytes"):
        _native.decode_blob(b"short", ALL, good)
    assert _native.decode_blob(digest, (), b"") == []


@given(
    size=st.integers(0, 70_000),
    boundaries=st.sets(st.integers(0, 80), max_size=6).map(lambda found: tuple(sorted(found))),
)
def test_a_response_gives_back_what_it_selects(size: int, boundaries: tuple[int, ...]) -> None:
    data = content(size)
    chunks = max(1, -(-size // 1024))
    inside = [sum(b <= i for b in boundaries) % 2 == 1 for i in range(200)]
    selected = {i for i in range(chunks) if inside[i]}
    if any(inside[chunks - 1 :]):
        selected.add(chunks - 1)
    got = _native.decode_blob(
        _native.blake3(data), boundaries, _native.encode_blob(data, boundaries)
    )
    assert b"".join(leaf for _, leaf in got) == b"".join(
        data[i * 1024 : (i + 1) * 1024] for i in sorted(selected)
    )


def test_many_blobs_are_hashed_at_once() -> None:
    buffers = [content(size) for size in (0, 1, 1024, 16_384, 16_385, 300_000)]
    hashed = _native.hash_many([*buffers, bytearray(b"x"), memoryview(b"xyz")[1:2]])
    for data, pair in zip([*buffers, b"x", b"y"], hashed, strict=True):
        blob = Blob.from_bytes(data)
        assert pair == (blob.hash, blob.outboard())
    assert _native.hash_many([content(5_000_000)])[0][0] == _native.blake3(content(5_000_000))
    assert _native.hash_many([]) == []
    with pytest.raises((TypeError, BufferError)):
        _native.hash_many([b"x", "text"])  # type: ignore[list-item]


# --- blobs ----------------------------------------------------------------------------------------


def test_an_inline_blob() -> None:
    data = content(20_000)
    [(digest, outboard)] = _native.hash_many([data])
    blob = Blob.inline(digest, data, outboard)
    assert (blob.size, blob.is_complete, blob.hash) == (20_000, True, digest)
    assert blob.read(0, 20_000) == data
    assert blob.outboard() == outboard
    small = Blob.inline(_native.blake3(b"x"), bytearray(b"x"))
    assert small.is_complete and small.read(0, 5) == b"x"
    with pytest.raises(ValueError, match="must have 64 bytes"):
        Blob.inline(digest, data)
    with pytest.raises(ValueError, match="must have 0 bytes"):
        Blob.inline(digest, b"x", outboard)


def test_a_response_at_once(tmp_path: Path) -> None:
    for size in (0, 1, 16_384, 16_385, 65_536):
        data = content(size)
        blob = Blob.from_bytes(data)
        for boundaries in (ALL, LAST, (1, 3), (0, 16, 20), ()):
            assert blob.response(boundaries) == _native.encode_blob(data, boundaries)
    assert Blob.from_bytes(content(65_537)).response(ALL) is None
    assert Blob.memory(bytes(32), 1000).response(ALL) is None
    assert Blob.inline(_native.blake3(b"x"), b"y").response(ALL) is None
    (tmp_path / "data").write_bytes(b"x")
    assert Blob.open(_native.blake3(b"x"), tmp_path / "data", 1, b"").response(ALL) is None
    with pytest.raises(ValueError, match="increase"):
        Blob.from_bytes(b"x").response((1, 1))


def test_a_resumed_blob(tmp_path: Path, worker: Worker) -> None:
    data = content(100_000)
    digest = _native.blake3(data)
    data_path, outboard_path = tmp_path / "data", tmp_path / "outboard"

    def resume(size: int | None, present: tuple[int, ...]) -> Blob:
        return Blob.resume(
            digest, data_path, outboard_path, size=size, present=present, max_size=1 << 40
        )

    blank = resume(None, ())
    assert (blank.size, blank.present, blank.is_complete) == (None, (), False)
    assert not data_path.exists()
    data_path.write_bytes(data[:32_768])
    part = resume(100_000, (0, 32))
    assert (part.size, part.size_verified, part.present) == (100_000, False, (0, 32))
    assert part.read(100, 1000) == data[100:1100]
    BlobReceiver(worker, max_size=1000).expect([(digest, ALL, part)])
    assert resume(100_000, (0, 32, 97, 98)).size_verified
    assert data_path.read_bytes() == data[:32_768]
    with pytest.raises(OSError, match="shorter") as caught:
        resume(100_000, (0, 40)).read(0, 1)
    assert caught.value.filename == str(data_path)
    data_path.unlink()
    with pytest.raises(FileNotFoundError) as caught:
        resume(100_000, (0, 32)).read(0, 1)
    assert caught.value.filename == str(data_path)
    with pytest.raises(ValueError, match="has a size"):
        resume(None, (0, 1))


def test_a_blob_from_bytes() -> None:
    blob = Blob.from_bytes(content(20_000))
    assert blob.size == 20_000
    assert blob.size_verified
    assert blob.is_complete
    assert blob.present == (0, 20)
    assert blob.read(19_990, 100) == content(20_000)[19_990:]
    assert blob.read(20_000, 1) == blob.read(2**63, 1) == b""
    blob.sync()
    blob.close()


def test_an_empty_blob_to_fill() -> None:
    blob = Blob.memory(bytes(32), 1000)
    assert blob.size is None
    assert (blob.size_verified, blob.present, blob.is_complete) == (False, (), False)
    with pytest.raises(ValueError, match="not all here"):
        blob.read(0, 1)
    assert blob.outboard() == b""
    assert Blob.memory(bytes.fromhex(EMPTY), 1000).is_complete


def test_a_blob_in_a_file(tmp_path: Path) -> None:
    data = content(100_000)
    whole = Blob.from_bytes(data)
    path = tmp_path / "data"
    path.write_bytes(data)
    (tmp_path / "outboard").write_bytes(whole.outboard())
    for outboard in (whole.outboard(), str(tmp_path / "outboard"), tmp_path / "outboard"):
        blob = Blob.open(whole.hash, path, 100_000, outboard)
        assert blob.is_complete
        assert blob.read(99_000, 5000) == data[99_000:]
        assert blob.outboard() == whole.outboard()
        blob.close()
    part = Blob.open(whole.hash, str(path), 100_000, b"", present=(0, 16, 200))
    assert part.present == (0, 16)
    assert not part.size_verified
    with pytest.raises(ValueError):
        part.read(0, 20_000)
    with pytest.raises(FileNotFoundError):
        Blob.open(whole.hash, tmp_path / "nowhere", 100_000, b"").read(0, 1)
    with pytest.raises(IsADirectoryError):
        Blob.open(whole.hash, tmp_path, 100_000, b"").read(0, 1)


def test_a_fifo_does_not_hang(tmp_path: Path, worker: Worker) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="regular"):
        Blob.open(bytes(32), tmp_path / "fifo", 5, b"").read(0, 1)
    _, kind, value = collect(worker, worker.hash_file(tmp_path / "fifo"))
    assert (kind, value[0]) == ("error", errno.EINVAL)


# --- jobs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, 1_048_576, 20_000_000])
def test_hashing_a_file(tmp_path: Path, worker: Worker, size: int) -> None:
    data = content(size)
    path = tmp_path / "data"
    path.write_bytes(data)
    expected = Blob.from_bytes(data)
    events, kind, value = collect(worker, worker.hash_file(path))
    assert (kind, value) == ("done", (expected.hash, size, expected.outboard()))
    progress = [bytes_ for _, bytes_ in events]
    assert progress == sorted(progress)
    _, kind, value = collect(worker, worker.hash_file(str(path), tmp_path / "outboard"))
    assert (kind, value) == ("done", (expected.hash, size, None))
    assert (tmp_path / "outboard").read_bytes() == expected.outboard()


def test_hashing_many_files(tmp_path: Path, worker: Worker) -> None:
    sizes = [0, 5, 20_000, 3_000_000, *range(1, 150)]
    paths = [tmp_path / f"{i}" for i in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        path.write_bytes(content(size))
    paths.insert(1, tmp_path / "nowhere")
    paths.append(tmp_path)
    events, kind, value = collect(worker, worker.hash_files(paths))
    assert (kind, value) == ("done", None)
    events = [event for event in events if event[0] != "progress"]
    assert [value[0] for _, value in events] == list(range(len(paths)))
    errors = {value[0]: value[1] for kind, value in events if kind == "file_error"}
    assert errors == {1: errno.ENOENT, len(paths) - 1: errno.EISDIR}
    for kind, value in events:
        if kind == "file":
            index, digest, size, outboard = value
            expected = Blob.from_bytes(paths[index].read_bytes())
            assert (digest, size, outboard) == (expected.hash, expected.size, expected.outboard())


def test_more_events_than_are_kept(tmp_path: Path, worker: Worker) -> None:
    """The job waits until its events are collected."""
    job = worker.hash_files([tmp_path / "nowhere"] * 20_000)
    events, kind, _ = collect(worker, job)
    assert kind == "done"
    assert [value[0] for _, value in events] == list(range(20_000))


def in_file(path: Path, data: bytes) -> Blob:
    whole = Blob.from_bytes(data)
    return Blob.open(whole.hash, path, len(data), whole.outboard())


def test_what_cannot_be_written(tmp_path: Path, worker: Worker) -> None:
    data = content(100_000)
    longer = in_file(tmp_path / "from", data)
    (tmp_path / "from").write_bytes(data + b"more")
    empty = Blob.memory(longer.hash, 1 << 20)
    for blob, number in ((longer, errno.EBUSY), (empty, errno.EINVAL)):
        _, kind, value = collect(worker, worker.write_blobs([(blob, tmp_path / "to")]))
        assert (kind, value[0]) == ("error", number)


def test_writing_and_syncing(tmp_path: Path, worker: Worker) -> None:
    data = content(20_000_000)
    (tmp_path / "from").write_bytes(data)
    inside = [Blob.from_bytes(content(size)) for size in (0, 5, 3_000_000)]
    blobs = [in_file(tmp_path / "from", data), *inside]
    targets = [tmp_path / name for name in ("to", "empty", "small", "large")]
    targets[2].write_bytes(b"in its place")
    events, kind, value = collect(
        worker, worker.write_blobs(list(zip(blobs, targets, strict=True)))
    )
    assert (kind, value) == ("done", len(data) + 3_000_005)
    assert [kind for kind, _ in events if kind != "progress"] == []
    assert [path.read_bytes() for path in targets] == [data, b"", content(5), content(3_000_000)]
    _, kind, value = collect(worker, worker.sync_files([tmp_path / "to", tmp_path]))
    assert (kind, value) == ("done", None)
    nowhere = tmp_path / "nowhere"
    starts: list[tuple[Path, Callable[[], int]]] = [
        (nowhere, lambda: worker.write_blobs([(in_file(nowhere, data), tmp_path / "to")])),
        (nowhere / "to", lambda: worker.write_blobs([(blobs[2], nowhere / "to")])),
        (nowhere, lambda: worker.sync_files([nowhere])),
        (nowhere, lambda: worker.hash_file(nowhere)),
        (nowhere / "outboard", lambda: worker.hash_file(tmp_path / "from", nowhere / "outboard")),
    ]
    for path, start in starts:
        missing = (errno.ENOENT, "No such file or directory", str(path))
        assert collect(worker, start())[1:] == ("error", missing)


def test_importing_a_file(tmp_path: Path, worker: Worker) -> None:
    data = content(9_000_000)
    source, target = tmp_path / "from", tmp_path / "to"
    source.write_bytes(data)
    expected = Blob.from_bytes(data)
    _, kind, value = collect(worker, worker.import_file(source, target))
    assert (kind, value) == ("done", (expected.hash, len(data), expected.outboard()))
    assert target.read_bytes() == data
    _, kind, value = collect(worker, worker.import_file(source, target, tmp_path / "outboard"))
    assert (kind, value) == ("done", (expected.hash, len(data), None))
    assert (tmp_path / "outboard").read_bytes() == expected.outboard()
    _, kind, value = collect(worker, worker.import_file(tmp_path / "nowhere", target))
    assert (kind, value[0], value[2]) == ("error", errno.ENOENT, str(tmp_path / "nowhere"))


def test_validating_a_blob(tmp_path: Path, worker: Worker) -> None:
    data = content(300_000)
    blob = Blob.from_bytes(data)
    path = tmp_path / "data"
    path.write_bytes(data)
    (tmp_path / "outboard").write_bytes(blob.outboard())

    def present(outboard: Any, trusted: tuple[int, ...] = ()) -> Any:
        job = worker.validate(blob.hash, path, outboard, len(data), trusted)
        _, kind, value = collect(worker, job)
        assert kind == "done"
        return value

    assert present(blob.outboard()) == present(tmp_path / "outboard") == (0, 293)
    assert present(b"") == ()
    path.write_bytes(data[:50_000] + b"!" + data[50_001:200_000])
    assert present(blob.outboard()) == (0, 48, 64, 192)
    assert present(blob.outboard(), (0, 64, 200, 300)) == (0, 192)
    assert present(blob.outboard(), (50, 51, 250, 251)) == (0, 48, 50, 51, 64, 192)
    path.unlink()
    job = worker.validate(blob.hash, path, b"", len(data), ())
    missing = (errno.ENOENT, "No such file or directory", str(path))
    assert collect(worker, job)[1:] == ("error", missing)


def test_the_journal(tmp_path: Path) -> None:
    worker = Worker(inline=True, journal=True)
    data = content(20_000)
    source, target = str(tmp_path / "from"), str(tmp_path / "to")
    Path(source).write_bytes(data)
    collect(worker, worker.import_file(source, target))
    collect(worker, worker.sync_files([target]))
    create = ("create", target, 0, b"")
    assert worker.journal() == [create, ("write", target, 0, data), ("sync", target, 0, b"")]
    assert worker.journal() == []
    collect(worker, worker.write_blobs([(in_file(Path(source), data), target)]))
    assert worker.journal() == [("truncate", target, 0, b""), ("write", target, 0, data)]
    with pytest.raises(OSError, match="journal already"):
        Worker(inline=True, journal=True)
    with pytest.raises(ValueError, match="no journal"):
        Worker(inline=True).journal()
    with pytest.raises(ValueError, match="inline"):
        Worker(journal=True)
    del worker
    Worker(inline=True, journal=True)


def test_a_job_can_be_cancelled(tmp_path: Path) -> None:
    with open(tmp_path / "large", "wb") as file:
        file.truncate(8 << 30)
    worker = Worker()
    job = worker.hash_file(tmp_path / "large")
    worker.cancel(job)
    assert collect(worker, job)[1:] == ("error", (errno.ECANCELED, "Operation canceled", None))
    worker.cancel(job)
    worker.cancel(12345)
    job = worker.hash_file(tmp_path / "large")
    worker.close()
    assert collect(worker, job)[1:] == ("error", (errno.ECANCELED, "Operation canceled", None))
    worker.close()
    job = worker.sync_files([tmp_path])
    assert collect(worker, job)[1:] == ("error", (errno.ECANCELED, "Operation canceled", None))


def test_jobs_take_turns(tmp_path: Path) -> None:
    with open(tmp_path / "large", "wb") as file:
        file.truncate(4 << 30)
    (tmp_path / "small").write_bytes(b"x")
    worker = Worker()
    large = worker.hash_file(tmp_path / "large")
    small = worker.hash_file(tmp_path / "small")
    ended: list[int] = []
    while not ended:
        select.select([worker.fileno()], [], [], 20)
        ended = [job for job, kind, _ in worker.poll() if kind == "done"]
    assert ended == [small] != [large]
    worker.close()


def test_the_descriptor_is_quiet_when_there_is_nothing(tmp_path: Path, worker: Worker) -> None:
    assert select.select([worker.fileno()], [], [], 0)[0] == []
    collect(worker, worker.sync_files([tmp_path]))
    assert select.select([worker.fileno()], [], [], 0)[0] == []
    assert worker.poll() == []


def test_closing_ends_the_threads(tmp_path: Path) -> None:
    def threads() -> list[str]:
        tasks = Path("/proc/self/task").iterdir()
        return [name for task in tasks if (name := (task / "comm").read_text()).startswith("aioir")]

    before = len(threads())
    worker = Worker()
    while len(threads()) == before:
        pass  # a thread gets its name a moment after it starts
    # Waiting for the disk has a thread of its own, from the first time on.
    collect(worker, worker.sync_files([tmp_path]))
    assert len(threads()) == before + 2
    worker.close()
    assert len(threads()) == before


def test_an_open_worker_does_not_hold_up_exit() -> None:
    code = "from aioiroh import _native; w = _native.Worker(); w.sync_files(['/tmp'] * 5)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30, env=environment)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_process_is_told_to_make_its_own(tmp_path: Path) -> None:
    worker = Worker()
    child = os.fork()
    if child == 0:
        try:
            worker.sync_files([tmp_path])
        except OSError as error:
            if "fork" not in str(error):
                os._exit(2)
            worker.close()
            del worker
            mine = Worker()
            os._exit(0 if collect(mine, mine.sync_files([tmp_path]))[1] == "done" else 3)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert collect(worker, worker.sync_files([tmp_path]))[1] == "done"


def test_use_from_several_threads(tmp_path: Path) -> None:
    worker = Worker()
    for i in range(200):
        (tmp_path / str(i)).write_bytes(content(i * 100))
    jobs: list[int] = []
    threads = [
        threading.Thread(
            target=lambda n=n: jobs.extend(
                worker.hash_file(tmp_path / str(i)) for i in range(n * 50, n * 50 + 50)
            )
        )
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done: set[int] = set()
    while len(done) < 200:
        assert select.select([worker.fileno()], [], [], 20)[0]
        done.update(job for job, kind, _ in worker.poll() if kind == "done")
    assert done == set(jobs)
    worker.close()


# --- transfers, without a stream ------------------------------------------------------------------


def test_receivers_check_their_items(worker: Worker) -> None:
    receiver = BlobReceiver(worker, max_size=1000, stop_code=3)
    blob = Blob.memory(bytes(32), 1000)
    with pytest.raises(ValueError, match="hash"):
        receiver.expect([(b"\1" * 32, ALL, blob)])
    with pytest.raises(ValueError, match="increase"):
        receiver.expect([(bytes(32), (3, 3), blob)])
    whole = Blob.from_bytes(b"x")
    with pytest.raises(ValueError, match="received into"):
        receiver.expect([(whole.hash, ALL, whole)])
    receiver.expect([(bytes(32), (), blob)])
    assert receiver.poll() == [("done", 0)]
    assert receiver.poll() == []
    receiver.finish()


def test_senders_check_their_items(worker: Worker) -> None:
    sender = BlobSender(worker)
    with pytest.raises(ValueError, match="increase"):
        sender.push([(Blob.from_bytes(b"x"), (1, 0))])
    sender.raw(b"head")
    sender.push([(Blob.from_bytes(b"x"), LAST)])
    sender.finish()
    assert sender.poll() == []
    assert sender.id != BlobReceiver(worker, max_size=1).id


def test_transfers_need_a_worker() -> None:
    for make in (BlobSender, lambda worker: BlobReceiver(worker, max_size=1)):
        with pytest.raises(TypeError):
            make(None)  # type: ignore[arg-type]
