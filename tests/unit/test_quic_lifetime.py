"""Ends that nobody planned: forks, interpreter exit, closed loops, garbage. Each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

PREAMBLE = """
import asyncio, gc, os, sys, threading, warnings, weakref
from aioiroh import _native
from aioiroh.errors import EndpointFailedError, WrongLoopError
from aioiroh.net import UdpOptions
from aioiroh.quic import Driver

ALPN = b"test/1"

def node(secret):
    driver = Driver(_native.Engine(secret, alpns=[ALPN]))
    return driver, driver.add_udp("127.0.0.1", 0, UdpOptions())

async def pair():
    client, _ = node(b"\\1" * 32)
    server, slot = node(b"\\2" * 32)
    key = _native.public_key(b"\\2" * 32)
    dialled = client.connect((slot.host, slot.port), key, [ALPN])
    accepted = (await server.accept()).accept()
    await accepted.handshake_completed()
    await dialled.handshake_completed()
    return client, server, dialled, accepted

async def echo(dialled, accepted):
    stream = await dialled.open_bi()
    await stream.write(b"ping")
    received = await accepted.accept_bi()
    assert await received.read(4) == b"ping"
    await received.write(b"pong")
    assert await stream.read(4) == b"pong"

if os.environ.get("LOOP") == "uvloop":
    import uvloop
    new_loop = uvloop.new_event_loop
else:
    new_loop = asyncio.new_event_loop

def run(main):
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main)

def sockets():
    return [name for fd in os.listdir("/proc/self/fd")
            if (name := link(fd)).startswith(("socket", "anon_inode:[eventpoll]"))]

def link(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""
"""


def run(code: str, *, loop: str = "asyncio", warnings: str = "always") -> tuple[str, str]:
    """Runs `code` after the preamble; its stdout and stderr. Fails when it hangs or fails."""
    done = subprocess.run(
        [sys.executable, "-W", warnings, "-c", PREAMBLE + textwrap.dedent(code)],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ | {"LOOP": loop, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


both_loops = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


@both_loops
def test_two_runs_in_a_row(loop):
    out, err = run(
        """
        async def main():
            client, server, dialled, accepted = await pair()
            await echo(dialled, accepted)
            await client.aclose()
            await server.aclose()
        before = len(sockets())
        run(main())
        run(main())
        gc.collect()
        print(len(sockets()) - before)
        """,
        loop=loop,
    )
    assert out == "0\n"
    assert err == ""


@both_loops
def test_a_forked_child_gets_clear_errors_and_leaves_the_parent_alone(loop):
    out, _ = run(
        """
        async def main():
            client, server, dialled, accepted = await pair()
            stream = await dialled.open_bi()
            await stream.write(b"x")
            pid = os.fork()
            if pid == 0:
                try:
                    # Steps the coroutines by hand: the loop belongs to the parent.
                    for call in (
                        lambda: stream.write(b"y"), lambda: stream.read(), lambda: dialled.open_bi(),
                        lambda: client.accept(), lambda: accepted.accept_bi(), lambda: client.aclose(),
                    ):
                        try:
                            call().__await__().send(None)
                        except EndpointFailedError as error:
                            assert "forked" in str(error), error
                        else:
                            os._exit(3)
                    try:
                        dialled.close()
                    except EndpointFailedError:
                        pass
                    else:
                        os._exit(4)
                    # A new endpoint works here.
                    asyncio._set_running_loop(None)
                    gc.collect()
                    run(again())
                    os._exit(0)
                except BaseException as error:
                    import traceback; traceback.print_exc()
                    os._exit(5)
            await asyncio.sleep(0)
            _, status = await asyncio.to_thread(os.waitpid, pid, 0)
            print("child", os.waitstatus_to_exitcode(status))
            # The parent goes on as if nothing had happened.
            await echo(dialled, accepted)
            await asyncio.sleep(0.2)
            await dialled.open_uni()
            await client.aclose()
            await server.aclose()
            print("parent ok")

        async def again():
            client, server, dialled, accepted = await pair()
            await echo(dialled, accepted)
            await client.aclose()
            await server.aclose()

        async def echo(dialled, accepted):
            stream = await dialled.open_uni()
            await stream.write(b"ping")
            received = await accepted.accept_uni()
            assert await received.read(4) == b"ping"

        run(main())
        """,
        loop=loop,
    )
    assert out == "child 0\nparent ok\n"


def test_a_forked_child_frees_the_sockets():
    out, _ = run(
        """
        async def main():
            driver, slot = node(b"\\1" * 32)
            pid = os.fork()
            if pid == 0:
                ports = [line.split()[1] for line in open("/proc/self/net/udp")]
                own = {link(fd) for fd in os.listdir("/proc/self/fd")}
                print(sum(name.startswith("socket") for name in own), flush=True)
                import time; time.sleep(1)
                os._exit(0)
            await asyncio.sleep(0.3)
            await driver.aclose()
            # The port is free although the child lives.
            again = Driver(_native.Engine(b"\\1" * 32))
            print(again.add_udp("127.0.0.1", slot.port, UdpOptions()).port == slot.port)
            await again.aclose()
            os.waitpid(pid, 0)
        run(main())
        """
    )
    # The loop's own self-pipe is a pair of sockets.
    assert out.split() == ["2", "True"]


@both_loops
def test_exit_with_everything_open(loop):
    _, err = run(
        """
        async def main():
            global everything
            everything = await pair()
            everything += (asyncio.ensure_future(everything[2].accept_bi()),)
        loop = new_loop()
        loop.run_until_complete(main())
        """,
        loop=loop,
        warnings="ignore",
    )
    assert "Error" not in err


@both_loops
def test_a_closed_loop_under_living_connections(loop):
    out, err = run(
        """
        async def main():
            client, server, dialled, accepted = await pair()
            return client, server, dialled, accepted, await dialled.open_bi()
        before = len(sockets())
        loop = new_loop()
        client, server, dialled, accepted, stream = loop.run_until_complete(main())
        loop.close()
        for call in (dialled.close, stream.reset, accepted.stats):
            try:
                call()
            except WrongLoopError:
                print("wrong loop")
        del client, server, dialled, accepted, stream, call, loop
        gc.collect()
        print(len(sockets()) - before)
        """,
        loop=loop,
    )
    assert out.split("\n") == ["wrong loop"] * 3 + ["0", ""]
    assert err.count("ResourceWarning: unclosed <Connection") == 2
    assert err.count("ResourceWarning: unclosed <aioiroh engine") == 2
    assert "Exception ignored" not in err


@both_loops
def test_garbage_without_close_tells_the_peer(loop):
    out, err = run(
        """
        async def main():
            client, server, dialled, accepted = await pair()
            gone = weakref.ref(client)
            del client, dialled
            gc.collect()
            async with asyncio.timeout(5):
                print(await accepted.closed())
                # Once it is drained nothing keeps the engine.
                while gone() is not None:
                    await asyncio.sleep(0.05)
                    gc.collect()
            print("collected")
            await server.aclose()
        before = len(sockets())
        run(main())
        print(len(sockets()) - before)
        """,
        loop=loop,
    )
    assert out == "the peer closed the connection with code 0\ncollected\n0\n"
    assert err.count("ResourceWarning: unclosed <Connection") == 1
    assert err.count("ResourceWarning: unclosed <aioiroh engine") == 1


def test_garbage_found_by_another_thread():
    out, err = run(
        """
        async def main():
            gc.disable()
            client, server, dialled, accepted = await pair()
            stream = await dialled.open_uni()
            await stream.write(b"x")
            del client, dialled, stream
            await asyncio.to_thread(gc.collect)
            async with asyncio.timeout(5):
                print(await accepted.closed())
            gc.enable()
            await server.aclose()
        run(main())
        """
    )
    assert out == "the peer closed the connection with code 0\n"
    assert "Exception ignored" not in err


def test_a_waiting_task_keeps_its_engine():
    out, _ = run(
        """
        async def main():
            client, server, dialled, accepted = await pair()
            done = asyncio.get_running_loop().create_future()

            async def wait(connection):
                stream = await connection.accept_uni()
                done.set_result(await stream.read())

            task = weakref.ref(asyncio.create_task(wait(accepted)))
            driver = weakref.ref(server)
            await asyncio.sleep(0)
            del server, accepted
            gc.collect()
            assert task() is not None and driver() is not None
            stream = await dialled.open_uni()
            await stream.write(b"still there")
            print(await done)
            await client.aclose()
        run(main())
        """
    )
    assert out == "b'still there'\n"


def test_an_interrupt_in_a_callback_ends_the_program():
    out, _ = run(
        """
        async def main():
            client, server, dialled, accepted = await pair()
            driver = client
            def interrupted(*_):
                raise KeyboardInterrupt
            from aioiroh.quic import state
            state.HANDLERS[_native.EV_DATAGRAMS] = interrupted
            accepted.send_datagram(b"x")
            await asyncio.sleep(5)
        try:
            run(main())
        except KeyboardInterrupt:
            print("interrupted")
        """,
        warnings="ignore",
    )
    assert out == "interrupted\n"
