"""The file system over tickets: against a real provider on loopback."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import fsspec
import pandas
import pyarrow
import pyarrow.dataset
import pyarrow.parquet
import pytest

from aioiroh import presets
from aioiroh import sync as aio
from aioiroh.blobs import BlobFormat, BlobTicket, Hash, UnsafeNameError
from aioiroh.blobs import Collection as NamedBlobs
from aioiroh.fsspec import BlobFileSystem
from aioiroh.fsspec.tree import Tree
from aioiroh.sync import blobs

FILES = {
    "data/readme.txt": b"hello\nworld\n",
    "data/deep/numbers.bin": os.urandom(3_000_000),
    "data/deep/empty": b"",
    "data/csv/a.csv": b"x,y\n1,2\n3,4\n",
}


@pytest.fixture(autouse=True)
def registered() -> None:
    fsspec.register_implementation("aioiroh+blob", BlobFileSystem, clobber=True)


class Shared:
    """Files that a provider serves, and a file system that reads them."""

    def __init__(self, router: aio.Router, root: Hash, store: Any) -> None:
        self.router = router
        self.store = store
        self.root = root
        self.ticket = str(BlobTicket(router.endpoint.addr, root, BlobFormat.HASH_SEQ))
        self.url = f"aioiroh+blob://{self.ticket}"


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Callable[[dict[str, bytes]], Shared]]:
    with ExitStack() as stack:

        def make(files: dict[str, bytes]) -> Shared:
            folder = tmp_path / "shared"
            for name, data in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
            store = stack.enter_context(blobs.MemoryStore())
            imported = blobs.import_paths(store, sorted(folder.iterdir()))
            handlers = {blobs.ALPN: blobs.Provider(store)}
            router = stack.enter_context(aio.serve(handlers, preset=presets.loopback))
            return Shared(router, imported.root.hash, store)

        yield make


@pytest.fixture
def shared(share: Callable[[dict[str, bytes]], Shared]) -> Shared:
    return share(FILES)


@pytest.fixture
def open_system() -> Iterator[Callable[..., BlobFileSystem]]:
    with ExitStack() as stack:

        def make(**options: Any) -> BlobFileSystem:
            system = BlobFileSystem(preset=presets.loopback, skip_instance_cache=True, **options)
            stack.callback(system.close)
            return system

        yield make


@pytest.fixture
def system(open_system: Callable[..., BlobFileSystem]) -> BlobFileSystem:
    return open_system()


# --- looking


def test_listing(shared, system):
    root = shared.ticket
    assert system.ls(shared.url, detail=False) == [f"{root}/data"]
    assert sorted(system.ls(f"{shared.url}/data", detail=False)) == [
        f"{root}/data/csv",
        f"{root}/data/deep",
        f"{root}/data/readme.txt",
    ]
    assert system.info(f"{shared.url}/data/readme.txt") == {
        "name": f"{root}/data/readme.txt",
        "size": 12,
        "type": "file",
        "hash": str(Hash.of(FILES["data/readme.txt"])),
    }
    assert system.isdir(f"{root}/data/deep") and system.isfile(f"{root}/data/deep/empty")
    assert not system.exists(f"{root}/data/other")
    with pytest.raises(FileNotFoundError, match="other"):
        system.info(f"{root}/other")
    with pytest.raises(IsADirectoryError):
        system.cat_file(f"{root}/data/deep")


def test_find_and_glob(shared, system):
    assert system.find(shared.url) == sorted(f"{shared.ticket}/{name}" for name in FILES)
    assert system.glob(f"{shared.url}/data/*/*.csv") == [f"{shared.ticket}/data/csv/a.csv"]
    assert system.du(shared.url) == sum(map(len, FILES.values()))


def test_a_listing_is_fetched_once(shared, system):
    system.find(shared.url)
    received = system.bytes_received
    system.find(shared.url)
    assert system.bytes_received == received < 4096


def test_texts_that_name_nothing(system):
    with pytest.raises(ValueError, match="ticket"):
        system.info("aioiroh+blob://nonsense/x")
    assert system.ls("aioiroh+blob://") == []


# --- reading


def test_reading_whole_files_and_ranges(shared, system):
    data = FILES["data/deep/numbers.bin"]
    path = f"{shared.url}/data/deep/numbers.bin"
    assert system.cat_file(path) == data
    assert system.cat_file(path, 1_000_001, 1_000_005) == data[1_000_001:1_000_005]
    assert system.cat_file(path, start=-10) == data[-10:]
    assert system.cat_file(path, 2_999_999, 9_999_999) == data[2_999_999:]
    assert system.cat_file(f"{shared.url}/data/deep/empty") == b""
    assert system.cat(f"{shared.url}/data/csv/*") == {
        f"{shared.ticket}/data/csv/a.csv": FILES["data/csv/a.csv"]
    }


def test_a_range_costs_little_more_than_itself(shared, system):
    path = f"{shared.url}/data/deep/numbers.bin"
    system.info(path)
    before = system.bytes_received
    system.cat_file(path, 1_000_000, 1_000_100)
    assert 100 <= system.bytes_received - before <= 4 * 1024


def test_open_seek_and_read(shared, system):
    data = FILES["data/deep/numbers.bin"]
    with system.open(f"{shared.url}/data/deep/numbers.bin", block_size=65536) as file:
        assert file.size == len(data)
        file.seek(-100, os.SEEK_END)
        assert file.read() == data[-100:]
        file.seek(500_000)
        assert file.read(10) == data[500_000:500_010]
    assert system.bytes_received < len(data) / 4
    with fsspec.open(f"{shared.url}/data/readme.txt", "rt", preset=presets.loopback) as text:
        assert text.read() == "hello\nworld\n"
    with pytest.raises(NotImplementedError):
        system.open(f"{shared.url}/data/readme.txt", "wb")


def test_get_a_folder(shared, system, tmp_path):
    system.get(f"{shared.url}/data", str(tmp_path / "out"), recursive=True)
    for name, data in FILES.items():
        assert (tmp_path / "out" / Path(name).relative_to("data")).read_bytes() == data
    assert not list(tmp_path.rglob(".aioiroh-*"))
    buffer = io.BytesIO()
    system.get_file(f"{shared.ticket}/data/readme.txt", buffer)
    assert buffer.getvalue() == FILES["data/readme.txt"]


def test_a_blob_by_its_hash(shared, system):
    data = FILES["data/deep/numbers.bin"]
    by_hash = f"aioiroh+blob://{Hash.of(data)}@{shared_peer(shared)}"
    assert system.info(by_hash)["size"] == len(data)
    assert system.cat_file(by_hash, 5, 9) == data[5:9]
    collection = f"aioiroh+blob://s{shared.root}@{shared_peer(shared)}/data/readme.txt"
    assert system.cat_file(collection) == FILES["data/readme.txt"]
    raw = BlobTicket(shared.router.endpoint.addr, Hash.of(data))
    assert system.cat_file(f"aioiroh+blob://{raw}", 5, 9) == data[5:9]
    assert system.ukey(by_hash) == str(Hash.of(data))


def shared_peer(shared: Shared) -> str:
    return str(aio.EndpointTicket(shared.router.endpoint.addr))


def test_with_a_store_nothing_is_fetched_twice(shared, open_system, tmp_path):
    system = open_system(store=tmp_path / "kept")
    path = f"{shared.url}/data/deep/numbers.bin"
    data = system.cat_file(path, 100_000, 900_000)
    received = system.bytes_received
    assert system.cat_file(path, 200_000, 800_000) == data[100_000:700_000]
    assert system.bytes_received == received
    assert system.cat_file(path) == FILES["data/deep/numbers.bin"]
    assert system.bytes_received - received < 3_000_000 - 790_000


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # fsspec's own
@pytest.mark.parametrize("cache", ["simplecache", "filecache", "blockcache"])
def test_chained_with_a_cache_of_fsspec(shared, tmp_path, cache):
    options = {
        "aioiroh+blob": {"preset": presets.loopback},
        cache: {"cache_storage": str(tmp_path / "cache")},
    }
    data = FILES["data/deep/numbers.bin"]
    for _ in range(2):
        with fsspec.open(f"{cache}::{shared.url}/data/deep/numbers.bin", **options) as file:
            file.seek(1_000_000)
            assert file.read(100) == data[1_000_000:1_000_100]


async def test_asynchronous(shared):
    system = BlobFileSystem(preset=presets.loopback, asynchronous=True, skip_instance_cache=True)
    path = f"{shared.ticket}/data/readme.txt"
    assert await system._cat_file(path) == FILES["data/readme.txt"]
    file = await system.open_async(path)
    assert await file.read(5) == b"hello"
    assert await file.read() == b"\nworld\n"
    await file.close()
    await system._close()


def test_a_lost_connection_is_dialled_again(shared, system):
    path = f"{shared.url}/data/readme.txt"
    assert system.cat_file(path) == FILES["data/readme.txt"]
    fsspec.asyn.sync(system.loop, close_connections, system)
    assert system.cat_file(path) == FILES["data/readme.txt"]


async def close_connections(system: BlobFileSystem) -> None:
    for shared in tuple(system._source._pool._shared.values()):
        (await shared.dial).close(7, b"test")


# --- names


@pytest.mark.parametrize(
    "names", [["../up"], ["/root"], ["a", "a"], ["a", "a/b"], ["a/b", "a"], [""], ["a\\b"]]
)
def test_names_that_are_refused(names):
    with pytest.raises(UnsafeNameError):
        Tree(NamedBlobs((name, Hash.EMPTY) for name in names), [0] * len(names))


# --- the programs that people use it with


@pytest.fixture
def table() -> pyarrow.Table:
    rows = 200_000
    return pyarrow.table(
        {
            "id": pyarrow.array(range(rows)),
            "noise": pyarrow.array([os.urandom(40) for _ in range(rows)]),
        }
    )


def test_pyarrow_reads_one_column_and_fetches_only_that(share, system, table):
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink, use_dictionary=False, compression="none")
    shared = share({"table.parquet": sink.getvalue()})
    ids = pyarrow.parquet.read_table(
        f"{shared.ticket}/table.parquet", columns=["id"], filesystem=system
    )
    assert ids.column("id").to_pylist() == list(range(200_000))
    assert system.bytes_received < len(sink.getvalue()) / 2


def test_pandas_reads_by_url(share, table):
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table, sink)
    shared = share({"t/table.parquet": sink.getvalue(), "t/a.csv": b"x,y\n1,2\n3,4\n"})
    options = {"preset": presets.loopback}
    frame = pandas.read_parquet(
        f"{shared.url}/t/table.parquet", columns=["id"], storage_options=options
    )
    assert int(frame["id"].sum()) == sum(range(200_000))
    frame = pandas.read_csv(f"{shared.url}/t/a.csv", storage_options=options)
    assert frame["y"].tolist() == [2, 4]


# --- installing


def test_the_entry_point_names_the_class():
    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    points = pyproject["project"]["entry-points"]["fsspec.specs"]
    assert points == {BlobFileSystem.protocol: "aioiroh.fsspec:BlobFileSystem"}


def test_without_fsspec_the_extra_is_named():
    code = "import sys; sys.modules['fsspec'] = None; import aioiroh.fsspec"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stderr.splitlines()[-1] == "ImportError: fsspec is missing; install aioiroh[fsspec]"
