"""The blocking package: what the asynchronous one can do, from plain functions and any thread."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import inspect
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import aioiroh
from aioiroh import presets
from aioiroh import sync as aio
from aioiroh.sync import blobs
from aioiroh.sync.hints import Kind, described

ALPN = b"sync/1"
LOCAL: dict[str, Any] = {"preset": presets.loopback}


def shout(stream: aio.BiStream) -> None:
    stream.write(stream.read_all(limit=1024).upper())


def serve_shouting(connection: aio.Connection) -> None:
    for stream in connection.incoming_bi():
        with stream:
            shout(stream)


@pytest.fixture
def router() -> Iterator[aio.Router]:
    with aio.serve({ALPN: serve_shouting}, **LOCAL) as router:
        yield router


@pytest.fixture
def client() -> Iterator[aio.Endpoint]:
    with aio.Endpoint.bind(**LOCAL) as client:
        yield client


def ask(connection: aio.Connection, question: bytes) -> bytes:
    send, recv = connection.open_bi()
    send.write(question)
    send.finish()
    return recv.read_all(limit=1024)


# --- an exchange


def test_an_exchange(router, client):
    with client.connect(router.endpoint.addr, alpn=ALPN) as connection:
        assert ask(connection, b"hello") == b"HELLO"
        assert connection.remote_id == router.endpoint.id
        assert connection.rtt > 0
        assert isinstance(connection, aio.Connection)
    assert isinstance(connection.close_reason, aio.LocallyClosedError)


def test_a_handler_of_streams(client):
    with (
        aio.serve({ALPN: lambda connection: connection.serve(shout)}, **LOCAL) as router,
        client.connect(router.endpoint.addr, alpn=ALPN) as connection,
    ):
        assert [ask(connection, b"%d a" % number) for number in range(3)] == [
            b"0 A",
            b"1 A",
            b"2 A",
        ]


def test_a_handler_that_is_an_object(client):
    class Shouting:
        def accept(self, connection: aio.Connection) -> None:
            serve_shouting(connection)

    with (
        aio.serve({ALPN: Shouting()}, **LOCAL) as router,
        client.connect(router.endpoint.addr, alpn=ALPN) as connection,
    ):
        assert ask(connection, b"object") == b"OBJECT"


def test_a_coroutine_handler_runs_on_the_loop(client):
    async def handler(connection: aioiroh.Connection) -> None:
        async for stream in connection.incoming_bi():
            await stream.write(await stream.read_all(limit=10))
            await stream.finish()

    with (
        aio.serve({ALPN: handler}, **LOCAL) as router,
        client.connect(router.endpoint.addr, alpn=ALPN) as connection,
    ):
        assert ask(connection, b"raw") == b"raw"


def test_content_by_ticket(client, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "cat.bin").write_bytes(os.urandom(300_000))
    seen: list[Any] = []
    with blobs.MemoryStore() as ours, blobs.FileStore.open(tmp_path / "store") as theirs:
        shared = blobs.import_paths(ours, [folder])
        handlers = {blobs.ALPN: blobs.Provider(ours, authorize=lambda request: True)}
        with aio.serve(handlers, **LOCAL) as router:
            ticket = blobs.BlobTicket(
                router.endpoint.addr, shared.root.hash, blobs.BlobFormat.HASH_SEQ
            )
            transfer = blobs.get(client, ticket, into=theirs)
            seen += transfer
            assert transfer.result().received > 300_000
        collection = blobs.load_collection(theirs, ticket.hash)
        (tmp_path / "out").mkdir()
        blobs.export_collection(theirs, collection, tmp_path / "out")
    exported = tmp_path / "out" / "photos" / "cat.bin"
    assert exported.read_bytes() == (folder / "cat.bin").read_bytes()
    assert seen[-1].total == seen[-1].bytes


def test_a_context_manager_and_counters(router, client):
    with aio.ConnectionPool(client) as pool:
        for question in (b"one", b"two"):
            with pool.connection(router.endpoint.addr, ALPN) as connection:
                assert ask(connection, question) == question.upper()
        assert len(pool) == 1
    assert client.metrics.snapshot()["socket"]["num_conns_opened"] >= 1


def test_iterating_and_leaving_early():
    hash = blobs.Hash.of(b"observed")
    with blobs.MemoryStore() as store:
        for status in store.observe(hash):
            if status.is_complete:
                break
            store.add_stream(bytes([byte]) for byte in b"observed")
        observing = store.observe(hash)
        assert next(observing).is_complete
        observing.close()
        with pytest.raises(StopIteration):
            next(observing)


def test_a_download_from_several(client):
    data = os.urandom(500_000)
    with blobs.MemoryStore() as one, blobs.MemoryStore() as two, blobs.MemoryStore() as ours:
        hash = one.add_bytes(data).hash
        two.add_bytes(data)
        with (
            aio.serve({blobs.ALPN: blobs.Provider(one)}, **LOCAL) as first,
            aio.serve({blobs.ALPN: blobs.Provider(two)}, **LOCAL) as second,
            blobs.Downloader(client, ours) as downloader,
        ):
            providers = [first.endpoint.addr, second.endpoint.addr]
            downloader.download(hash, providers=providers).result()
        assert ours.read_bytes(hash, limit=len(data)) == data


def test_values_are_the_same_objects():
    assert aio.EndpointId is aioiroh.EndpointId
    assert blobs.Hash is aioiroh.blobs.Hash
    assert aio.errors is aioiroh.errors
    with blobs.MemoryStore() as store:
        added = store.add_bytes(b"value")
        assert type(added) is aioiroh.blobs.Added
        assert store.read_bytes(added.hash, limit=10) == b"value"


def test_names_without_a_blocking_form():
    with pytest.raises(AttributeError, match="testing"):
        _ = aio.testing
    with pytest.raises(AttributeError, match="nonsense"):
        _ = blobs.nonsense


@pytest.mark.parametrize(
    ("function", "parameter", "kind"),
    [
        (aioiroh.Router, "handlers", Kind.HANDLER),
        (aioiroh.Router, "incoming_filter", Kind.VALUE),
        (aioiroh.serve, "handlers", Kind.HANDLER),
        (aioiroh.Connection.serve, "handler", Kind.HANDLER),
        (aioiroh.blobs.Provider, "authorize", Kind.HANDLER),
        (aioiroh.blobs.Provider, "on_transfer", Kind.VALUE),
        (aioiroh.blobs.MemoryStore.collect_garbage, "protect", Kind.HANDLER),
        (aioiroh.blobs.import_paths, "on_progress", Kind.VALUE),
    ],
)
def test_which_functions_may_block(function, parameter, kind):
    assert described(function)[1][parameter] is kind


def test_arguments_are_checked_as_of_the_original(client):
    with pytest.raises(TypeError, match="alpn"):
        client.connect(client.addr)
    assert list(inspect.signature(aio.Endpoint.connect).parameters)[:2] == ["self", "target"]
    assert "addresses of the peer" in (aio.Endpoint.connect.__doc__ or "")


# --- loops and threads


async def test_inside_a_running_loop(tmp_path):
    asyncio.get_running_loop()
    with (
        aio.serve({ALPN: serve_shouting}, **LOCAL) as router,
        aio.connect(router.endpoint.addr, alpn=ALPN, **LOCAL) as connection,
    ):
        assert ask(connection, b"notebook") == b"NOTEBOOK"


def test_many_threads_share_a_connection(router, client):
    with (
        client.connect(router.endpoint.addr, alpn=ALPN) as connection,
        ThreadPoolExecutor(8) as pool,
    ):
        questions = [b"thread %d" % number for number in range(40)]
        answers = list(pool.map(lambda question: ask(connection, question), questions))
    assert answers == [question.upper() for question in questions]


def test_a_callback_on_the_loop_may_look_but_not_block(client):
    seen: list[object] = []

    def on_knock(incoming: aio.Incoming) -> str:
        seen.append(incoming.alpns)
        try:
            client.closed()
        except RuntimeError as error:
            seen.append(str(error))
        return "accept"

    with (
        aio.serve({ALPN: serve_shouting}, incoming_filter=on_knock, **LOCAL) as router,
        client.connect(router.endpoint.addr, alpn=ALPN) as connection,
    ):
        assert ask(connection, b"filtered") == b"FILTERED"
    alpns, message = seen
    assert alpns == (ALPN,) and "another thread" in str(message)


def test_the_context_of_the_caller_is_seen():
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    variable.set("set")
    seen: list[str] = []
    with blobs.MemoryStore() as store:
        blobs.import_paths(
            store, [Path(__file__)], on_progress=lambda progress: seen.append(variable.get())
        )
    assert seen and set(seen) == {"set"}


def test_leaving_a_router_ends_its_handlers(client):
    ended = threading.Event()
    reasons: list[BaseException] = []
    waiting = threading.Event()

    def handler(connection: aio.Connection) -> None:
        waiting.set()
        try:
            connection.accept_bi()
        except BaseException as error:
            reasons.append(error)
            raise
        finally:
            ended.set()

    with aio.serve({ALPN: handler}, **LOCAL) as router:
        connection = client.connect(router.endpoint.addr, alpn=ALPN)
        assert waiting.wait(30)
    assert ended.wait(30)
    assert isinstance(reasons[0], (asyncio.CancelledError, aio.ConnectionLostError))
    connection.close()


# --- time, interruption, failure


def test_a_timeout_cancels_and_loses_nothing(router, client):
    with (
        client.connect(router.endpoint.addr, alpn=ALPN) as connection,
        connection.open_bi() as stream,
    ):
        stream.write(b"late")
        with pytest.raises(TimeoutError), aio.timeout(0.01):
            stream.read()
        stream.finish()
        assert stream.read_all(limit=100) == b"LATE"


def test_timeouts_nest_and_do_not_bound_leaving(client):
    with pytest.raises(TimeoutError), aio.timeout(0.01), aio.timeout(60), client:
        client.closed()
    assert client.is_closed


def interrupt_when(condition: Callable[[], object]) -> threading.Thread:
    def main() -> None:
        condition()
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=main)
    thread.start()
    return thread


def test_an_interruption_cancels_and_loses_nothing(router, client):
    with (
        client.connect(router.endpoint.addr, alpn=ALPN) as connection,
        connection.open_bi() as stream,
    ):
        stream.write(b"ctrl c")
        reading = threading.Event()
        thread = interrupt_when(reading.wait)
        with pytest.raises(KeyboardInterrupt):
            reading.set()
            while True:
                stream.read()
        thread.join()
        stream.finish()
        assert stream.read_all(limit=100) == b"CTRL C"


def test_a_result_that_came_with_the_interruption_is_kept(monkeypatch):
    """The signal is handled while the main thread waits, but the call is done by then."""
    from aioiroh.sync import portal as module

    real_wait = threading.Event.wait
    raised: list[bool] = []

    def wait(event: threading.Event, timeout: float | None = None) -> bool:
        done = real_wait(event, timeout)
        if threading.current_thread() is threading.main_thread() and not raised:
            raised.append(True)
            raise KeyboardInterrupt
        return done

    with blobs.MemoryStore() as store:
        added = store.add_bytes(b"kept")
        monkeypatch.setattr(module, "HANDING_OVER", 1.0)
        with pytest.raises(KeyboardInterrupt):
            with monkeypatch.context() as patch:
                patch.setattr(threading.Event, "wait", wait)
                data = store.read_bytes(added.hash, limit=10)
            threading.Event().wait(30)
    assert raised and data == b"kept"


def test_an_exception_shows_both_sides(client):
    with blobs.MemoryStore() as store, pytest.raises(blobs.NotFoundError) as caught:
        store.read_bytes(blobs.Hash(bytes(32)), limit=1)
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert names[0] == "test_an_exception_shows_both_sides"
    assert "read_bytes" in names[1:]


# --- garbage, forks, the end


def drop(things: list[Any]) -> None:
    """Lets go of them, and waits until they are gone on the loop, too."""
    things.clear()
    gc.collect()
    with blobs.MemoryStore():
        pass


def test_an_unclosed_connection_warns(router, client):
    connection = client.connect(router.endpoint.addr, alpn=ALPN)
    dropped = [connection]
    del connection
    with pytest.warns(ResourceWarning, match="unclosed <Connection open"):
        drop(dropped)


def test_a_transfer_that_nobody_waits_for_warns(client):
    with blobs.MemoryStore() as store:
        transfer = blobs.get(client, blobs.Hash(bytes(32)), into=store, provider=client.addr)
        dropped = [transfer]
        del transfer
        with pytest.warns(RuntimeWarning, match="never waited for"):
            drop(dropped)


def test_a_transfer_in_the_background(client):
    with blobs.MemoryStore() as ours, blobs.MemoryStore() as theirs:
        added = ours.add_bytes(b"background")
        with aio.serve({blobs.ALPN: blobs.Provider(ours)}, **LOCAL) as router:
            address = router.endpoint.addr
            running = blobs.get(client, added.hash, into=theirs, provider=address).start()
            assert running.result(30).received == 10
            lacking = blobs.get(client, blobs.Hash(bytes(32)), into=theirs, provider=address)
            with pytest.raises(blobs.NotAvailableError):
                lacking.start().result(30)


def run_script(tmp_path: Path, code: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(code, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-W", "error", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_program_ends_with_things_left_open(tmp_path):
    run = run_script(
        tmp_path,
        """
from aioiroh import presets, sync
def handler(connection):
    connection.accept_bi()
router = sync.serve({b"x": handler}, preset=presets.loopback)
connection = sync.connect(router.endpoint.addr, alpn=b"x", preset=presets.loopback)
print("end")
""",
    )
    assert (run.returncode, run.stdout) == (0, "end\n")


def test_a_child_process_gets_a_thread_of_its_own(tmp_path):
    run = run_script(
        tmp_path,
        """
import os, sys
from aioiroh import presets, sync
from aioiroh.sync import blobs
parent = blobs.MemoryStore()
hash = parent.add_bytes(b"parent").hash
child = os.fork()
if child == 0:
    try:
        parent.status(hash)
    except RuntimeError as error:
        print(error, flush=True)
    with blobs.MemoryStore() as store:
        print(store.read_bytes(store.add_bytes(b"child").hash, limit=9), flush=True)
    del parent
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
print(parent.read_bytes(hash, limit=9))
parent.close()
""",
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines() == [
        "this was made before the process forked; make it anew",
        "b'child'",
        "b'parent'",
    ]


def test_nothing_starts_before_the_first_call(tmp_path):
    run = run_script(
        tmp_path,
        """
import threading
from aioiroh import sync
from aioiroh.sync import blobs
sync.Endpoint, blobs.MemoryStore
print(threading.active_count())
""",
    )
    assert (run.stdout, run.stderr) == ("1\n", "")
