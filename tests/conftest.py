"""What every test can rely on.

* `async def` tests run on an event loop of their own; `@pytest.mark.loops` runs them on uvloop too.
* `require(condition, reason)` gives a test up where something it needs is missing. In CI (`CI` set in
  the environment) that is a failure, and so is every other skip, except with a reason that starts with
  "platform:".
* `s3_server` is a real S3 server on loopback.
* Every process that runs tests lives in an empty network namespace of its own from its start, so nothing
  reaches the internet, and two of them side by side may use the same ports. Where that cannot be had,
  tests that let programs publish or dial addresses give up: they ask for `isolated_network`.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
from collections.abc import Callable, Generator
from typing import Any, NoReturn

import pytest

import upstream
from empty_network import enter_empty_namespace
from s3_server import S3Server

NOT_ISOLATED = pytest.StashKey[str | None]()
"""Why this process is not in a network of its own."""
IN_CI = os.environ.get("CI", "").lower() not in {"", "0", "false"}


def missing(reason: str) -> NoReturn:
    """Gives a test up because `reason` is missing here: a failure in CI, a skip on a laptop."""
    pytest.skip(reason)


def pytest_configure(config: pytest.Config) -> None:
    # A run in the background ignores these, and so would all that it starts; a handler is not passed on.
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, lambda *_: None),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    # Before any test has started a thread, which would stay where it was.
    config.stash[NOT_ISOLATED] = enter_empty_namespace()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not reason.removeprefix("Skipped: ").startswith("platform:"):
            report.outcome = "failed"
            report.longrepr = f"cannot run here, and CI skips nothing: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, Any]:
    report = yield
    if IN_CI and report.outcome == "skipped":
        report.outcome = "failed"
        report.longrepr = f"cannot be collected here, and CI skips nothing: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def require() -> Callable[[object, str], None]:
    """A function `require(condition, reason)` that gives the test up when `condition` is false."""

    def check(condition: object, reason: str) -> None:
        if not condition:
            missing(reason)

    return check


@pytest.fixture(scope="session")
def s3_server(
    require: Callable[[object, str], None],
    isolated_network: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator[S3Server, None, None]:
    """A real S3 server on loopback, running; whoever kills it starts it again."""
    program = upstream.program("s3s-fs").path
    require(program.exists(), "s3s-fs is not built; run: make upstream")
    server = S3Server(program, tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def isolated_network(pytestconfig: pytest.Config, require: Callable[[object, str], None]) -> None:
    """This process, and what it starts, is in a network where only loopback exists."""
    problem = pytestconfig.stash[NOT_ISOLATED]
    require(problem is None, problem or "")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("loops"):
        metafunc.fixturenames.append("loop_kind")
        metafunc.parametrize("loop_kind", ["asyncio", "uvloop"], scope="function")


def _loop_factory(kind: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if kind == "asyncio":
        return asyncio.new_event_loop
    try:
        import uvloop
    except ImportError:
        missing("uvloop is not installed")
    return uvloop.new_event_loop


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a coroutine test to its end, in a context that closes its loop and what it left open.

    One that hangs fails with the place where it waits, before the time limit of all tests ends the process.
    """
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    callspec: Any = getattr(pyfuncitem, "callspec", None)
    kind = callspec.params.get("loop_kind", "asyncio") if callspec else "asyncio"
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    marker = pyfuncitem.get_closest_marker("timeout")
    limit = float(marker.args[0] if marker else pyfuncitem.config.getini("timeout"))

    async def run() -> None:
        async with asyncio.timeout(0.9 * limit):
            await pyfuncitem.obj(**arguments)

    with asyncio.Runner(loop_factory=_loop_factory(kind)) as runner:
        runner.run(run())
    return True
