"""What simulations share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence

import pytest


@pytest.fixture
def twice() -> Callable[[str, Sequence[int]], list[list[str]]]:
    """Runs a file as a program with these arguments in two processes; gives the lines of both.

    The processes differ in all that must not matter: hash seeds, addresses of objects, TLS keys.
    """

    def run(file: str, arguments: Sequence[int]) -> list[list[str]]:
        search = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        processes = [
            subprocess.Popen(
                [sys.executable, file, *map(str, arguments)],
                env={**os.environ, **search, "PYTHONHASHSEED": hash_seed},
                stdout=subprocess.PIPE,
                text=True,
            )
            for hash_seed in ("1", "2")
        ]
        lines = [process.communicate(timeout=100)[0].splitlines() for process in processes]
        assert [process.returncode for process in processes] == [0, 0]
        return lines

    return run
