"""Builds the wheel and the sdist into dist/, and tries both: the wheel in a fresh environment, and the
sdist by building a wheel from it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
MATURIN = [sys.executable, "-m", "maturin"]
SMOKE = """
import asyncio, pathlib
import aioiroh

root = pathlib.Path(aioiroh.__file__).parent
assert "site-packages" in str(root), root
assert (root / "py.typed").exists() and (root / "_native.pyi").exists()


async def shout(stream):
    await stream.write((await stream.read_all(limit=1024)).upper())


async def main():
    protocols = {b"shout/1": lambda connection: connection.serve(shout)}
    async with aioiroh.serve(protocols, bind="127.0.0.1:0") as router:
        async with aioiroh.connect(router.endpoint.addr, alpn=b"shout/1") as connection:
            async with connection.open_bi() as stream:
                await stream.write(b"hello")
                await stream.finish()
                assert await stream.read_all(limit=1024) == b"HELLO"


asyncio.run(main())
"""


def run(*command: object, cwd: Path = ROOT) -> None:
    subprocess.run([str(part) for part in command], check=True, cwd=cwd)


def only(pattern: str, folder: Path = DIST) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise SystemExit(f"expected one {pattern} in {folder}, found {len(found)}")
    return found[0]


def check_contents(wheel: Path, sdist: Path) -> None:
    """Both carry the licences; the wheel works on every CPython from 3.11 on; the sdist has the lock file."""
    if "-cp311-abi3-" not in wheel.name:
        raise SystemExit(f"not an abi3 wheel for CPython 3.11 and later: {wheel.name}")
    names = zipfile.ZipFile(wheel).namelist()
    with tarfile.open(sdist) as archive:
        in_sdist = archive.getnames()
    for licence in ("LICENSE-MIT", "LICENSE-APACHE"):
        for listing, what in ((names, wheel), (in_sdist, sdist)):
            if not any(name.endswith(licence) for name in listing):
                raise SystemExit(f"{licence} is missing in {what.name}")
    if not any(name.endswith("rust/Cargo.lock") for name in in_sdist):
        raise SystemExit(f"rust/Cargo.lock is missing in {sdist.name}")


def main() -> None:
    shutil.rmtree(DIST, ignore_errors=True)
    run(*MATURIN, "build", "--release", "--locked", "--quiet", "--out", DIST)
    # Without the path it looks for a workspace at the root first, and complains.
    run(*MATURIN, "sdist", "--manifest-path", "rust/py/Cargo.toml", "--out", DIST)
    wheel, sdist = only("*.whl"), only("*.tar.gz")
    check_contents(wheel, sdist)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        environment = work / "venv"
        venv.create(environment, with_pip=True)
        python = environment / "bin" / "python"
        run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, cwd=work)
        run(python, "-c", SMOKE, cwd=work)
        run(environment / "bin" / "aioiroh", "--help", cwd=work)
        with tarfile.open(sdist) as archive:
            archive.extractall(work, filter="data")
        source = only("aioiroh-*", work)
        # Cargo goes by the times of files, and what was built from the folder must not pass for this.
        for path in source.rglob("*.rs"):
            path.touch()
        run(
            *MATURIN,
            "build",
            "--release",
            "--locked",
            "--quiet",
            "--out",
            work / "again",
            cwd=source,
        )
        again = only("*.whl", work / "again")
        if again.name != wheel.name:
            raise SystemExit(f"the sdist builds {again.name}, the folder builds {wheel.name}")
    for path in (wheel, sdist):
        print(f"{path.name}  {path.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
