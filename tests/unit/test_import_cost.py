"""The package stays light: what a program does not use, it does not load."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = [
    "aiohttp",
    "dns",
    "rich",
    "click",
    "cryptography",
    "sqlite3",
    "uvloop",
    "fsspec",
    "obstore",
]


@pytest.fixture(scope="module")
def loaded() -> set[str]:
    """The names of all modules after `import aioiroh` in a fresh interpreter."""
    code = "import sys; import aioiroh; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.parametrize("name", HEAVY)
def test_import_does_not_load(loaded: set[str], name: str) -> None:
    assert name not in loaded


def test_import_loads_the_package(loaded: set[str]) -> None:
    assert "aioiroh" in loaded


def test_stores_do_not_load_what_only_a_bucket_needs() -> None:
    code = "import sys; from aioiroh import blobs; blobs.BucketStore; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "obstore" not in run.stdout.split()
